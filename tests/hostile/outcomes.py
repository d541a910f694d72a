"""One run of the program under limits, and what to call its end. A fault is everything that a hostile input must not
bring about: a bug report, a signal, a run that is slow, large or endless, a terminal that is steered, a refusal that
names nothing, and harm that was let in."""

import multiprocessing
import os
import resource
import signal
import subprocess
import time

CPU_SECONDS = 5.0
WALL_SECONDS = 25.0
EXTRA_BYTES = 256 << 20
MESSAGE_BYTES = 64 << 10

REFUSED, ACCEPTED = "refused", "accepted"
# Those of a server behind the others: an answer that is an error of its own, that breaks off or has no shape; a server
# that is another one afterwards, or keeps what it should not.
FAULTS = ("exit 3", "signal", "slow", "hang", "memory", "escape", "message", "unnamed", "let in", "exit other")
FAULTS += ("panic", "status", "cut", "shape", "changed", "left over")
# What a server has come to outweighs what it answered.
ENDINGS = ("exit 3", "signal", "exit other", "panic", "changed")
COLUMNS = (REFUSED, ACCEPTED, *FAULTS)


class Limits:
    """What a run may take: more than a sound one by so much, and hard bounds behind it that spare the machine."""

    def __init__(self, base_bytes):
        self.base_bytes = base_bytes

    def memory(self, input_bytes):
        return self.base_bytes + EXTRA_BYTES + input_bytes

    @staticmethod
    def set():
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        Limits.spare()

    @staticmethod
    def spare():
        """What spares the machine, whatever the time."""
        resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, 6 << 30))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Run:
    """How one command ended."""

    def __init__(self, code, cpu_seconds, wall_seconds, peak_bytes, stdout, stderr, killed):
        self.code, self.cpu_seconds, self.wall_seconds, self.peak_bytes = code, cpu_seconds, wall_seconds, peak_bytes
        self.stdout, self.stderr, self.killed = stdout, stderr, killed


def environment():
    """Nothing of the caller's that changes messages."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "RUST_BACKTRACE": "0", "LC_ALL": "C.UTF-8"}


class Runner:
    """Starts runs from a process that stays small: what its starter has counts as memory of a program."""

    def __init__(self):
        self.ours, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("fork").Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()

    def __call__(self, arguments, folder, stdin=None):
        self.ours.send((arguments, folder, stdin))
        return self.ours.recv()


def _serve(pipe):
    while True:
        try:
            pipe.send(_run(*pipe.recv()))
        except EOFError:
            return


def _run(arguments, folder, stdin):
    """Runs `arguments` in `folder`, at most so long; what it took is what the system counted for it and no other."""
    output = {name: folder.parent / f"{folder.name}.{name}" for name in ("stdout", "stderr")}
    with open(output["stdout"], "wb") as stdout, open(output["stderr"], "wb") as stderr:
        started = time.monotonic()
        child = subprocess.Popen(
            arguments,
            cwd=folder,
            stdout=stdout,
            stderr=stderr,
            preexec_fn=Limits.set,
            env=environment(),
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            start_new_session=True,
        )
        if stdin is not None:
            try:
                child.stdin.write(stdin)
                child.stdin.close()
            except BrokenPipeError:
                pass
        killed, pause = False, 0.001
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            if not killed and time.monotonic() - started > WALL_SECONDS:
                os.killpg(child.pid, signal.SIGKILL)
                killed = True
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)
        wall = time.monotonic() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    texts = []
    for path in output.values():
        with open(path, "rb") as file:
            texts.append(file.read(4 << 20))
        path.unlink()
    cpu = usage.ru_utime + usage.ru_stime
    return Run(child.returncode, cpu, wall, usage.ru_maxrss << 10, *texts, killed)


def steers(text: bytes) -> bool:
    """Whether a text holds what a terminal takes as a command, or what turns the order of characters."""
    return any(
        (ord(character) < 32 and character not in "\n\t")
        or 127 <= ord(character) < 160
        or character in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
        for character in text.decode("utf-8", "replace")
    )


def judge(done, limits, input_bytes, names, prints_text):
    """The outcome of a run, and what shows it. `names`: what a refusal must name, one of them."""
    if done.killed:
        return "hang", f"{done.wall_seconds:.0f} s"
    if done.code < 0:
        return "signal", str(-done.code)
    if done.code == 3 or b"bug of photonc" in done.stderr:
        return "exit 3", ""
    if done.code not in (0, 1, 2):
        return "exit other", str(done.code)
    if done.cpu_seconds > CPU_SECONDS:
        return "slow", f"{done.cpu_seconds:.1f} s"
    if done.peak_bytes > limits.memory(input_bytes):
        return "memory", f"{done.peak_bytes >> 20} MiB of an input of {input_bytes >> 20} MiB"
    if steers(done.stderr) or (not prints_text and steers(done.stdout)):
        return "escape", ""
    if len(done.stderr) > MESSAGE_BYTES:
        return "message", f"{len(done.stderr)} bytes"
    if done.code == 0:
        return ACCEPTED, ""
    # What `verify` and `diff` find is their result.
    message = (done.stderr + done.stdout).decode("utf-8", "replace")
    if not message.strip() or (names and not any(name in message for name in names)):
        return "unnamed", f"none of {', '.join(names)}"
    return REFUSED, ""
