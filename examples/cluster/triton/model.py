"""A model of Triton's Python backend that asks a `photonc serve` beside it and streams what comes.

Owns the way from tensors to a request and back; a request that is cancelled, or whose server goes, ends there too.
"""

import http.client
import json
import threading
import urllib.parse

import numpy as np
import triton_python_backend_utils as pb_utils

# Inputs of one value that are handed on under their own names.
PLAIN = ("max_tokens", "temperature", "top_p", "top_k", "seed", "protocol")


class TritonPythonModel:
    """The model: each request runs on a thread of its own, and the server brings them together."""

    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.url = urllib.parse.urlsplit(parameters["url"]["string_value"])
        self.model = parameters["model"]["string_value"]
        self.under_way = []

    def execute(self, requests):
        self.under_way = [thread for thread in self.under_way if thread.is_alive()]
        for request in requests:
            thread = threading.Thread(target=self.answer, args=(request, request.get_response_sender()))
            thread.start()
            self.under_way.append(thread)

    def finalize(self):
        for thread in self.under_way:
            thread.join()

    def answer(self, request, sender):
        try:
            stream, body = self.body(request)
            text, last = "", None
            for piece, finish in self.pieces(body):
                text, last = text + piece, finish or last
                if sender.is_cancelled():
                    break
                if stream and (text or last):
                    sender.send(response(text, last))
                    text = ""
            if not stream:
                sender.send(response(text, last))
        except Exception as error:  # whatever it is, the client must hear of it
            sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def body(self, request):
        def given(name):
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            return None if tensor is None else [plain(value) for value in tensor.as_numpy().reshape(-1)]

        body = {"model": self.model, "prompt": given("text_input")[0], "stream": True}
        body |= {name: values[0] for name in PLAIN if (values := given(name))}
        if stop := given("stop"):
            body["stop"] = stop
        return bool((given("stream") or [False])[0]), body

    def pieces(self, body):
        """Texts of a stream as they come, with the reason of the end behind the last."""
        connect = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
        connection = connect(self.url.netloc)
        try:
            connection.request(
                "POST", self.url.path + "/v1/completions", json.dumps(body), {"content-type": "application/json"}
            )
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(json.loads(answer.read())["error"]["message"])
            for line in answer:
                if line.startswith(b"data: [DONE]"):
                    return
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    if "error" in event:
                        raise RuntimeError(event["error"]["message"])
                    for choice in event["choices"]:
                        yield choice["text"], choice["finish_reason"]
            raise RuntimeError("photonc closed the stream before its end")
        finally:
            connection.close()


def plain(value):
    """A value as JSON has it: bytes are texts, numbers are Python's."""
    return value.decode() if isinstance(value, bytes) else value.item()


def response(text, finish):
    tensors = [("text_output", text), ("finish_reason", finish or "")]
    return pb_utils.InferenceResponse(
        output_tensors=[pb_utils.Tensor(name, np.array([value.encode()], dtype=object)) for name, value in tensors]
    )
