"""What may stand where a file is expected: folders, pipes, devices, links that lead nowhere, round or away."""

import os
import socket

KINDS = (
    "missing",
    "folder",
    "pipe",
    "socket",
    "dangling",
    "loop",
    "zero",
    "full",
    "null",
    "random",
    "empty",
    "link",
    "unreadable-link",
)


def put(path, what, sound=None):
    """Puts something else at `path`; `link` is one to the sound file that stood there."""
    kept = path.with_name(path.name + ".kept")
    if os.path.lexists(path):
        os.rename(path, kept)
    elif sound is not None:
        kept = sound
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        # The name of a socket may be short only.
        here = os.open(path.parent, os.O_RDONLY)
        before = os.getcwd()
        os.fchdir(here)
        socket.socket(socket.AF_UNIX).bind(path.name)
        os.chdir(before)
        os.close(here)
    elif what == "dangling":
        path.symlink_to("nowhere")
    elif what == "loop":
        path.symlink_to(path.name)
    elif what in ("zero", "full", "null", "random"):
        path.symlink_to(f"/dev/{what}")
    elif what == "empty":
        path.write_bytes(b"")
    elif what == "link":
        path.symlink_to(kept)
    elif what == "unreadable-link":
        path.symlink_to("/proc/self/mem")


def accept(what, name):
    """Why it may be there, or nothing."""
    if what == "link":
        return "a link to a sound file"
    optional = name in ("tokenizer.json", "chat_template.jinja", "generation_config.json", "tokenizer_config.json")
    if what == "missing" and optional:
        return "a checkpoint need not have it"
    return ""
