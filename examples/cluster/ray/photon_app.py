"""The Python package behind Ray Serve: two replicas, each with the model, and streams of server-sent events.

    serve run photon_app:app bundle=/models/english backend=cpu
    curl -N localhost:8000 -d '{"prompt": "It is a truth", "max_tokens": 64, "seed": 1}'

A body has `prompt` and fields of `photonc.SamplingParams`. A stream is whole only with `[DONE]`: one whose replica goes breaks off.
"""

import contextlib
import json
import os

import photonc
from ray import serve
from starlette.responses import JSONResponse, StreamingResponse


@serve.deployment(num_replicas=2, max_ongoing_requests=64, graceful_shutdown_timeout_s=60, health_check_period_s=2)
class Photon:
    """A replica: its model batches what comes to it."""

    def __init__(self, bundle, backend, run_ahead):
        self.model = photonc.load(bundle, backend, run_ahead=run_ahead)

    async def __call__(self, request):
        try:
            body = await request.json()
            bursts = self.model.astream(body.pop("prompt"), photonc.SamplingParams(**body))
            # What is refused is refused before the stream begins.
            first = await anext(bursts)
        except (KeyError, TypeError, ValueError, photonc.RefusedError) as error:
            return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 400)
        headers = {"x-replica": str(os.getpid()), "x-accel-buffering": "no"}
        return StreamingResponse(events(first, bursts), media_type="text/event-stream", headers=headers)


async def events(first, bursts):
    """Bursts as events. A client that goes closes them, which ends the request."""
    async with contextlib.aclosing(bursts):
        yield event(first)
        async for burst in bursts:
            yield event(burst)
    yield "data: [DONE]\n\n"


def event(burst):
    told = {"index": burst.index, "text": burst.text, "token_ids": burst.token_ids, "finish_reason": burst.finish_reason}
    return f"data: {json.dumps(told)}\n\n"


def app(given):
    """What `serve run` builds, with its arguments."""
    return Photon.bind(given["bundle"], given.get("backend", "auto"), int(given.get("run_ahead", 8)))
