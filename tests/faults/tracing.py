"""Runs of the program under strace: which system calls it makes on its output, and the same run with one of them
failing. Owns how a call is named, so that the same one can be made to fail in another run."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

# Calls that change or make durable what is on a disk, and those on an output by which a run finds its way. strace
# passes over names that this machine's system does not have.
CALLS = (
    "open openat creat write pwrite64 writev pwritev pwritev2 rename renameat renameat2 fsync fdatasync "
    "sync_file_range truncate ftruncate fallocate mkdir mkdirat rmdir unlink unlinkat link linkat symlink "
    "symlinkat copy_file_range sendfile chmod fchmod fchmodat fchown fchownat close flock ioctl lseek fadvise64 "
    "getdents64 read pread64 statx newfstatat"
).split()

WALL_SECONDS = 60.0
LINE = re.compile(r"^(?P<time>\d+\.\d+) (?P<call>\w+)\((?P<rest>.*)$")
QUOTED = r'(?:[^"\\]|\\.)*'
# Calls whose strings are no paths.
DATA = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "read", "pread64", "getdents64", "ioctl")
RANDOM = re.compile(r"photonc-new\.[0-9a-f]{8}\.\w+")


class Call:
    """A system call of a run: the `number`-th of its name in its thread, counted from 1."""

    def __init__(self, thread, name, number, time, text):
        self.thread, self.name, self.number, self.time, self.text = thread, name, number, time, text

    def paths(self):
        """Absolute paths that it names, those of open files too."""
        if self.name.endswith(("at", "at2", "statx")):
            parts = re.findall(rf'(?:\w+<(/[^>]*)>, )?"({QUOTED})"', self.text)
            return [os.path.normpath(os.path.join(folder, name)) for folder, name in parts if folder or name[:1] == "/"]
        named = [] if self.name in DATA else re.findall(rf'"(/{QUOTED})"', self.text)
        return re.findall(r"\d<(/[^>]*)>", self.text) + named

    def place(self, folder):
        """What of `folder` it is about, without what differs from run to run; empty where it is of other things."""
        start = str(folder)
        found = [path for path in self.paths() if path == start or path.startswith(start + "/")]
        # The second is where a rename leads.
        shown = [RANDOM.sub("photonc-new", path[len(start) + 1 :]) or "." for path in dict.fromkeys(found)]
        return " -> ".join(shown)

    @property
    def creates(self):
        return "O_CREAT" in self.text

    @property
    def opens_to_write(self):
        return self.name in ("open", "openat", "creat") and re.search("O_CREAT|O_WRONLY|O_RDWR", self.text) is not None

    @property
    def speaks(self):
        """Whether it writes to standard error."""
        return self.name == "write" and self.text.startswith("2<")

    @property
    def injected(self):
        return self.text.endswith("(INJECTED)")


class Run:
    """How one run ended, and the calls that it made, in order."""

    def __init__(self, code, stdout, stderr, calls, seconds, hung):
        self.code, self.stdout, self.stderr, self.calls = code, stdout, stderr, calls
        self.seconds, self.hung = seconds, hung


def environment(folder):
    """Nothing of the caller's that changes what a run does. One thread writes weights, so that calls can be counted."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    own = {"HOME": str(folder), "TMPDIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    return {**kept, **own, "RAYON_NUM_THREADS": "1", "RUST_BACKTRACE": "0", "LC_ALL": "C.UTF-8"}


def unable():
    """Why this machine cannot trace programs, if it cannot."""
    if shutil.which("strace") is None:
        return "there is no strace"
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        traced = subprocess.run([*_strace(log), "-e", "inject=write:error=EIO:when=1", "true"], capture_output=True)
        if traced.returncode:
            return f"strace may not trace here: {traced.stderr.decode(errors='replace').strip()}"
    return None


def _strace(log):
    # One log for each thread, with times that order them; `-y` names the files behind numbers. Other calls run freely.
    options = ["-ff", "--seccomp-bpf", "-y", "-qq", "-ttt", "-s", "300", "-e", "signal=none", "-o", str(log)]
    return ["strace", *options, "-e", "trace=" + ",".join(f"?{call}" for call in CALLS)]


def injection(call, error):
    """What makes strace fail the call in every thread that makes so many of that name."""
    return f"{call.name}:error={error}:when={call.number}"


def run(arguments, folder, cwd, stdout, inject=None, traced=True):
    """Runs `arguments` with standard output into the file `stdout`; `folder` is its home and keeps the logs."""
    logs = folder / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir()
    command = [*_strace(logs / "log"), *(["-e", f"inject={inject}"] if inject else []), *arguments]
    command = command if traced else arguments
    with open(stdout, "wb") as out, open(folder / "stderr", "w+b") as error:
        began = time.monotonic()
        child = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=error,
            env=environment(folder),
            start_new_session=True,
        )
        try:
            code, hung = child.wait(WALL_SECONDS), False
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            code, hung = child.wait(), True
        seconds = time.monotonic() - began
        error.seek(0)
        stderr = error.read().decode("utf-8", "replace")
    return Run(code, stdout, stderr, _calls(logs) if traced else [], seconds, hung)


def _calls(logs):
    """Calls of every thread, in order of time. Threads are numbered as they were started."""
    calls = []
    for thread, log in enumerate(sorted(logs.iterdir(), key=lambda log: int(log.suffix[1:]))):
        counts = {}
        for line in log.read_text("utf-8", "replace").splitlines():
            found = LINE.match(line)
            if found:
                name = found["call"]
                counts[name] = counts.get(name, 0) + 1
                calls.append(Call(thread, name, counts[name], float(found["time"]), found["rest"].rstrip()))
    calls.sort(key=lambda call: call.time)
    return calls
