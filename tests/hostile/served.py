"""A server that hostile requests meet, as a process of its own: what it answers is judged, and after every request that
it lives, gives the tokens that it gave before, and has kept nothing."""

import json
import os
import re
import resource
import signal
import subprocess
import time
from dataclasses import dataclass

import client
import outcomes

KEY = "key-of-the-tests"
# Longest sequence, sequences of a request, and how long a request may take to come.
ROOM, SEQUENCES, READ_SECONDS = 256, 8, 2
OPTIONS = ["--max-tokens", ROOM, "--max-sequences", SEQUENCES, "--batch", SEQUENCES, "--read-timeout", READ_SECONDS]
OPTIONS += ["--shutdown-timeout", 5, "--keep-alive", 1, "--api-key", KEY, "--log-format", "text"]

MESSAGE_BYTES = 4 << 10
SOUND = {"token_ids": list(range(16)), "max_tokens": 8, "temperature": 0}
SOUND_TRAJECTORY = {"prompt": list(range(16)), "max_tokens": 48, "seed": 1, "ignore_eos": True}
# Descriptors that come and go without being connections.
SPARE_DESCRIPTORS = 4


@dataclass
class End:
    """How an input ended: the outcome, what shows it, what was answered last, and what it took."""

    outcome: str
    shown: str = ""
    last: str = ""
    cpu_seconds: float = 0.0
    peak_bytes: int = 0


def head(method, path, body=None, more=(), version="1.1"):
    """A request; headers of `more` take the places of those that every request has, None leaves one out."""
    headers = {"host": "localhost", "authorization": f"Bearer {KEY}"}
    if body is not None:
        headers |= {"content-type": "application/json", "content-length": str(len(body))}
    lines = [(name, value) for name, value in (headers | dict(more)).items() if value is not None]
    text = b"".join(_bytes(name) + b": " + _bytes(value) + b"\r\n" for name, value in lines)
    return _bytes(method) + b" " + _bytes(path) + b" HTTP/" + _bytes(version) + b"\r\n" + text + b"\r\n" + (body or b"")


def _bytes(text):
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


def strict(text, objects=dict):
    """JSON as the standard has it: no NaN, no number beyond binary64, no half of a character. `objects` makes one of
    its pairs."""

    def refused(name):
        raise ValueError(name)

    def number(text):
        value = float(text)
        return value if abs(value) != float("inf") else refused(text)

    def whole(text):
        # Python reads no longer ones, and they are beyond binary64; what is no whole number of 64 bits is a fraction.
        value = int(text) if len(text) < 400 else refused("too large")
        return number(text) if text == "-0" or not -(2**63) <= value < 2**64 else value

    text = text.decode("utf-8") if isinstance(text, bytes) else text
    if text.startswith("\ufeff"):
        raise ValueError("a mark before the document")
    hooks = {"parse_constant": refused, "parse_float": number, "parse_int": whole, "object_pairs_hook": objects}
    try:
        value = json.loads(text, **hooks)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError as error:
        raise ValueError("too deep") from error
    return value


def judge_error(document, names, kserve=False):
    """What is wrong with an error, or nothing; those of KServe's protocol have a form of their own."""
    error = document.get("error") if isinstance(document, dict) and len(document) == 1 else None
    if kserve:
        if not isinstance(error, str) or not error:
            return "shape", "not {error: TEXT}"
        # What is blamed stands in the text.
        error = {"message": error, "type": "x", "param": None, "code": "x"}
    if not isinstance(error, dict) or set(error) != {"message", "type", "param", "code"}:
        return "shape", "not {error: {message, type, param, code}}"
    texts = [error["message"], error["type"], error["code"], error["param"] or ""]
    if not all(isinstance(text, str) for text in texts) or not all(texts[:3]):
        return "shape", "a part of the error is no text"
    if any(outcomes.steers(text.encode()) for text in texts):
        return "escape", "in the error"
    if any(len(text.encode()) > MESSAGE_BYTES for text in texts):
        return "message", f"{max(len(text.encode()) for text in texts)} bytes"
    if names and not any(name in text for name in names for text in (error["message"], error["param"] or "")):
        return "unnamed", f"none of {', '.join(names)}"
    return outcomes.REFUSED, ""


