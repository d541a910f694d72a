"""`tritonclient` over HTTP, unmodified, which speaks KServe's protocol: metadata, probes, tensors in and out, and errors as its own
exceptions.

usage: triton_client.py URL MODEL
"""

import json
import sys
import urllib.request

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

PROMPT = "Catherine was at the window, and saw her brother come across the garden"
# The server takes JSON, and what is said to be such.
JSON = {"Content-Type": "application/json"}
DRAWN = {"max_tokens": 40, "temperature": 0.8, "seed": 7, "top_k": 40}


def tensor(name, values, datatype):
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=False)
    return made


def infer(client, model, prompt, parameters=DRAWN, outputs=("text_output", "output_ids", "finish_reason")):
    wanted = [triton.InferRequestedOutput(name, binary_data=False) for name in outputs]
    return client.infer(model, [prompt], outputs=wanted, request_id="one", parameters=parameters, headers=JSON)


def main():
    url, model = sys.argv[1].removeprefix("http://"), sys.argv[2]
    client = triton.InferenceServerClient(url, network_timeout=300, connection_timeout=60)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model)
    assert not client.is_model_ready("another")
    assert client.get_server_metadata()["name"] == "photonc"
    described = client.get_model_metadata(model)
    assert [one["name"] for one in described["inputs"]] == ["text_input", "input_ids"], described

    text = tensor("text_input", np.array([PROMPT.encode()], dtype=object), "BYTES")
    whole = infer(client, model, text)
    ids, written = whole.as_numpy("output_ids"), whole.as_numpy("text_output")[0]
    assert ids.shape == (40,) and ids.dtype == np.int64, ids
    assert written and whole.as_numpy("finish_reason")[0] == "length", whole.get_response()
    assert whole.get_response()["id"] == "one", whole.get_response()

    # A generation that goes on behind ids is the one that a text began.
    known = np.concatenate([prompt_ids(client, model), ids[:20]])
    known = tensor("input_ids", known.astype(np.int64), "INT64")
    more = DRAWN | {"max_tokens": 20, "prompt_length": len(prompt_ids(client, model))}
    rest = infer(client, model, known, more, ("output_ids",))
    assert rest.as_numpy("output_ids").tolist() == ids[20:].tolist(), rest.get_response()
    assert rest.as_numpy("text_output") is None, rest.get_response()

    for parameters, named in [({"temperature": -1}, "temperature"), ({"beam_width": 2}, "beam_width")]:
        try:
            infer(client, model, text, parameters)
        except InferenceServerException as error:
            assert error.status() == "400" and named in error.message(), error
        else:
            raise AssertionError(f"{parameters} is taken")
    client.close()


def prompt_ids(client, model):
    """Ids of the prompt's tokens, as the server's own tokenizer makes them."""
    body = json.dumps({"model": model, "prompt": PROMPT}).encode()
    request = urllib.request.Request(f"{sys.argv[1]}/tokenize", body, JSON)
    with urllib.request.urlopen(request) as answer:
        return np.array(json.load(answer)["tokens"])


main()
