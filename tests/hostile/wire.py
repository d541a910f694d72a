"""Hostile bytes below HTTP: heads that are none, lengths that lie, floods, halves, many requests at once, and frames of
HTTP/2. What is no request may be refused without a body or by closing; nothing may wait for it without end."""

import json
import struct

from bodies import SAID, SHORT
from client import HALF, RESET, Deaf
from sending import sent
from served import KEY, READ_SECONDS, SOUND, head

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
AUTHORIZED = f"host: localhost\r\nauthorization: Bearer {KEY}\r\n".encode()
HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
BODY = json.dumps({"prompt": "Hello", "max_tokens": 2}).encode()
GENERATE = head("POST", "/v1/generate", json.dumps(SOUND).encode())
LONG = json.dumps({"token_ids": [1], "max_tokens": 200, "ignore_eos": True, "stream": True}).encode()


def raw(name, pieces, accept="", wanted=0, names=(), bare=True):
    return sent("http-raw", name, pieces, names, accept, wanted=wanted, bare=bare)


def around(lines, body=BODY, version=b"1.1"):
    """A completion whose lengths and the like are given."""
    text = b"POST /v1/completions HTTP/" + version + b"\r\n" + AUTHORIZED + b"content-type: application/json\r\n"
    return text + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def chunked(*chunks, end=b"0\r\n\r\n"):
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def lines():
    """First lines and headers."""
    no_request = {
        "ends of lines": b"\r\n" * 1000,
        "method only": b"GET\r\n\r\n",
        "0.9": b"GET /\r\n\r\n",
        "version 9.9": b"GET / HTTP/9.9\r\n\r\n",
        "version 2.0": b"GET / HTTP/2.0\r\nhost: x\r\n\r\n",
        "version word": b"GET / HTTPS/1.1\r\n\r\n",
        "method with a space": b"G ET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "nul in the path": b"GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n",
        "nul in a value": b"GET / HTTP/1.1\r\nhost: x\r\na: b\0c\r\n\r\n",
        "return in a value": b"GET / HTTP/1.1\r\nhost: x\r\na: b\rc\r\n\r\n",
        "folded header": b"GET / HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n",
        "no colon": b"GET / HTTP/1.1\r\nhost\r\n\r\n",
        "no name": b"GET / HTTP/1.1\r\n: x\r\n\r\n",
        "space before the colon": b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
        "name with a bracket": b"GET / HTTP/1.1\r\nho(st: x\r\n\r\n",
        "steered name": b"GET / HTTP/1.1\r\n\x1b[2J: x\r\n\r\n",
        "long path": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        "longest path": b"GET /" + b"a" * (2 << 20) + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        "long method": b"A" * (1 << 20),
        "line without end": b"GET /" + b"a" * (4 << 20),
        "header without end": b"GET / HTTP/1.1\r\na: " + b"b" * (4 << 20),
        "long name": b"GET / HTTP/1.1\r\n" + b"n" * 70_000 + b": x\r\n\r\n",
        "long value": b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * (1 << 20) + b"\r\n\r\n",
        "101 headers": b"GET / HTTP/1.1\r\n" + b"".join(b"a%d: x\r\n" % at for at in range(101)) + b"\r\n",
        "many headers": b"GET / HTTP/1.1\r\n" + b"".join(b"a%d: x\r\n" % at for at in range(50_000)) + b"\r\n",
        "same headers": b"GET / HTTP/1.1\r\n" + b"cookie: a\r\n" * 100_000 + b"\r\n",
        "TLS": bytes.fromhex("160301020001000001fc0303") + bytes(range(256)) * 2,
        "SSH": b"SSH-2.0-OpenSSH_9.9\r\n",
        "Redis": b"*1\r\n$4\r\nPING\r\n",
        "settings of HTTP/2": SETTINGS,
        "nuls": b"\0" * 10_000,
        "high bytes": b"\xff" * 10_000,
        "mark": b"\xef\xbb\xbf" + HEALTH,
        "proxy": b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + HEALTH,
        "absolute nowhere": b"GET http://[::1 HTTP/1.1\r\nhost: x\r\n\r\n",
    }
    for name, data in no_request.items():
        yield raw(name, data)
        yield raw(f"{name}, half", [data, HALF])
    for name, data, why in [
        ("LF only", b"GET /health HTTP/1.1\nhost: x\n\n", "a line may end so (RFC 9112, 2.2)"),
        ("ends of lines first", b"\r\n\r\n" + HEALTH, "empty lines before a request are nothing (RFC 9112, 2.2)"),
        ("two hosts", b"GET /health HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", "no route reads it"),
        ("no host", b"GET /health HTTP/1.1\r\n\r\n", "no route reads it"),
        ("absolute", b"GET http://x/health HTTP/1.1\r\nhost: y\r\n\r\n", "servers take this form too"),
        ("high byte in a value", b"GET /health HTTP/1.1\r\nhost: x\r\na: \xff\r\n\r\n", "no route reads it"),
        ("100 headers", b"GET /health HTTP/1.1\r\n" + b"a: x\r\n" * 100 + b"\r\n", "as many as may be"),
        ("long headers", b"GET /health HTTP/1.1\r\na: " + b"x" * 60_000 + b"\r\n\r\n", "as long as may be"),
        ("slow head", [HEALTH[at : at + 2] + b"" for at in range(0, len(HEALTH), 2)], "it comes in time"),
    ]:
        pieces = data if isinstance(data, bytes) else [step for piece in data for step in (piece, 0.01)]
        yield raw(name, pieces, why, 1)
    for target in (b"*", b"localhost:80", b"//", b"?", b"/%ff", b"/\xff", b"/a#b", b"http://", b"/\xe2\x80\xae"):
        for method in (b"OPTIONS", b"CONNECT", b"GET"):
            accept = (
                "a browser asks first" if method == b"OPTIONS" else "the page" if target in (b"?", b"http://") else ""
            )
            yield raw(f"{method.decode()} {target!r}", method + b" " + target + b" HTTP/1.1\r\nhost: x\r\n\r\n", accept)


