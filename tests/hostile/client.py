"""A client over plain sockets, which sends what real ones do not: pieces with pauses between them, halves, nothing; and
reads answers strictly, so that one which breaks off is none."""

import re
import select
import socket
import struct
import time
from dataclasses import dataclass, field

STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r\n")

# What may stand among the pieces beside bytes and seconds to wait: the client closes its half, or breaks off with a
# reset.
HALF, RESET = "half", "reset"


@dataclass
class Deaf:
    """The client reads nothing for a while; so does this among the pieces."""

    seconds: float


class Broken(Exception):
    """What came is no answer of HTTP/1.1."""


@dataclass
class Answer:
    """An answer that came whole."""

    status: int
    headers: list
    body: bytes

    def header(self, name):
        """The value of a header, or nothing."""
        return next((value for known, value in self.headers if known == name), "")


@dataclass
class Talk:
    """What came of a connection: whole answers, what else was read, and how it ended: `open`, `closed` or `reset`."""

    answers: list = field(default_factory=list)
    rest: bytes = b""
    end: str = "open"
    # Seconds since anything was last sent or read.
    silent: float = 0.0


def answer_in(data, head_only):
    """The first whole answer in `data` that is final, and the bytes it takes; None while it is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if data and not (STATUS.match(data) or len(data) < 64):
            raise Broken(data[:80])
        return None
    found = STATUS.match(data)
    if not found:
        raise Broken(data[:80])
    headers = []
    for line in data[found.end() : end].split(b"\r\n") if end > found.end() else []:
        name, colon, value = line.partition(b":")
        if not colon or not re.fullmatch(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name):
            raise Broken(line[:80])
        headers.append((name.decode().lower(), value.strip().decode("latin-1")))
    answer, at = Answer(int(found[1]), headers, b""), end + 4
    if answer.status < 200 and answer.status != 101:
        later = answer_in(data[at:], head_only)
        return later and (later[0], at + later[1])
    if head_only or answer.status in (204, 304):
        return answer, at
    if answer.header("transfer-encoding").lower() == "chunked":
        chunks = []
        while True:
            line = data.find(b"\r\n", at)
            if line < 0:
                return None
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", data[at:line]):
                raise Broken(data[at : line + 1][:80])
            size, at = int(data[at:line], 16), line + 2
            if len(data) < at + size + 2:
                return None
            chunks.append(data[at : at + size])
            if data[at + size : at + size + 2] != b"\r\n":
                raise Broken(data[at + size :][:80])
            at += size + 2
            if size == 0:
                answer.body = b"".join(chunks)
                return answer, at
    length = answer.header("content-length")
    if not length.isdigit():
        raise Broken(b"an answer without a length")
    if len(data) < at + int(length):
        return None
    answer.body = data[at : at + int(length)]
    return answer, at + int(length)


def frames_in(data):
    """Kinds of the frames of HTTP/2 that `data` is made of, the last of which may be cut."""
    kinds, at = [], 0
    while at + 9 <= len(data):
        size, kind = int.from_bytes(data[at : at + 3], "big"), data[at + 3]
        if size > 1 << 14 or kind > 9:
            raise Broken(data[at : at + 40])
        kinds.append(kind)
        at += 9 + size
    return kinds


def opened(port, data):
    """A connection on which something was sent, and that stays open."""
    one = socket.create_connection(("127.0.0.1", port), timeout=5)
    one.sendall(data)
    return one


def talk(port, pieces, wanted=1, head_only=False, frames=False, hurry=lambda silent: silent > 5.0):
    """Sends `pieces`, and reads until `wanted` answers are whole, the server has closed, or `hurry`, told how many
    seconds nothing has moved, wants no more. `frames`: the answers are those of HTTP/2, and are left as they are."""
    one = socket.create_connection(("127.0.0.1", port), timeout=5)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    one.setblocking(False)
    found, data = Talk(), bytearray()
    queue = [memoryview(piece) if isinstance(piece, bytes) else piece for piece in pieces if piece != b""]
    moved = time.monotonic()
    send_at = read_at = 0.0
    seen = -1
    try:
        while True:
            now = time.monotonic()
            while queue and not isinstance(queue[0], memoryview) and now >= send_at:
                what = queue.pop(0)
                moved = now
                if what == HALF:
                    one.shutdown(socket.SHUT_WR)
                elif what == RESET:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    found.end = "left"
                    return found
                elif isinstance(what, Deaf):
                    read_at = now + what.seconds
                else:
                    send_at = now + what
            sending = bool(queue) and isinstance(queue[0], memoryview) and now >= send_at
            reading = now >= read_at
            readable, writable, _ = select.select([one] if reading else [], [one] if sending else [], [], 0.02)
            if readable:
                piece = one.recv(1 << 20)
                if not piece:
                    found.end = "closed"
                    return found
                data += piece
                moved = time.monotonic()
            if writable:
                queue[0] = queue[0][one.send(queue[0][: 1 << 20]) :]
                if not len(queue[0]):
                    queue.pop(0)
                moved = time.monotonic()
            if len(data) != seen and not frames:
                seen = len(data)
                while whole := answer_in(bytes(data), head_only):
                    found.answers.append(whole[0])
                    del data[: whole[1]]
                    seen = len(data)
            if wanted and len(found.answers) >= wanted and not data:
                return found
            waits = max(send_at, read_at) > time.monotonic()
            found.silent = 0.0 if waits else time.monotonic() - moved
            if not waits and hurry(found.silent):
                return found
    except OSError:
        # What was on its way when the server closed may still be read.
        found.end = "reset"
        _read_rest(one, data)
        return found
    finally:
        one.close()
        while not frames and (whole := answer_in(bytes(data), head_only)):
            found.answers.append(whole[0])
            del data[: whole[1]]
        found.rest = bytes(data)


def _read_rest(one, data):
    one.setblocking(False)
    try:
        while piece := one.recv(1 << 20):
            data += piece
    except OSError:
        pass
