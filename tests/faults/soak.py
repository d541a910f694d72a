#!/usr/bin/env python3
"""Kills, cancels and replaces under load for some minutes, and looks whether anything is lost, mixed or left.

    tests/faults/soak.py PHOTONC [--minutes 8] [--seed 1] [--keep FOLDER]

A bundle is replaced by exports of two models in turn, some of which are killed, and read meanwhile: by servers that are
killed or ended and started again, whose clients ask for whole answers, streams, and streams that they leave; by runs of
`generate`; and by runs over files of prompts, which are killed and go on. Every sequence must be one of the model's own,
whole; a run that did not end well says why. Of each server memory and descriptors, at the end files of any kind must be
no more than at first. Exit code 1 where something was not so. Needs Linux."""

import argparse
import collections
import http.client
import json
import os
import random
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENGLISH = ROOT / "examples/english"
PROMPTS = [[(7919 * number + 31 * place) % 4000 for place in range(length)] for number, length in enumerate((8, 16, 21, 40))]
NEW_TOKENS, CLIENTS = 48, 6
# What a reader may say of a bundle that is exchanged under it.
EXCHANGED = ("was replaced or changed while in use", "photon.json")
# What a server may grow by under a load that does not, and descriptors that come and go.
GROWTH_BYTES, SPARE_DESCRIPTORS = 48 << 20, 4


def other_model(folder):
    """The trained example with two layers exchanged: another model of the same shapes."""
    shutil.copytree(ENGLISH, folder)
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    for name in [name for name in header if ".decoder.layers.0." in name]:
        (a, b), (c, d) = (header[one]["data_offsets"] for one in (name, name.replace(".layers.0.", ".layers.1.")))
        spans = slice(start + a, start + b), slice(start + c, start + d)
        data[spans[0]], data[spans[1]] = data[spans[1]], data[spans[0]]
    path.write_bytes(data)
    return folder


class Soak:
    """The folders, what is expected, and what was found."""

    def __init__(self, photonc, folder, seed, minutes):
        self.photonc, self.folder, self.seed = photonc, folder, seed
        self.seconds = minutes * 60
        self.deadline = time.monotonic() + self.seconds
        self.counts, self.faults, self.lock = collections.Counter(), [], threading.Lock()
        self.temporary, self.cache = folder / "tmp", folder / "cache"
        self.temporary.mkdir()
        self.environment = os.environ | {
            "TMPDIR": str(self.temporary),
            "XDG_CACHE_HOME": str(self.cache),
            "XDG_CONFIG_HOME": str(folder / "config"),
        }
        self.models = [ENGLISH, other_model(folder / "other")]
        self.expected = []
        for number, model in enumerate(self.models):
            self.sound("export", model, "-o", folder / f"sound{number}", "-q")
            rows = [self.tokens(folder / f"sound{number}", prompt)[1] for prompt in PROMPTS]
            self.expected.append(rows)
        if any(one == other for one, other in zip(*self.expected)):
            sys.exit("the two models say the same")
        self.sound("export", self.models[0], "-o", folder / "live", "-q")
        with open(folder / "prompts.jsonl", "w") as file:
            for number in range(24):
                file.write(json.dumps({"id": number, "prompt_ids": PROMPTS[number % len(PROMPTS)]}) + "\n")

    def run(self, *arguments, kill_after=None):
        """Exit code, output and what was said; None is the code of a run that was killed after so many seconds."""
        command = [self.photonc, *map(str, arguments)]
        process = subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            output, said = process.communicate(timeout=kill_after or 120)
        except subprocess.TimeoutExpired:
            process.kill()
            output, said = process.communicate()
            if kill_after is None:
                self.fault(f"{' '.join(command)}: no end within 120 s")
            return None, output.decode(), said.decode()
        return process.returncode, output.decode(), said.decode()

    def sound(self, *arguments):
        code, _, said = self.run(*arguments)
        if code:
            sys.exit(f"{arguments}: {said}")

    def tokens(self, bundle, prompt, kill_after=None):
        """What a run of `generate` came to: its code, the tokens, what it said."""
        ids = ",".join(map(str, prompt))
        arguments = ("generate", bundle, "--prompt-ids", ids, "-n", NEW_TOKENS, "--greedy", "--ignore-eos", "-q")
        code, output, said = self.run(*arguments, kill_after=kill_after)
        return code, [int(word) for word in output.split()], said

    def fault(self, what):
        with self.lock:
            self.faults.append(what)
            print(f"FAULT {what}", flush=True)

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def going(self):
        return time.monotonic() < self.deadline

    def explained(self, what, code, said):
        """A run that did not end well must have been told of an exchange."""
        if code == 1 and any(words in said for words in EXCHANGED):
            self.count(f"{what}: refused, as the bundle was exchanged")
        elif code is not None:
            self.fault(f"{what}: exit code {code}: {said.strip()[-600:]}")

    def exports(self):
        """Replaces the bundle, and kills some of those that do."""
        draw = random.Random(f"{self.seed}:exports")
        turn = 0
        while self.going():
            turn += 1
            kill = draw.uniform(0.02, 3) if draw.random() < 0.5 else None
            code, _, said = self.run("export", self.models[turn % 2], "-o", "live", "--force", "-q", kill_after=kill)
            self.count("exports" if code == 0 else "exports killed")
            if code not in (0, None):
                self.fault(f"export: exit code {code}: {said.strip()[-600:]}")
            time.sleep(draw.uniform(0, 0.5))

    def generates(self):
        draw = random.Random(f"{self.seed}:generates")
        while self.going():
            number = draw.randrange(len(PROMPTS))
            kill = draw.uniform(0.02, 0.4) if draw.random() < 0.3 else None
            code, found, said = self.tokens("live", PROMPTS[number], kill)
            if code != 0:
                self.explained("generate", code, said)
                self.count("generate: killed" if code is None else "generate: others")
            elif found not in (self.expected[0][number], self.expected[1][number]):
                self.fault(f"generate: tokens of no model: {found}")
            else:
                self.count("generate: whole")

    def files(self):
        """Runs over a file of prompts, killed until one comes to the end."""
        draw = random.Random(f"{self.seed}:files")
        while self.going():
            model, out = draw.randrange(2), self.folder / "results.jsonl"
            out.unlink(missing_ok=True)
            code, kills = None, 0
            while code != 0 and self.going():
                arguments = ("generate", f"sound{model}", "--prompts-file", "prompts.jsonl", "--out", out, "--greedy")
                kill = draw.uniform(0.05, 1.0) if draw.random() < 0.8 else None
                code, _, said = self.run(*arguments, "--ignore-eos", "-n", NEW_TOKENS, "-q", kill_after=kill)
                kills += code is None
                if code not in (0, None):
                    return self.fault(f"generate --out: exit code {code}: {said.strip()[-600:]}")
            if code == 0:
                rows = [json.loads(line) for line in out.read_text().splitlines()]
                found = [(row["id"], row["tokens"]) for row in rows]
                expected = [(number, self.expected[model][number % len(PROMPTS)]) for number in range(24)]
                if found != expected:
                    self.fault(f"generate --out: other results after {kills} kills")
                self.count("files of prompts, each whole after kills")

    def left_over(self):
        """Files that are neither inputs nor results."""
        known = {"tmp", "cache", "config", "other", "sound0", "sound1", "live", "prompts.jsonl", "results.jsonl"}
        known |= {f"server{number}.log" for number in range(1000)}
        found = [name for name in os.listdir(self.folder) if name not in known]
        return found + [f"tmp/{name}" for name in os.listdir(self.temporary)]