def judge(answer, names=(), bare=False, head_only=False, kserve=False):
    """The outcome of an answer, and what shows it. `bare`: whether a refusal may come without a body, because it comes
    from below the routes."""
    kind = answer.header("content-type")
    if any(outcomes.steers(f"{name}{value}".encode()) for name, value in answer.headers):
        return "escape", "in a header"
    if not 200 <= answer.status < 500:
        return "status", str(answer.status)
    if head_only or (bare and answer.status >= 400 and not answer.body):
        return (outcomes.REFUSED if answer.status >= 400 else outcomes.ACCEPTED), ""
    try:
        if kind == "text/event-stream":
            return _judge_events(answer.body.decode(), names)
        document = strict(answer.body) if kind == "application/json" else None
    except ValueError as error:
        return "shape", f"{answer.status}: {error}"
    if answer.status >= 400:
        if kind != "application/json":
            return "shape", f"{answer.status} with {kind or 'no content type'}"
        return judge_error(document, names, kserve)
    return outcomes.ACCEPTED, ""


def _judge_events(text, names):
    lines = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    if not lines:
        return "cut", "a stream without events"
    documents = [strict(line) for line in lines if line != "[DONE]"]
    if documents and "error" in documents[-1] and set(documents[-1]) == {"error"}:
        code = documents[-1]["error"].get("type")
        return ("status", "an error of the server") if code == "server_error" else judge_error(documents[-1], names)
    ends = ("response.completed", "response.incomplete")
    if lines[-1] != "[DONE]" and documents[-1].get("type") not in ends:
        return "cut", "a stream without its end"
    return outcomes.ACCEPTED, ""


