"""A worker of NVIDIA Dynamo beside one `photonc serve`: token ids in, token ids out.

    python photonc_worker.py --card english-dynamo/card -- photonc serve english --backend cuda

Owns the server that it starts. A server that ends, or answers nothing for --hang-timeout, ends the worker with code 70:
the frontend then goes on with its streams elsewhere, and discovery drops the worker. Texts have no seam there, because
workers share where each prompt ended (prompt_lengths.py) and draw with a seed that follows from the request.
"""

import argparse
import asyncio
import ctypes
import hashlib
import json
import os
import pathlib
import signal
import sys
import time

import aiohttp
from dynamo.common.backend import EngineConfig, LLMEngine, LlmRegistration, WorkerConfig
from dynamo.common.backend.health_check import build_health_check_payload, is_probe
from dynamo.common.backend.publisher import ComponentSnapshot
from dynamo.common.backend.run import run
from dynamo.llm.exceptions import CannotConnect, EngineShutdown, InvalidArgument, StreamIncomplete, Unknown

import prompt_lengths

# Seconds between two looks at the server: its counters, and whether it answers.
LOOK_EVERY = 0.5
# Exit code that says the server failed.
ENGINE_FAILED = 70
# Of Linux's prctl.
PR_SET_PDEATHSIG = 1
# Parameters of the frontend that are handed on under their own names.
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
# Those that no server of ours does.
REFUSED = ("best_of", "use_beam_search", "length_penalty", "guided_decoding")


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--card", required=True, help="folder that `photonc package --for dynamo` wrote")
    parser.add_argument("--served-model-name", help="name that clients ask for [default: the server's]")
    parser.add_argument("--namespace", default=os.environ.get("DYN_NAMESPACE", "dynamo"))
    parser.add_argument("--component", default="photonc")
    parser.add_argument("--discovery-backend", default=os.environ.get("DYN_DISCOVERY_BACKEND", "etcd"))
    parser.add_argument("--request-plane", default=os.environ.get("DYN_REQUEST_PLANE", "tcp"))
    parser.add_argument("--event-plane", default=os.environ.get("DYN_EVENT_PLANE"))
    parser.add_argument("--protocol", help="recgen or hiergen, where a request has no annotation `protocol:..`")
    parser.add_argument(
        "--prompt-store",
        help="folder or http:// address of etcd where workers share the lengths of prompts [beside the discovery]",
    )
    parser.add_argument("--hang-timeout", type=float, default=10, help="seconds without an answer [%(default)s]")
    parser.add_argument(
        "--stall-timeout", type=float, default=120, help="seconds of a stream without tokens [%(default)s]"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- photonc serve BUNDLE ..")
    given = parser.parse_args(argv)
    given.command = given.command[given.command[:1] == ["--"] :]
    if not given.command:
        parser.error("expected the server's command behind --")
    given.prompt_store = given.prompt_store or prompt_lengths.default_place(given.discovery_backend)
    return given


def endpoint_types(card):
    """What the frontend offers: chats where the card has a template."""
    config = json.loads((pathlib.Path(card) / "tokenizer_config.json").read_text())
    return "chat,completions" if config.get("chat_template") else "completions"


def end_with_parent():
    """Has the system end the server where the worker is killed: nobody would tell it otherwise."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def samples(metrics, name):
    """The sum of a counter or gauge over its labels."""
    lines = (line for line in metrics.splitlines() if line.startswith((name + "{", name + " ")))
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def seed_of(request_id):
    """A seed that every worker derives from a request that gives none: another would show where it went on."""
    return int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8).digest(), "big") >> 1


class Photonc(LLMEngine):
    """One server and what runs on it."""

    def __init__(self, given):
        self.given = given
        self.child = self.http = self.look_task = self.publisher = self.store = None
        self.answers = {}  # by request, so that one that is cancelled can be closed
        self.tokens = {}  # tokens that each request has in the caches
        self.metrics = ""
        self.failed = None
        self.ending = False

    @classmethod
    async def from_args(cls, argv=None):
        given = arguments(argv)
        return cls(given), WorkerConfig(
            namespace=given.namespace,
            component=given.component,
            endpoint="generate",
            model_name=given.card,
            served_model_name=given.served_model_name,
            endpoint_types=endpoint_types(given.card),
            discovery_backend=given.discovery_backend,
            request_plane=given.request_plane,
            event_plane=given.event_plane,
        )

    async def start(self, worker_id):
        command = [*self.given.command, "--host", "127.0.0.1", "--port", "0"]
        self.child = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, preexec_fn=end_with_parent
        )
        line = (await self.child.stdout.readline()).decode()  # listening at http://127.0.0.1:41555
        if not line:
            raise RuntimeError(f"{command} ended with {await self.child.wait()}")
        address = line.split()[-1]
        self.http = aiohttp.ClientSession(
            address, timeout=aiohttp.ClientTimeout(total=None), connector=aiohttp.TCPConnector(limit=0)
        )
        self.store = await prompt_lengths.opened(self.given.prompt_store)
        while (status := await self.status("/ready")) != 200:
            if self.child.returncode is not None:
                raise RuntimeError(f"{command} ended with {self.child.returncode} while it loaded ({status})")
            await asyncio.sleep(0.1)
        async with self.http.get("/v1/models") as answer:
            model = (await answer.json())["data"][0]
        self.name = self.given.served_model_name or model["id"]
        self.engine_name, self.context, self.block = model["id"], model["max_model_len"], model["meta_tokens"]
        await self.look()
        rows = int(samples(self.metrics, "photonc_rows"))
        self.blocks = rows * -(-self.context // self.block)
        self.look_task = asyncio.create_task(self.keep_looking())
        print(json.dumps({"worker": worker_id, "engine_pid": self.child.pid, "engine": address}), flush=True)
        return EngineConfig(
            model=self.given.card,
            served_model_name=self.name,
            llm=LlmRegistration(
                context_length=self.context,
                kv_cache_block_size=self.block,
                total_kv_blocks=self.blocks,
                max_num_seqs=rows,
            ),
        )

    async def status(self, path):
        try:
            async with self.http.get(path) as answer:
                return answer.status
        except aiohttp.ClientError as error:
            return repr(error)

    async def look(self):
        async with self.http.get("/metrics", timeout=aiohttp.ClientTimeout(total=self.given.hang_timeout)) as answer:
            self.metrics = await answer.text()

    async def keep_looking(self):
        """Until the server ends or hangs: then the worker does."""
        ended = asyncio.create_task(self.child.wait())
        while not ended.done():
            try:
                await self.look()
                self.publish()
            except (aiohttp.ClientError, asyncio.TimeoutError):
                await asyncio.wait([ended], timeout=LOOK_EVERY)
                if not ended.done():
                    self.failed = f"photonc answered nothing for {self.given.hang_timeout} s"
                    self.child.kill()
            await asyncio.wait([ended], timeout=LOOK_EVERY)
        self.failed = self.failed or f"photonc ended with {self.child.returncode}"
        print(self.failed, file=sys.stderr, flush=True)
        # Streams break with the server, and their ends must reach the frontend before this process is gone.
        until = time.monotonic() + 2
        while self.answers and time.monotonic() < until:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        os._exit(ENGINE_FAILED)

    def publish(self):
        if self.publisher:
            used = sum(-(-count // self.block) for count in self.tokens.values())
            self.publisher.publish(
                0,
                ComponentSnapshot(
                    kv_used_blocks=used,
                    kv_total_blocks=self.blocks,
                    gpu_cache_usage=min(used / max(self.blocks, 1), 1),
                    dp_rank=0,
                ),
            )

    def component_metrics_dp_ranks(self):
        return [0]

    def attach_snapshot_publisher(self, publisher):
        self.publisher = publisher

    async def register_prometheus(self, metrics):
        metrics.register_prometheus_expfmt_callback(lambda: self.metrics)

    async def health_check_payload(self):
        return build_health_check_payload(bos_token_id=0)

    def body(self, request, request_id, prompt_length):
        ids = list(request["token_ids"])
        stop, sampling, output = (
            request.get(key) or {} for key in ("stop_conditions", "sampling_options", "output_options")
        )
        for name in REFUSED:
            if sampling.get(name):
                raise InvalidArgument(f"`{name}` is not done")
        if (sampling.get("n") or 1) != 1:
            raise InvalidArgument("`n` above 1 is not done behind Dynamo")
        if output.get("prompt_logprobs") is not None:
            raise InvalidArgument("`prompt_logprobs` is not done behind Dynamo")
        max_tokens = stop.get("max_tokens")
        body = {
            "model": self.engine_name,
            "token_ids": ids,
            "prompt_length": prompt_length,
            "stream": True,
            "max_tokens": max_tokens if max_tokens is not None else self.context - len(ids),
            "seed": sampling["seed"] if sampling.get("seed") is not None else seed_of(request_id),
            "stop_token_ids": [*(stop.get("stop_token_ids") or []), *(stop.get("stop_token_ids_visible") or [])],
            "ignore_eos": bool(stop.get("ignore_eos")),
            "logprobs": output.get("logprobs"),
        }
        if not body["ignore_eos"]:
            body["min_tokens"] = stop.get(
                "min_tokens"
            )  # with ignore_eos the frontend says max_tokens, which is no wish
        body |= {name: sampling[name] for name in SAMPLING if sampling.get(name) is not None}
        noted = dict(note.split(":", 1) for note in request.get("annotations") or [] if ":" in note)
        protocol = noted.get("protocol", self.given.protocol)
        return body | ({"protocol": protocol} if protocol else {})

    async def generate(self, request, context):
        ids, request_id, probe = request["token_ids"], context.id(), is_probe(request)
        prompt_length = len(ids) if probe else await self.store.length(request_id, ids)
        body = self.body(request, request_id, prompt_length)
        made = len(ids) - prompt_length
        self.tokens[request_id] = len(ids)
        try:
            async with self.http.post("/v1/generate", json=body) as answer:
                await self.check(answer)
                self.answers[request_id] = answer
                async for piece in self.pieces(answer):
                    made += len(piece["token_ids"])
                    self.tokens[request_id] += len(piece["token_ids"])
                    chunk = {"token_ids": piece["token_ids"], "index": 0} | logprobs(piece)
                    if piece["finish_reason"]:
                        usage = {
                            "prompt_tokens": prompt_length,
                            "completion_tokens": made,
                            "total_tokens": prompt_length + made,
                        }
                        chunk |= {"finish_reason": piece["finish_reason"], "completion_usage": usage}
                        await self.forget(request_id, probe)
                        yield chunk
                        return
                    if piece["token_ids"]:
                        yield chunk
            raise StreamIncomplete("photonc closed the stream")
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            if context.is_stopped() and not self.ending:
                await self.forget(request_id, probe)
                yield {"token_ids": [], "index": 0, "finish_reason": "cancelled"}
                return
            raise StreamIncomplete(self.failed or f"photonc: {error!r}") from error
        finally:
            self.answers.pop(request_id, None)
            self.tokens.pop(request_id, None)

    async def check(self, answer):
        """Raises what an answer that is no stream means; the frontend tries others where this one cannot now."""
        if answer.status == 200:
            return
        text = await answer.text()
        if answer.status in (429, 503):
            raise CannotConnect(f"photonc: {answer.status} {text}")
        raise (InvalidArgument if answer.status < 500 else Unknown)(text)

    async def pieces(self, answer):
        """The documents of a stream, up to its end or an error."""
        last = time.monotonic()
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                # Comments keep coming from a server whose device computes nothing any more.
                if time.monotonic() - last > self.given.stall_timeout:
                    raise EngineShutdown(f"photonc gave no token for {self.given.stall_timeout} s")
                continue
            piece, last = json.loads(line[6:]), time.monotonic()
            if error := piece.get("error"):
                raise (
                    EngineShutdown(error["message"])
                    if error["code"] != "request_timeout"
                    else Unknown(error["message"])
                )
            if "token_ids" in piece:
                yield piece

    async def forget(self, request_id, probe):
        if not probe:
            await self.store.forget(request_id)

    async def abort(self, context):
        if answer := self.answers.get(context.id()):
            answer.close()  # which ends the request there

    async def cleanup(self):
        # Streams are under way still: the server finishes them before it ends, or says that it does not.
        self.ending = True
        if self.look_task:
            self.look_task.cancel()
        if self.child and self.child.returncode is None:
            self.child.send_signal(signal.SIGTERM)
            await self.child.wait()
        if self.http:
            await self.http.close()
        if self.store:
            await self.store.close()


def logprobs(piece):
    """Log-probabilities in the frontend's form."""
    told = piece.get("logprobs")
    if not told:
        return {}
    return {
        "log_probs": [one["logprob"] for one in told],
        "top_logprobs": [
            [
                {"rank": rank, "token_id": top["token_id"], "token": None, "logprob": top["logprob"]}
                for rank, top in enumerate(one["top"], 1)
            ]
            for one in told
        ],
    }


if __name__ == "__main__":
    run(Photonc)
