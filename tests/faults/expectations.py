"""Which errors a call is given, and what a run may do then. Owns the list of calls whose failure does no harm, each
with the reason, which is the program's own."""

import re

from commands import LINES, OVER, PRINTED, contents

SPACE = ("ENOSPC", "EIO", "EDQUOT")
REFUSED = ("EACCES", "EROFS")
ERRORS = {
    **dict.fromkeys("write pwrite64 writev pwritev pwritev2 copy_file_range sendfile".split(), (*SPACE, "EINTR")),
    **dict.fromkeys("fsync fdatasync sync_file_range".split(), (*SPACE, "EINTR")),
    **dict.fromkeys("ftruncate truncate fallocate".split(), ("ENOSPC", "EIO", "EINTR")),
    **dict.fromkeys("mkdir mkdirat link linkat symlink symlinkat".split(), (*SPACE, *REFUSED)),
    **dict.fromkeys("rename renameat renameat2".split(), ("ENOSPC", "EIO", *REFUSED)),
    **dict.fromkeys("rmdir unlink unlinkat".split(), ("EIO", *REFUSED)),
    **dict.fromkeys("chmod fchmod fchmodat fchown fchownat".split(), ("EIO", "EPERM", "EROFS")),
    **dict.fromkeys("getdents64 lseek fadvise64".split(), ("EIO",)),
    **dict.fromkeys("statx newfstatat".split(), ("EIO", "EACCES")),
    **dict.fromkeys("read pread64".split(), ("EIO", "EINTR")),
    # What the server of a file system finds out late, it tells when the file is closed.
    "close": SPACE,
    "flock": ("EIO", "ENOLCK"),
    "ioctl": ("EIO",),
    "open": ("EIO", "EACCES", "EMFILE", "EINTR"),
    "create": (*SPACE, *REFUSED, "EMFILE", "EINTR"),
}

# How the system calls an error, in small letters.
WORDS = {
    "ENOSPC": "no space left on",
    "EIO": "input/output error",
    "EDQUOT": "quota exceeded",
    "EACCES": "permission denied",
    "EROFS": "read-only file system",
    "EPERM": "operation not permitted",
    "EMFILE": "too many open files",
    "ENOLCK": "no locks available",
}

# Calls by which what was begun is removed: what they leave, the next run removes.
REMOVING = "rmdir unlink unlinkat open openat getdents64 statx newfstatat".split()
LEFT = "photonc-(new|old|moved)"
# Where a run may succeed all the same: kinds of calls, errors (or all of them), a pattern of places, and why. `create`
# opens a file that may not be there, `open` one that is.
HARMLESS = [
    ("close", None, "", "the file was synced before, which is where lost writes are told"),
    ("flock", None, "", "where a file system has no locks, nothing is kept apart"),
    ("statx newfstatat", None, "", "what cannot be looked at is taken as the next call finds it"),
    ("lseek", None, "", "the standard library asks how much is left to read, to make room for it at once"),
    ("ioctl", None, "", "whether it is a terminal, or can share blocks with another file, changes how and not what"),
    ("fadvise64", None, "", "advice to the system"),
    ("fchmod fchown", None, "part$", "as it was; where that cannot be, as a new file of the user's"),
    ("rmdir unlink unlinkat", None, f"{LEFT}|part$", "what cannot be removed is told, and the next run removes it"),
    ("open getdents64", None, rf"{LEFT}[^/]*(/[^.]*)?$", "the same, where it cannot be listed"),
    ("mkdir open", REFUSED, "photonc-new$", "where nothing may be made beside a target, it is made inside"),
    ("create", REFUSED, "part$", "where nothing may be made beside a file, it is written over where it stands"),
    ("rename", ("EACCES",), " -> ", "a folder that cannot be renamed is moved with its contents one by one"),
    ("renameat2", None, " -> ", "a file system that cannot exchange two folders renames them"),
    ("open getdents64", None, "/engines/", "engines that cannot be listed are told of, to be built again"),
    ("open", ("EACCES",), "", "a folder that may be changed and not read cannot be synced"),
    ("open getdents64", None, r"^(\.|[a-z])$", "what earlier runs left is looked for there, and a lock is taken"),
]


def kind(call):
    if call.name in ("open", "openat", "creat"):
        return "create" if call.creates else "open"
    return call.name


def errors(call):
    """Errors that the system may give the call."""
    if kind(call) == "open" and "O_DIRECTORY" in call.text:
        # The C library does not call again; signals that come here have the system do so.
        return [error for error in ERRORS["open"] if error != "EINTR"]
    return ERRORS[kind(call)]


def harmless(call, error, place):
    """Why the run may succeed although the call failed, if it may."""
    if error == "EINTR":
        return "a call that was interrupted is made again"
    for calls, some, where, reason in HARMLESS:
        if kind(call) in calls.split() and (some is None or error in some) and re.search(where, place):
            return reason
    return None


class Judge:
    """Judges runs of a case by what an undisturbed one leaves."""

    def __init__(self, case, old, new):
        self.case, self.old, self.new = case, old, new

    def whole(self, found):
        """Which of its states a target is in, or `torn`."""
        if found == self.new:
            return "new"
        if found == self.old or self.case.how == OVER:
            return "old"
        old, found = self.old or b"", found or b""
        if self.case.how in (LINES, PRINTED) and self.new.startswith(found):
            # Of lines each is whole; those that stood there stay, but for half a one at the end.
            lines = self.case.how == PRINTED or found[-1:] in (b"", b"\n") or found == old
            return "begun" if lines and len(found) >= old.rfind(b"\n") + 1 else "torn"
        return "torn"

    def first(self, run, out, error, reason):
        """Faults of the run in which a call failed."""
        if run.hung:
            yield "did not end"
            return
        if run.code not in (0, 1):
            yield f"exit code {run.code}"
        if run.code == 1 and error == "EINTR":
            yield "a call that was interrupted is not made again"
        state = self.whole(contents(out / self.case.target))
        if state == "torn":
            yield f"{self.case.target} is neither the old one nor the new one"
        if run.code == 0 and not reason:
            yield "succeeded, and nothing says that it may"
        if run.code == 0 and state != "new":
            yield f"succeeded, and {self.case.target} is not the new one"
        hit = {call.name for call in run.calls if call.injected}
        left = {path.name for path in out.iterdir()} - self.case.beside
        if left and not hit & set(REMOVING):
            yield f"leaves {', '.join(sorted(left))}"
        # A fault in several threads may strike the message too.
        if run.code == 1 and not any(call.injected and call.speaks for call in run.calls):
            yield from self.message(run.stderr, run.calls, error, state, out)

    def message(self, text, calls, error, state, out):
        if "bug of photonc" in text:
            yield "called a bug"
        if str(out) not in text and self.case.hint not in text:
            yield "the message names no file"
        looked = any(call.injected and call.name in ("statx", "newfstatat") for call in calls)
        if WORDS.get(error, "") not in text.lower() and not looked:
            yield f"the message does not say `{WORDS[error]}`"
        denied = re.search("no \\w+ (was|were) written|nothing was (left behind|kept)", text)
        if state == "new" and self.old != self.new and denied:
            yield f"the message says `{denied[0]}`, and the new one is there"

    def second(self, run, out):
        """Faults of the undisturbed run after it."""
        if run.code != 0:
            yield f"the next run fails: exit code {run.code}: {' '.join(run.stderr.split())}"
            return
        if contents(out / self.case.target) != self.new:
            yield "the next run leaves other bytes than an undisturbed one"
        left = {path.name for path in out.iterdir()} - self.case.beside
        if left:
            yield f"the next run leaves {', '.join(sorted(left))}"