class Server:
    """The server of one job, started where an input needs it and started again where one has brought it down."""

    def __init__(self, photonc, bundles, log):
        self.photonc, self.bundles, self.log = photonc, bundles, log
        self.process, self.read, self.kept = None, 0, None
        self.sent, self.received = [], b""

    def _start(self):
        log = open(self.log, "wb")
        self.process = subprocess.Popen(
            [self.photonc, "serve", "b", "--port", "0", "--json", *map(str, OPTIONS)],
            cwd=self.bundles,
            stdout=subprocess.PIPE,
            stderr=log,
            preexec_fn=_limits,
            env=outcomes.environment(),
            start_new_session=True,
        )
        log.close()
        text, self.read, self.kept = "", 0, None
        while not text.rstrip().endswith("}"):
            line = self.process.stdout.readline().decode()
            if not line:
                raise SystemExit("the server does not start:\n" + self.log.read_text())
            text += line
        self.port = int(json.loads(text)["listening"].rsplit(":", 1)[1])
        since = time.monotonic()
        while self.ask(head("GET", "/ready")).status != 200:
            if time.monotonic() - since > 60:
                raise SystemExit("the server does not load")
            time.sleep(0.02)
        # What is made once is made before anything is measured.
        self.trajectory()
        self.tokens = self._tokens()
        self.base_bytes, self.descriptors = self._status("VmHWM"), self._descriptors()

    def alive(self):
        """Starts it where there is none."""
        if self.process is None:
            self._start()

    def ask(self, request):
        """The answer of a sound request; what is sound is answered."""
        found = client.talk(self.port, [request], hurry=lambda silent: silent > 20)
        if not found.answers:
            raise client.Broken(f"a sound request is not answered: {found.end}".encode())
        return found.answers[0]

    def post(self, path, body):
        """The answer of a sound body."""
        return self.ask(head("POST", path, json.dumps(body).encode()))

    def trajectory(self):
        """The id of a trajectory that is kept."""
        if self.kept is None or self.ask(head("GET", f"/v1/trajectories/{self.kept}")).status != 200:
            self.kept = json.loads(self.post("/v1/trajectories", SOUND_TRAJECTORY).body)["id"]
        return self.kept

    def meet(self, pieces, wanted=1, names=(), bare=False, head_only=False, frames=()):
        """Sends what an input is made of, and says how it ended. `wanted`: answers that must come, 0 where the bytes
        are no request and the server may answer or close; `frames`: what must be among the frames of HTTP/2."""
        self.alive()
        kept = self.trajectory().encode()
        pieces = [piece.replace(b"{trajectory}", kept) if isinstance(piece, bytes) else piece for piece in pieces]
        self.sent, self.received = pieces, b""
        _reset_peak(self.process.pid)
        cpu, answers = self._cpu(), []
        try:
            talk = client.talk(self.port, pieces, wanted or 1, head_only, bool(frames), self._hurry(cpu))
            if talk.end == "open" and self._cpu() - cpu > outcomes.CPU_SECONDS:
                talk.end = "slow"
            answers = talk.answers
            self.received = b"".join(b"%d\n%s\n" % (one.status, one.body) for one in answers) + talk.rest
            outcome, shown = self._judge(talk, wanted, names, bare, head_only, frames)
        except client.Broken as error:
            outcome, shown = "shape", f"no HTTP: {error.args[0]!r}"
        except OSError as error:
            outcome, shown = "cut", str(error)
        end = End(outcome, shown, self.received.decode("utf-8", "replace")[:300])
        self._look_after(end, cpu, answers, sum(len(piece) for piece in pieces if isinstance(piece, bytes)))
        return end

    def _judge(self, talk, wanted, names, bare, head_only, frames):
        if frames:
            client.frames_in(talk.rest)
            missing = [part for part in frames if part not in talk.rest]
            return ("cut", f"no {missing[0]!r}") if missing else (outcomes.ACCEPTED, "")
        if talk.end == "left":
            return outcomes.ACCEPTED, ""
        first = self.sent[0] if self.sent and isinstance(self.sent[0], bytes) else b""
        kserve = b" /v2/" in first.split(b"\r\n", 1)[0]
        judged = [judge(answer, names, bare, head_only, kserve) for answer in talk.answers]
        for outcome, shown in judged:
            if outcome in outcomes.FAULTS:
                return outcome, shown
        if wanted and len(judged) > wanted:
            return "shape", f"{len(judged)} answers to {wanted} requests"
        if len(judged) < wanted and not (bare and any(outcome == outcomes.REFUSED for outcome, _ in judged)):
            return _waiting(talk) or ("cut", talk.end)
        if not judged:
            return _waiting(talk) or (outcomes.REFUSED, "")
        return judged[-1][0], ""

    def _hurry(self, cpu):
        """Wants no more once the server has been silent too long: at once where it does nothing, else once it has
        computed too long since `cpu`."""
        last = [0.0, 0.0]

        def hurry(silent):
            if silent <= outcomes.CPU_SECONDS:
                return False
            used = self._cpu() - cpu
            if silent - last[0] >= 1:
                idle, last[:] = used - last[1] < 0.02, [silent, used]
                return idle or used > outcomes.CPU_SECONDS or silent > outcomes.WALL_SECONDS
            return False

        return hurry

    def _forget(self, answer):
        """Deletes a trajectory that an input has made: so many are kept at most."""
        made = re.search(rb'"id":"(traj-[0-9a-f]+)"', answer.body) if answer.status == 201 else None
        if made:
            self.ask(head("DELETE", f"/v1/trajectories/{made[1].decode()}"))

    def _look_after(self, end, cpu, answers, size):
        """Whether the server is as it was; where not, that is the outcome, and there will be another server."""
        fault = self._changed(end, cpu, answers, size)
        # What the allocator keeps of one input must not count as the next one's.
        if not fault and self._status("VmRSS") > self.base_bytes + outcomes.EXTRA_BYTES // 2:
            fault = self.stop()
        if fault and (end.outcome not in outcomes.FAULTS or fault[0] in outcomes.ENDINGS):
            end.outcome, end.shown = fault
        if fault or end.outcome in ("hang", "slow"):
            end.last = end.last or self._log()[-300:].decode("utf-8", "replace")
            self.kill()

    def _changed(self, end, cpu, answers, size):
        try:
            for answer in answers:
                self._forget(answer)
            idle = self._settled(lambda: self._health()["under_way"] == 0)
            tokens = self._tokens()
        except (client.Broken, OSError, KeyError, ValueError) as error:
            time.sleep(0.2)
            return _ended(self.process.poll(), error)
        end.cpu_seconds, end.peak_bytes = self._cpu() - cpu, self._status("VmHWM")
        log = self._log()
        if b"panicked" in log or b"bug of photonc" in log:
            return "panic", log[-300:].decode("utf-8", "replace")
        if outcomes.steers(log):
            return "escape", "in the log"
        if len(log) > outcomes.MESSAGE_BYTES:
            return "message", f"{len(log)} bytes in the log"
        if not idle:
            return "left over", "requests under way"
        if tokens != self.tokens:
            return "changed", "other tokens than before"
        if self._health()["status"] != "ready":
            return "changed", "not ready"
        if not self._settled(lambda: self._descriptors() <= self.descriptors + SPARE_DESCRIPTORS):
            return "left over", f"{self._descriptors()} descriptors, {self.descriptors} before"
        most = self.base_bytes + outcomes.EXTRA_BYTES + size
        if end.peak_bytes > most:
            return "memory", f"{end.peak_bytes >> 20} MiB, expected at most {most >> 20}"
        if end.cpu_seconds > outcomes.CPU_SECONDS:
            return "slow", f"{end.cpu_seconds:.1f} s"
        return None

    def _settled(self, wish):
        since = time.monotonic()
        while not wish():
            if time.monotonic() - since > 5:
                return False
            time.sleep(0.02)
        return True

    def _health(self):
        return json.loads(self.ask(head("GET", "/health")).body)

    def _tokens(self):
        return json.loads(self.post("/v1/generate", SOUND).body)["outputs"]

    def _status(self, what):
        with open(f"/proc/{self.process.pid}/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith(what + ":"))

    def _descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def _cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            times = file.read().rsplit(")", 1)[1].split()[11:13]
        return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")

    def _log(self):
        """What was logged since it was last asked."""
        with open(self.log, "rb") as file:
            file.seek(self.read)
            new = file.read()
        self.read += len(new)
        return new

    def stop(self):
        """Ends it as its keeper would; the fault, if that is one."""
        if self.process is None:
            return None
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()
            return "hang", "it does not end"
        log = self._log()
        self.process = None
        if code == 0 and not outcomes.steers(log):
            return None
        return _ended(code, log[-300:].decode("utf-8", "replace"))

    def kill(self):
        """Ends it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _waiting(talk):
    """The fault of a server that has not answered, where it is not the connection's end."""
    if talk.end == "slow":
        return "slow", f"no answer after {talk.silent:.0f} s"
    return ("hang", f"{talk.silent:.0f} s") if talk.end == "open" else None


def _limits():
    outcomes.Limits.spare()
    # The same on every machine.
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))


def _reset_peak(pid):
    """Lets the peak of memory begin anew; where that is not allowed, it is that of all inputs so far."""
    try:
        with open(f"/proc/{pid}/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def _ended(code, error):
    """What a server has died of, if it has."""
    if code is None:
        return "changed", f"a sound request fails: {error}"
    if code < 0:
        return "signal", str(-code)
    return ("exit 3", "") if code == 3 else ("exit other", f"{code}: {error}")
