"""Processes and streams of the cluster tests: what they start they end, what a stream said is kept with its end."""

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field

PATIENCE = 120


def free_port():
    """One that nobody has, below the system's own: Dynamo reads the ports of its workers as 16 bits with a sign."""
    while True:
        with socket.socket() as taken, contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", random.randrange(20000, 32000)))
            return taken.getsockname()[1]


def until(what, wish):
    since = time.monotonic()
    while not (value := wish()):
        assert time.monotonic() - since < PATIENCE, f"{what}: it does not come true"
        time.sleep(0.1)
    return value


class Processes(contextlib.AbstractContextManager):
    """Processes with their logs in a folder; all have ended when it is left."""

    def __init__(self, folder):
        self.folder, self.all = folder, []

    def start(self, name, command, **environment):
        log = open(f"{self.folder}/{name}.log", "w", encoding="utf-8")
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=os.environ | environment,
            start_new_session=True,
        )
        self.all.append(process)
        return process

    def log(self, name):
        with open(f"{self.folder}/{name}.log", encoding="utf-8") as log:
            return log.read()

    def __exit__(self, *failure):
        # Stopped ones have to hear it too.
        for process in self.all:
            for sign in (signal.SIGCONT, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sign)
            process.wait()
        if failure[0]:
            for name in sorted(os.listdir(self.folder)):
                if name.endswith(".log"):
                    lines = re.sub(r"\n +\d+: .*|\n +at .*", "", self.log(name[:-4])).splitlines()
                    print(f"--- {name}", *lines[-25:], sep="\n")


@dataclass
class Said:
    """What came of a request."""

    text: str = ""
    finish: str | None = None
    usage: dict | None = None
    error: object = None
    done: bool = False
    chunks: int = 0
    whole: list = field(default_factory=list)


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def ask(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def status(url):
    try:
        get(url)
        return 200
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


class Stream(threading.Thread):
    """A request on its way, streamed; `said` grows while it comes."""

    def __init__(self, url, body):
        super().__init__(daemon=True)
        self.url, self.body, self.said, self.answer = (
            url,
            {"stream": True, "stream_options": {"include_usage": True}} | body,
            Said(),
            None,
        )
        self.start()

    def run(self):
        said = self.said
        request = urllib.request.Request(self.url, json.dumps(self.body).encode(), {"content-type": "application/json"})
        try:
            self.answer = urllib.request.urlopen(request, timeout=PATIENCE)
            for line in self.answer:
                if line.startswith(b"data: [DONE]"):
                    said.done = True
                elif line.startswith(b"data: {"):
                    self.take(json.loads(line[6:]))
        except urllib.error.HTTPError as error:
            said.error = (error.code, error.read().decode())
        except (OSError, ValueError, AttributeError) as error:
            # The last two are how a socket that is shut under a reader looks.
            said.error = repr(error)

    def take(self, event):
        said = self.said
        said.error = event.get("error") or said.error
        said.usage = event.get("usage") or said.usage
        for choice in event.get("choices", []):
            text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
            said.text += text
            said.chunks += bool(text)
            said.finish = choice.get("finish_reason") or said.finish
            said.whole.append(choice)

    def leave(self):
        """Goes away in the middle."""
        self.answer.fp.raw._sock.shutdown(socket.SHUT_RDWR)

    def end(self):
        self.join(PATIENCE)
        assert not self.is_alive(), f"{self.body}: it does not end"
        return self.said


class Checks:
    """Claims, each said with its outcome."""

    def __init__(self):
        self.failed = []

    def __call__(self, claim, holds, why=""):
        print(f"{'ok  ' if holds else 'FAIL'} {claim}{'' if holds else f': {why}'}", flush=True)
        if not holds:
            self.failed.append(claim)

    def exit_code(self):
        return 1 if self.failed else 0