def lengths():
    """Bodies whose lengths lie."""
    size = b"%d" % len(BODY)
    for value in (
        b"-1",
        b"+5",
        b"0x10",
        b"5,5",
        b"5, 6",
        b"",
        b"1e2",
        b"9" * 40,
        b"18446744073709551616",
        b"\xff",
        size + b" x",
    ):
        yield raw(f"length {value[:24]!r}", around([b"content-length: " + value]))
    for value in (b"9223372036854775807", b"18446744073709551615", b"100000000"):
        yield raw(f"length {value[:24]!r}", around([b"content-length: " + value]))
        yield raw(f"length {value[:24]!r}, half", [around([b"content-length: " + value]), HALF])
    same = "one length given twice (RFC 9110, 8.6)"
    yield raw("length twice", around([b"content-length: " + size] * 2), same)
    yield raw("lengths differ", around([b"content-length: " + size, b"content-length: 5"]))
    yield raw("length too long", around([b"content-length: %d" % (len(BODY) + 1)]), "", 1, ("did not come",))
    yield raw("length too short", around([b"content-length: 5"]), "", 0, ("no JSON",))
    yield raw("no length", around([]))
    codings = [
        b"gzip, chunked",
        b"identity",
        b"chunked, chunked",
        b"xchunked",
        b"chunked, gzip",
        b"",
        b"\xff",
        b"chunked;q=1",
    ]
    for coding in codings:
        # What a coding before the last has made is no JSON.
        yield raw(
            f"coding {coding!r}", around([b"transfer-encoding: " + coding], chunked(BODY)), "the last one frames it"
        )
    yield raw("codings twice", around([b"transfer-encoding: chunked"] * 2, chunked(BODY)), "they are one list")
    yield raw("coding of 1.0", around([b"transfer-encoding: chunked"], chunked(BODY), b"1.0"), "an older client")
    both = [b"transfer-encoding: chunked", b"content-length: %d" % len(chunked(BODY))]
    framed = "the coding is what counts (RFC 9112, 6.3)"
    yield raw("length and coding", around(both, chunked(BODY)), framed, 1)
    yield raw("coding and length", around(both[::-1], chunked(BODY)), framed, 1)
    inside = chunked(BODY) + HEALTH
    for order in (1, -1):
        more = [b"transfer-encoding: chunked", b"content-length: %d" % len(inside)][::order]
        yield raw(
            f"request in a body {order}", [around(more, inside)], "the coding is what counts; the rest is another"
        )
    for name, data in {
        "no number": b"zz\r\n" + BODY + b"\r\n0\r\n\r\n",
        "negative": b"-1\r\n" + BODY + b"\r\n0\r\n\r\n",
        "largest": b"FFFFFFFFFFFFFFFF\r\n" + BODY,
        "too large": b"1FFFFFFFFFFFFFFFFF\r\n" + BODY,
        "spaces": b" 5 \r\nhello\r\n0\r\n\r\n",
        "LF": b"5\nhello\n0\n\n",
        "short": b"2\r\n" + BODY + b"\r\n0\r\n\r\n",
        "long": b"ffff\r\n" + BODY + b"\r\n0\r\n\r\n",
        "no end": chunked(BODY, end=b""),
        "half an end": chunked(BODY, end=b"0\r\n"),
        "extension": b"5;" + b"a" * (1 << 20) + b"\r\nhello\r\n0\r\n\r\n",
        "size without end": b"0" * (1 << 20),
        "long trailer": chunked(BODY, end=b"0\r\n" + b"a: b\r\n" * 200_000 + b"\r\n"),
        "trailer without end": chunked(BODY, end=b"0\r\na: " + b"b" * (1 << 20)),
    }.items():
        data = around([b"transfer-encoding: chunked"], data)
        yield raw(f"chunk {name}", data, "a trailer is nobody's" if "trailer" in name else "")
        yield raw(f"chunk {name}, half", [data, HALF], "a trailer is nobody's" if "trailer" in name else "")
    ones = chunked(*[BODY[at : at + 1] for at in range(len(BODY))])
    for name, data in {
        "ones": ones,
        "extended": b"%x;a=b;c\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
        "zeros": b"000000000%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
        "trailer": chunked(BODY, end=b"0\r\nauthorization: x\r\n\r\n"),
        "many": chunked(*[b" "] * 200_000, BODY),
    }.items():
        yield raw(f"chunks {name}", around([b"transfer-encoding: chunked"], data), "it is sound", 1)
    more = chunked(*[b"x" * (1 << 20)] * 20)
    yield raw("chunks too long", around([b"transfer-encoding: chunked"], more), "", 1, ("longer than",))


