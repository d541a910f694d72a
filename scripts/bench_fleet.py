#!/usr/bin/env python3
"""Tokens/s of one server and of two, by themselves and behind Shepherd Model Gateway, and of one server with both GPUs.

usage: scripts/bench_fleet.py PHOTONC BUNDLE [--smg FOLDER] [--backend cuda] [--devices 0 1] [--rows 512]
                                             [--streams 640] [--new-tokens 1024] [--seconds 12] [--warm-up 6]
                                             [--processes 8] [--logs DIR]
       scripts/bench_fleet.py --words CHECKPOINT   gives a checkpoint the tokenizer that this needs, before export

Needs nothing but Python; FOLDER holds the package `smg`. `--streams` is for each worker: more than its `--rows`, so
that a row that is done finds the next request in the queue. Prompts are texts, since the gateway passes no ids, and
the ids of the answers are counted (scripts/bench_streams.py). One JSON line for each set-up, then the ratios; exit
code 1 where one failed.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import bench_streams

# `smg` names its process by a compiled package, and needs it for nothing else.
GATEWAY = """
import sys, types
sys.modules["setproctitle"] = types.SimpleNamespace(setproctitle=lambda title: None)
from smg.cli import main
main()
"""
NAME = "photon"
PATIENCE_SECONDS = 90


def vocab_size(path):
    told = json.loads(path.read_text())
    return told.get("model", told)["vocab_size"]


def write_words(checkpoint):
    """A tokenizer with a word for every id, so that a text has as many tokens as it has words."""
    vocab = vocab_size(checkpoint / "config.json")
    model = {"type": "WordLevel", "vocab": {f"w{token:x}": token for token in range(vocab)}, "unk_token": "w0"}
    nothing = dict.fromkeys(["truncation", "padding", "normalizer", "post_processor", "decoder"])
    whole = nothing | {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"}}
    (checkpoint / "tokenizer.json").write_text(json.dumps(whole | {"model": model}))


def free_port():
    while True:
        with socket.socket() as taken, contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", random.randrange(20000, 32000)))
            return taken.getsockname()[1]


class Started:
    """A process that listens, and its log."""

    def __init__(self, folder, name, command, port, **environment):
        self.name, self.url, self.log = name, f"http://127.0.0.1:{port}", folder / f"{name}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | environment)

    def wait(self, answers):
        since = time.monotonic()
        while not answers(self.url):
            ended, late = self.process.poll() is not None, time.monotonic() - since > PATIENCE_SECONDS
            if ended or late:
                said = self.log.read_text(errors="replace")[-3000:]
                raise SystemExit(f"{self.name} {'ended' if ended else 'does not answer'}:\n{said}")
            time.sleep(0.1)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def is_ready(url):
    try:
        return urllib.request.urlopen(f"{url}/ready", timeout=2).status == 200
    except OSError:
        return False


def completes(url):
    body = json.dumps({"model": NAME, "prompt": "w1 w2 w3", "max_tokens": 1}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", body, {"content-type": "application/json"})
    try:
        return urllib.request.urlopen(request, timeout=20).status == 200
    except OSError:
        return False


class Fleet(contextlib.AbstractContextManager):
    """Servers and gateways; none is left behind."""

    def __init__(self, given):
        self.given, self.all, self.folder = given, [], given.logs
        self.folder.mkdir(parents=True, exist_ok=True)

    def __exit__(self, *_):
        for one in reversed(self.all):
            one.end()
        self.all.clear()

    def server(self, devices):
        """One on these GPUs; on the host, devices are not named."""
        given, port = self.given, free_port()
        command = [given.photonc, "serve", given.bundle, "--port", str(port), "--served-model-name", NAME]
        command += [
            "--backend",
            given.backend,
            "--max-queue",
            "16384",
            "--max-streams",
            "16384",
            "--max-connections",
            "16384",
        ]
        command += ["--batch", str(given.rows), "--run-ahead", str(given.run_ahead), "--log-level", "warn"]
        if given.backend == "cuda":
            command += ["--devices", ",".join(map(str, devices))]
        self.all.append(Started(self.folder, f"server-{'+'.join(map(str, devices))}", command, port))
        return self.all[-1]

    def gateway(self, servers):
        port = free_port()
        command = [
            sys.executable,
            "-c",
            GATEWAY,
            "launch",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--backend",
            "vllm",
        ]
        command += ["--policy", "round_robin", "--max-concurrent-requests", "0", "--disable-worker-overload-protection"]
        command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()), "--log-level", "warn"]
        command += ["--worker-urls", *(server.url for server in servers)]
        path = os.pathsep.join(filter(None, [str(self.given.smg), os.environ.get("PYTHONPATH")]))
        self.all.append(Started(self.folder, f"smg-{len(servers)}", command, port, PYTHONPATH=path))
        return self.all[-1]


def measure(given, told, name, urls, workers):
    """One set-up. What fails is told, and the others are measured all the same."""
    words = [*urls, "--text", NAME, "--streams", str(given.streams * workers), "--processes", str(given.processes)]
    words += [
        "--vocab",
        str(vocab_size(given.bundle / "photon.json")),
        "--new-tokens",
        str(given.new_tokens),
        "--seconds",
        str(given.seconds),
    ]
    words += ["--warm-up", str(given.warm_up), "--top-k", str(given.top_k)]
    try:
        found = bench_streams.measured(bench_streams.parsed(words))
    except SystemExit as error:
        found = {"error": str(error)[-600:]}
    told[name] = found
    print(json.dumps({"set_up": name, **found}), flush=True)


def run(given, told):
    two = given.devices[:2]
    with Fleet(given) as fleet:
        servers = [fleet.server([device]) for device in two]
        for server in servers:
            server.wait(is_ready)
        urls = [server.url for server in servers]
        measure(given, told, "one worker", urls[:1], 1)
        measure(given, told, "two workers", urls, 2)
        if given.smg:
            gateways = [fleet.gateway(servers[:1]), fleet.gateway(servers)]
            for gateway in gateways:
                gateway.wait(completes)
            measure(given, told, "one worker behind smg", [gateways[0].url], 1)
            measure(given, told, "two workers behind smg", [gateways[1].url], 2)
    with Fleet(given) as fleet:
        if given.backend == "cuda":
            both = fleet.server(two)
            both.wait(is_ready)
            measure(given, told, "one process with both", [both.url], 2)


def ratios(told):
    rate = {name: found["tokens_per_s"] for name, found in told.items() if "tokens_per_s" in found}
    pairs = [("two workers behind smg", "one worker behind smg"), ("two workers", "one worker")]
    pairs += [("one process with both", "one worker"), ("one worker behind smg", "one worker")]
    return {
        f"{over} / {under}": round(rate[over] / rate[under], 3) for over, under in pairs if {over, under} <= rate.keys()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photonc", nargs="?")
    parser.add_argument("bundle", nargs="?", type=pathlib.Path)
    parser.add_argument("--smg", type=pathlib.Path)
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--devices", type=int, nargs="+", default=[0, 1])
    for name, default in [("rows", 512), ("streams", 640), ("new-tokens", 1024), ("processes", 8)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--run-ahead", type=int, default=4)
    parser.add_argument("--top-k", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--warm-up", type=float, default=6)
    parser.add_argument("--logs", type=pathlib.Path, default=pathlib.Path("fleet-logs"))
    parser.add_argument("--words", type=pathlib.Path, metavar="CHECKPOINT")
    given = parser.parse_args()
    if given.words:
        return write_words(given.words)
    if not given.photonc or not given.bundle:
        parser.error("name the program and a bundle")
    told = {}
    run(given, told)
    print(json.dumps({"set_up": "ratios", **ratios(told)}))
    return 1 if any("error" in found for found in told.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
