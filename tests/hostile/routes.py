"""Hostile requests in what stands around their bodies: paths, names of things, methods, types, keys."""

import json

from bodies import SOUND
from sending import sent
from served import KEY, head


def names_of_things():
    """Ids that are none, and paths for ids."""
    ids = [
        "x",
        "..",
        "../../etc/passwd",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "%00",
        "%ff%fe",
        "%1b%5b2J",
        "%e2%80%ae",
        "traj-",
    ]
    ids += ["traj-" + "0" * 32, "y" * 5000, "%", "%zz", "a%20b", "{id}", "*", ";", "a//b", "%2f"]
    for one in ids:
        for method, path in [
            ("GET", f"/v1/trajectories/{one}"),
            ("DELETE", f"/v1/trajectories/{one}"),
            ("POST", f"/v1/trajectories/{one}/expand"),
            ("GET", f"/v1/models/{one}"),
        ]:
            body = b"{}" if method == "POST" else None
            # The message shows the id, what stands in its place, or the route that there is not.
            names = ("no trajectory", "no model", "there is no", "is not done with", "UTF-8")
            yield sent("http", f"{method} {path[:60]}", head(method, path, body), names)
    for query in ["model=%ff", "model=x", "model=b&model=b", "x=1", "model=%00", "model", "=", "%", "a" * 5000]:
        accept = "an empty query" if query in ("", "=") else ""
        yield sent("http", f"/tokenizer_info?{query[:30]}", head("GET", f"/tokenizer_info?{query}"), ("model",), accept)
    yield sent("http", "GET trajectory", head("GET", "/v1/trajectories/{trajectory}"), (), "it is there")
    yield sent("http", "GET model", head("GET", "/v1/models/b"), (), "it is there")


PAGES = ["/", "/app.js", "/style.css", "/favicon.ico", "/health", "/ready", "/metrics", "/version", "/openapi.json"]
ASKED = ["/v1/models", "/v1/models/b", "/tokenizer_info", "/v1/trajectories/{trajectory}"]
METHODS = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "FOO",
    "get",
    "M-SEARCH",
    "X" * 300,
]


def routes():
    """Every path with every method, and paths that are none."""
    for path in [*SOUND, *PAGES, *ASKED]:
        for method in METHODS:
            answered = method in ("GET", "HEAD") and path in (*PAGES, *ASKED)
            # Browsers ask before they send; nothing is done then.
            accept = "it may be asked for" if answered else "a browser asks first" if method == "OPTIONS" else ""
            if method in ("POST", "DELETE") and path in (*SOUND, ASKED[-1]):
                continue
            request = lambda method=method, path=path: head(method, path, b"{}" if method == "POST" else None)  # noqa: E731
            names = ("is not done with", "there is no")
            yield sent("http", f"{method[:9]} {path}", request, names, accept, head_only=method == "HEAD")
    nowhere = [
        "/v1",
        "/v1/",
        "/v1/completions/",
        "/v1/completions/../models",
        "//",
        "/%2e%2e/etc/passwd",
        "/\x7f".encode(),
    ]
    nowhere += [
        "/v1/embeddings",
        "/V1/models",
        "/v1/models/",
        "/..",
        "/.git/config",
        "/app.js/..",
        "/" + "a/" * 3000,
        "/%00",
    ]
    nowhere += ["/v1/completions%3f", "/%1b[2J", "/admin", "/admin/load/x", "/health/x", "/*"]
    for path in nowhere:
        shown = path if isinstance(path, str) else repr(path)
        yield sent(
            "http", f"GET {shown[:40]}", head("GET", path), ("there is no", "no model"), bare=isinstance(path, bytes)
        )


def headers():
    """What stands around a body: types, codings, keys, names, and who asks from where."""
    sound = json.dumps({"prompt": "Hello", "max_tokens": 2}).encode()

    def one(name, more, names=(), accept="", version="1.1"):
        request = head("POST", "/v1/completions", sound, more.items(), version)
        return sent("http", f"header {name}", request, names, accept)

    for kind in [
        "text/plain",
        "",
        "application/json-seq",
        "multipart/form-data; boundary=x",
        "\xff",
        "a" * 5000,
        "*/*",
    ]:
        yield one(f"content-type {kind[:20]!r}", {"content-type": kind.encode("latin-1")}, ("content type",))
    yield one("no content-type", {"content-type": None}, ("content type",))
    for kind in [
        "application/json; charset=utf-16",
        "APPLICATION/JSON",
        "application/json;;;",
        "application/json;x=" + "y" * 5000,
    ]:
        yield one(f"content-type {kind[:24]!r}", {"content-type": kind}, (), "JSON is UTF-8, whatever is said of it")
    for coding in ["gzip", "br", "identity, gzip", "\xff\x80", "x" * 5000, "GZIP", "deflate"]:
        yield one(
            f"content-encoding {coding[:20]!r}", {"content-encoding": coding.encode("latin-1")}, ("content encoding",)
        )
    yield one("content-encoding identity", {"content-encoding": "identity"}, (), "nothing is encoded")
    keys = [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {KEY}x",
        f"Basic {KEY}",
        KEY,
        f"Bearer{KEY}",
        "Bearer \xff",
        "Bearer " + "k" * 60_000,
    ]
    for key in [*keys, f"Bearer {KEY[:-1]}", f"Bearer {KEY.upper()}", f"Bearer key {KEY}"]:
        yield one(f"authorization {key[:20]!r}", {"authorization": key.encode("latin-1")}, ("key",))
    yield one("no authorization", {"authorization": None}, ("key",))
    yield one("x-api-key wrong", {"authorization": None, "x-api-key": "x"}, ("key",))
    yield one("x-api-key", {"authorization": None, "x-api-key": KEY}, (), "a key may stand here too")
    yield one("bearer", {"authorization": f"bEaReR  {KEY} "}, (), "schemes have no case")
    for path in [*SOUND, *ASKED]:
        method = "POST" if path in SOUND else "GET"
        request = lambda path=path, method=method: head(method, path, b"{}", [("authorization", None)])  # noqa: E731
        yield sent("http", f"header no key {path}", request, ("key",))
    for name in ["", "\xff", "a" * 128, "a" * 129, "a b", "a" * 50_000, "\t", "x;y\x80"]:
        yield one(f"x-request-id {name[:20]!r}", {"x-request-id": name.encode("latin-1")}, (), "another name is given")
    for origin in ["null", "https://a.b", "\xff", "x" * 5000]:
        yield one(f"origin {origin[:12]!r}", {"origin": origin.encode("latin-1")}, (), "the browser refuses the page")
    for name, more in {
        "upgrade h2c": {"connection": "upgrade, http2-settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQ"},
        "upgrade websocket": {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-key": "x"},
        "host other": {"host": "evil.example"},
        "host odd": {"host": "a b:::99999999"},
        "no host": {"host": None},
        "forwarded": {"x-forwarded-for": "127.0.0.1", "forwarded": "for=127.0.0.1"},
        "accept nothing": {"accept": "image/png;q=0", "accept-encoding": "*;q=0"},
        "range": {"range": "bytes=0-18446744073709551615", "if-match": "*"},
        "method override": {"x-http-method-override": "DELETE"},
        "expect continue": {"expect": "100-continue"},
        "trailer": {"trailer": "authorization"},
        "te": {"te": "trailers, gzip"},
    }.items():
        yield one(name, more, (), "no route reads it")
    yield one("expect other", {"expect": "x"}, (), "no route reads it")
    yield one("version 1.0", {}, (), "an older client", "1.0")