def times():
    """Halves, breaks, slow ones, and many at once."""
    late = float(READ_SECONDS) + 0.5
    post = head("POST", "/v1/completions", BODY)
    stream = head("POST", "/v1/generate", LONG)
    gone = "a client that closes its half has gone"
    for name, data in {"head": post[:60], "nothing": b"", "body": post[:-5], "request": post, "stream": stream}.items():
        yield raw(f"half behind {name}", [data, 0.05, HALF], gone)
        yield raw(f"reset behind {name}", [data, 0.1, RESET], "it has gone")
    for name in ("completions", "chat/completions", "responses", "generate", "trajectories"):
        path = f"/v1/{name}"
        more = {"max_tokens": 200, "ignore_eos": True}
        body = SHORT[path] | (more if name != "responses" else {"ignore_eos": True})
        for streamed in (False, True) if name != "trajectories" else (False,):
            text = json.dumps(body | {"stream": streamed}).encode()
            yield raw(f"reset {name} {streamed}", [head("POST", path, text), 0.15, RESET], "it has gone")
    yield raw("late head", [post[:60], late, post[60:]], "")
    yield raw("late body", [post[:-5], late], "", 1, ("did not come within",), bare=False)
    yield raw("idle", [0.1])
    yield raw("idle in the preface", [PREFACE[:10]])
    yield raw("slow body", [post[:-4], 0.3, post[-4:-2], 0.3, post[-2:]], "it comes in time", 1)
    drip = [step for at in range(60) for step in (b"0", 0.05)]
    yield raw(
        "dripping body", [around([b"content-length: 100000"], b""), *drip], "", 1, ("did not come within",), bare=False
    )
    drip = [step for at in range(60) for step in (b"1\r\n \r\n", 0.05)]
    begun = around([b"transfer-encoding: chunked"], b"")
    yield raw("dripping chunks", [begun, *drip], "", 1, ("did not come within",), bare=False)
    yield raw(
        "dripping head", [b"GET /health HTTP/1.1\r\n"] + [step for at in range(60) for step in (b"a: b\r\n", 0.05)]
    )
    yield raw(
        "continue", [around([b"expect: 100-continue", b"content-length: %d" % len(BODY)], b""), 0.1, BODY], "sound", 1
    )
    yield raw(
        "continue without", [around([b"expect: 100-continue", b"content-length: 10"], b"")], "", 1, ("did not come",)
    )
    large = json.dumps({"tokens": [65] * 500_000}).encode()
    yield raw("deaf", [head("POST", "/detokenize", large), Deaf(1.5)], "a reader may be slow", 1)
    yield raw("deaf and gone", [head("POST", "/detokenize", large), Deaf(5), 0.5, RESET], "it has gone")
    yield raw("many of health", [HEALTH * 200], "each is sound", 200)
    yield raw("many of generate", [GENERATE * 20], "each is sound", 20)
    yield raw("many and none", [HEALTH * 3 + b"\0\0\0\0\r\n\r\n" + HEALTH], "", 4)
    unknown = head("POST", "/v1/completions", b'{"x": 1}')
    yield raw("many refused", [unknown * 50], "", 50, ("is not known here",), bare=False)
    yield raw(
        "close and more", [head("GET", "/health", None, [("connection", "close")]) + HEALTH], "the first is sound", 1
    )
    # Who has not read a body closes behind the answer.
    yield raw("body for none", [head("GET", "/health", b"x" * 100_000)], "a body may stand there", 1)
    yield raw("refused before its body", [head("POST", "/none", b"x" * 1_000_000)], "", 1, ("there is no",), bare=False)


