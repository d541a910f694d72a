"""The model of the Triton package over a real `photonc serve`. Triton itself is not installed here: its module for
models is stood in for by the few classes below, which keep what a model sends.

    .deps/py/bin/python tests/cluster/triton_check.py PHOTONC BUNDLE PACKAGE
"""

import argparse
import importlib.util
import json
import pathlib
import re
import sys
import tempfile
import threading
import types

import numpy as np

from processes import Checks, Processes, Stream, free_port, status, until


class Tensor:
    def __init__(self, name, values):
        self.name, self.values = name, values

    def as_numpy(self):
        return self.values


class InferenceResponse:
    def __init__(self, output_tensors=(), error=None):
        self.outputs, self.error = {one.name: one.values[0].decode() for one in output_tensors}, error


class Request:
    """A request and the sender of its answers."""

    def __init__(self, leaves_after=None, **inputs):
        self.inputs, self.sent, self.leaves_after, self.over = inputs, [], leaves_after, threading.Event()

    def get_response_sender(self):
        return self

    def is_cancelled(self):
        return self.leaves_after is not None and len(self.sent) >= self.leaves_after

    def send(self, response=None, flags=0):
        if response is not None:
            self.sent.append(response)
        if flags:
            self.over.set()

    def end(self):
        assert self.over.wait(60), "it does not end"
        return self.sent


def standing_in():
    module = types.ModuleType("triton_python_backend_utils")
    module.Tensor, module.InferenceResponse, module.TritonError = Tensor, InferenceResponse, str
    module.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1

    def get(request, name):
        value = request.inputs.get(name)
        return (
            None
            if value is None
            else Tensor(name, np.array(value, dtype=object if isinstance(value[0], bytes) else None))
        )

    module.get_input_tensor_by_name = get
    return module


def main():
    parser = argparse.ArgumentParser()
    for name in ("photonc", "bundle", "package"):
        parser.add_argument(name)
    given, check, port = parser.parse_args(), Checks(), free_port()
    repository = pathlib.Path(given.package) / "repository/photon"
    texts = dict(
        re.findall(r'key: "(\w+)" value: { string_value: "([^"]*)"', (repository / "config.pbtxt").read_text())
    )
    texts["url"] = f"http://127.0.0.1:{port}"
    sys.modules["triton_python_backend_utils"] = standing_in()
    spec = importlib.util.spec_from_file_location("model", repository / "1/model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with Processes(tempfile.mkdtemp(prefix="photonc-triton-")) as processes:
        processes.start(
            "photonc",
            [given.photonc, "serve", given.bundle, "--backend", "cpu", "--port", str(port), "--run-ahead", "1"],
        )
        until("the server is ready", lambda: status(f"{texts['url']}/ready") == 200)
        model = module.TritonPythonModel()
        model.initialize(
            {"model_config": json.dumps({"parameters": {key: {"string_value": text} for key, text in texts.items()}})}
        )
        asked = {"prompt": "It is a truth", "max_tokens": 100, "temperature": 0.5, "seed": 3, "ignore_eos": False}
        alone = Stream(f"{texts['url']}/v1/completions", asked).end()
        plain = {"text_input": [b"It is a truth"], "max_tokens": [100], "temperature": [0.5], "seed": [3]}
        whole, stream, stopped = (
            Request(**plain),
            Request(stream=[True], **plain),
            Request(stop=[alone.text[20:23].encode()], **plain),
        )
        wrong, leaving = Request(**plain | {"top_p": [7.0]}), Request(
            1, **plain | {"stream": [True], "max_tokens": [1500]}
        )
        model.execute([whole, stream, stopped, wrong, leaving])
        said = whole.end()
        check(
            "a text in one answer",
            len(said) == 1 and said[0].outputs == {"text_output": alone.text, "finish_reason": alone.finish},
            said[0].__dict__,
        )
        said = stream.end()
        check(
            "the same in pieces",
            len(said) > 1 and "".join(one.outputs["text_output"] for one in said) == alone.text,
            len(said),
        )
        check(
            "up to a stop string",
            stopped.end()[0].outputs["text_output"] == alone.text.split(alone.text[20:23])[0],
            stopped.sent,
        )
        check("a wrong value is told", "top-p" in wrong.end()[0].error, wrong.sent)
        check("one that is cancelled ends", len(leaving.end()) == 1, len(leaving.sent))
        model.finalize()
    return check.exit_code()


if __name__ == "__main__":
    sys.exit(main())