class Servers:
    """Servers on the bundle that is replaced, one after the other."""

    def __init__(self, soak):
        self.soak, self.process, self.port, self.number = soak, None, 0, 0
        self.model, self.samples = None, []

    def serve(self):
        draw = random.Random(f"{self.soak.seed}:servers")
        long = max(self.soak.seconds / 3, 6)
        while self.soak.going():
            if not self.start():
                continue
            # Every other one lives long enough to be measured.
            end = time.monotonic() + (long if self.number % 2 else draw.uniform(0.5, 5))
            while self.soak.going() and time.monotonic() < end and self.process.poll() is None:
                self.measure()
                time.sleep(0.25)
            if self.process.poll() is not None:
                self.soak.fault(f"a server ended by itself with {self.process.returncode}: {self.log()[-600:]}")
            self.end(draw.random() < 0.5 and self.soak.going())

    def log(self):
        return (self.soak.folder / f"server{self.number}.log").read_text(errors="replace")

    def start(self):
        self.number += 1
        with open(self.soak.folder / f"server{self.number}.log", "wb") as log:
            process = subprocess.Popen(
                [self.soak.photonc, "serve", "live", "--port", "0", "--json", "--log-format", "text", "--batch", "8"],
                cwd=self.soak.folder, env=self.soak.environment, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        text = ""
        while not text.rstrip().endswith("}"):
            line = process.stdout.readline().decode()
            if not line:
                self.soak.explained("serve", process.wait(), self.log())
                return False
            text += line
        self.port = int(json.loads(text)["listening"].rsplit(":", 1)[1])
        while process.poll() is None and self.status_of("/ready") != 200:
            time.sleep(0.02)
        if process.poll() is not None:
            self.soak.explained("serve", process.returncode, self.log())
            return False
        self.model, self.samples = None, []
        self.process = process
        self.soak.count("servers")
        return True

    def status_of(self, path):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0

    def measure(self):
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            sizes = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.endswith("kB")}
            descriptors = len(os.listdir(f"/proc/{self.process.pid}/fd"))
            self.samples.append((int(sizes["VmRSS"]) << 10, descriptors))
        except (OSError, KeyError):
            pass

    def end(self, kill):
        """Ends the server, by a kill or so that it ends what is under way; looks whether it has grown."""
        if kill:
            self.process.kill()
        else:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        if code != (-signal.SIGKILL if kill else 0):
            self.soak.fault(f"a server was ended, with exit code {code}: {self.log()[-600:]}")
        self.soak.count("servers killed" if kill else "servers ended")
        count = len(self.samples)
        if count < 40:
            return
        median = lambda at, part: statistics.median(sample[at] for sample in part)
        early, late = self.samples[count // 4 : count // 2], self.samples[3 * count // 4 :]
        memory, descriptors = [(median(at, early), median(at, late)) for at in (0, 1)]
        shown = f"{memory[0] / 2**20:.0f} to {memory[1] / 2**20:.0f} MiB, {descriptors[0]:.0f} to {descriptors[1]:.0f} descriptors"
        print(f"server {self.number}, {count // 4} s: {shown}", flush=True)
        if memory[1] > memory[0] + GROWTH_BYTES or descriptors[1] > descriptors[0] + SPARE_DESCRIPTORS + CLIENTS:
            self.soak.fault(f"a server grew: {shown}")

    def client(self, name):
        """Asks whichever server there is, in every way."""
        draw = random.Random(f"{self.soak.seed}:client{name}")
        while self.soak.going():
            process, number = self.process, draw.randrange(len(PROMPTS))
            if process is None or process.poll() is not None:
                time.sleep(0.05)
                continue
            way = draw.choice(["whole", "stream", "left", "cut"])
            body = {"token_ids": PROMPTS[number], "max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True}
            try:
                found = self.ask(way, body | {"stream": way != "whole"}, draw)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.lost(process, way, error)
                continue
            if found is not None:
                self.check(process, number, found)
                self.soak.count(f"requests: {way}")
            else:
                self.soak.count("requests: left by the client")

    def ask(self, way, body, draw):
        """The tokens of an answer; none where the client has gone."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            if way == "cut":
                text = json.dumps(body)
                head = f"POST /v1/generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(text)}"
                connection.connect()
                connection.sock.sendall(f"{head}\r\n\r\n{text}"[: draw.randrange(1, len(head) + len(text))].encode())
                return None
            connection.request("POST", "/v1/generate", json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            if answer.status == 503:
                raise OSError("the server is about to end")
            if answer.status != 200:
                self.soak.fault(f"a sound request was answered with {answer.status}: {answer.read()[:300]}")
                return None
            if way == "whole":
                return json.loads(answer.read())["outputs"][0]["token_ids"]
            return self.streamed(answer, draw.randrange(1, 4) if way == "left" else None)
        finally:
            connection.close()

    def streamed(self, answer, leave_after):
        tokens, events = [], 0
        for line in answer:
            if line.startswith(b"data: [DONE]"):
                return tokens
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    raise OSError(str(event["error"]))
                tokens += event.get("token_ids", [])
                events += 1
                if events == leave_after:
                    return None
        raise OSError("the stream has no end")

    def lost(self, process, way, error):
        """An answer may be lost with its server alone."""
        since = time.monotonic()
        while process.poll() is None and process is self.process and time.monotonic() - since < 65:
            time.sleep(0.1)
        if process.poll() is None and process is self.process:
            self.soak.fault(f"{way}: an answer was lost: {error!r}")
        else:
            self.soak.count("requests: lost with their server")

    def check(self, process, number, found):
        """One server has one model for as long as it lives."""
        of = [model for model in (0, 1) if found == self.soak.expected[model][number]]
        with self.soak.lock:
            if process is self.process and of and self.model is None:
                self.model = of[0]
            mixed = process is self.process and of and self.model not in of
        if not of:
            self.soak.fault(f"serve: tokens of no model for prompt {number}: {found}")
        elif mixed:
            self.soak.fault("serve: one server spoke as both models")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photonc", type=lambda path: str(Path(path).resolve()))
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="leave everything in this folder")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    soak = Soak(arguments.photonc, folder, arguments.seed, arguments.minutes)
    servers = Servers(soak)
    work = [soak.exports, soak.generates, soak.files, servers.serve]
    threads = [threading.Thread(target=one) for one in work]
    threads += [threading.Thread(target=servers.client, args=(number,)) for number in range(CLIENTS)]
    soak.deadline = time.monotonic() + soak.seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # What killed runs leave, the next one removes.
    soak.sound("export", soak.models[0], "-o", "live", "--force", "-q")
    for name in soak.left_over():
        soak.fault(f"left over: {name}")
    if soak.tokens("live", PROMPTS[0])[1] != soak.expected[0][0]:
        soak.fault("the bundle is not the one that was exported last")
    for what, count in sorted(soak.counts.items()):
        print(f"{count:7} {what}")
    cached = [path.stat().st_size for path in soak.cache.rglob("*") if path.is_file()]
    print(f"cache: {len(cached)} files of {sum(cached)} bytes; {len(soak.faults)} faults")
    if not arguments.keep:
        shutil.rmtree(folder)
    sys.exit(1 if soak.faults else 0)


if __name__ == "__main__":
    main()