def frame(kind, flags, stream, payload=b"", length=None):
    return (
        struct.pack(">I", len(payload) if length is None else length)[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def fields(*pairs):
    """Headers as HPACK has them where nothing is indexed."""
    return b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in pairs)


def frames():
    """HTTP/2 as those begin who know that it is spoken. Its answers are frames, which nobody reads here."""
    asked = fields((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/health"), (b":authority", b"x"))
    post = fields((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/v1/generate"), (b":authority", b"x"),
                  (b"authorization", b"Bearer " + KEY.encode()), (b"content-type", b"application/json"))  # fmt: skip
    begun = PREFACE + SETTINGS

    def stream(number, headers=asked, flags=5):
        return frame(1, flags, number, headers)

    odd = range(1, 2001, 2)
    for name, data in {
        "preface only": PREFACE,
        "half a preface": PREFACE[:10],
        "noise": PREFACE + bytes(range(256)) * 40,
        "HTTP/1 behind": PREFACE + HEALTH,
        "large frame": begun + frame(0, 0, 1, b"", 0xFFFFFF) + b"x" * 100_000,
        "unknown frames": begun + frame(0xFA, 0xFF, 3, b"x" * 100) * 10_000,
        "settings odd": PREFACE + frame(4, 0, 0, b"x" * 5),
        "settings many": PREFACE + SETTINGS * 20_000,
        "settings wrong": PREFACE + frame(4, 0, 0, struct.pack(">HI", 4, 0xFFFFFFFF)),
        "pings": begun + frame(6, 0, 0, b"12345678") * 20_000,
        "window 0": begun + frame(8, 0, 0, struct.pack(">I", 0)),
        "window overflow": begun + frame(8, 0, 0, struct.pack(">I", 0x7FFFFFFF)) * 2,
        "even stream": begun + stream(2),
        "stream 0": begun + stream(0),
        "stream twice": begun + stream(1) + stream(1),
        "data first": begun + frame(0, 1, 1, b"x"),
        "continuation first": begun + frame(9, 4, 1, asked),
        "continuations": begun + frame(1, 1, 1, asked) + frame(9, 0, 1, fields((b"a", b"x" * 100)) * 40) * 500,
        "bad HPACK": begun + stream(1, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        "index 0": begun + stream(1, b"\x80"),
        "index beyond": begun + stream(1, b"\xfe"),
        "table too large": begun + stream(1, b"\x3f\xff\xff\xff\xff\x0f"),
        "no path": begun + stream(1, fields((b":method", b"GET"))),
        "upper case": begun + stream(1, asked + fields((b"A", b"b"))),
        "line in a value": begun + stream(1, asked + fields((b"a", b"b\r\nc: d"))),
        "connection header": begun + stream(1, asked + fields((b"connection", b"close"))),
        "length lies": begun + stream(1, post + fields((b"content-length", b"5")), 4) + frame(0, 1, 1, b"{}"),
        "sound": begun + stream(1),
        "many": begun + b"".join(stream(number) for number in odd),
        "reset at once": begun + b"".join(stream(at) + frame(3, 0, at, struct.pack(">I", 8)) for at in odd),
        "generate reset": begun
        + b"".join(stream(at, post, 4) + frame(0, 1, at, LONG) + frame(3, 0, at, struct.pack(">I", 8)) for at in odd),
        "generate half": begun + b"".join(stream(at, post, 4) for at in range(1, 400, 2)),
        "padding": begun + frame(1, 0x2D, 1, b"\xff" + asked),
        "priority of itself": begun + frame(1, 0x25, 1, struct.pack(">IB", 1, 0) + asked),
        "go away": begun + frame(7, 0, 0, struct.pack(">II", 0, 0) + b"x" * 10_000),
    }.items():
        # Frames of the answers are no HTTP/1: what is looked at is what becomes of the server.
        frames = (b'"status":"ready"',) if name == "sound" else (b"",)
        accept = "frames are answered by frames"
        yield sent("http-raw", f"h2 {name}", [data, 0.2, RESET], (), accept, frames=frames)
        yield sent("http-raw", f"h2 {name}, half", [data, 0.05, HALF, 0.1, RESET], (), accept, frames=frames)


def spoiled(rng):
    """A sound request with a few bytes changed, anywhere."""
    path = rng.choice(list(SHORT))
    chat = {"messages": SAID, "max_tokens": 2}
    body = json.dumps(chat if path == "/v1/chat/completions" else SHORT[path] | {"model": "b"}).encode()
    request = head("POST", path, body) if rng.random() < 0.7 else head("GET", "/v1/models")
    end = request.index(b"\r\n\r\n") + 4
    data, place = bytearray(request), rng.randrange(end)
    what = rng.choice(["flip", "cut", "put", "line", "drop", "swap"])
    if what == "flip":
        data[place] ^= 1 << rng.randrange(8)
    elif what == "cut":
        del data[place:]
    elif what == "put":
        data[place:place] = rng.choice(
            [b"\0", b"\r", b"\n", b"\r\n", b" ", b"\t", b"\xff", b":", b"\x1b[2J", b"a" * 9000]
        )
    elif what == "drop":
        del data[place : place + rng.randrange(1, 6)]
    else:
        own = bytes(data[:end]).split(b"\r\n")[:-2]
        first, second = rng.randrange(len(own)), rng.randrange(len(own))
        if what == "line":
            own.insert(second, own[first])
        else:
            own[first], own[second] = own[second], own[first]
        data[:end] = b"\r\n".join(own) + b"\r\n\r\n"
    pieces = [bytes(data), HALF] if what == "cut" else [bytes(data)]
    return raw(f"spoiled {what}-{place} of {path}", pieces, "what no route reads may be changed")


def http_raw(rng, fixtures):
    while True:
        fixed = [*lines(), *lengths(), *times(), *frames()]
        for case in rng.sample(fixed, len(fixed)):
            yield case
            yield spoiled(rng)
            yield spoiled(rng)
