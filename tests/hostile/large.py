"""Bodies about as long as they may be, and longer; conversations that are none, or many; lists of tools that are
bombs."""

import json

from bodies import NOT_KNOWN, REQUIRED, SAID
from sending import NO_JSON, TOO_MANY, posted
from values import ESCAPE, deep, dump

MOST = 15 << 20
COMPLETION, CHAT = "/v1/completions", "/v1/chat/completions"
SOUND = '{"prompt": "Hello", "max_tokens": 4'

# What fills a body, by name: made only where it is sent.
FILLS = {
    "text": lambda: dump("x" * MOST),
    "words": lambda: dump("hello there " * (MOST // 12)),
    "megabyte": lambda: dump("x" * (1 << 20)),
    "most": lambda: dump("x" * (1 << 19)),
    "zeros": lambda: "[" + "0," * (MOST // 2) + "0]",
    "lists": lambda: "[" + "[]," * (MOST // 3) + "[]]",
    "objects": lambda: "[" + "{}," * (MOST // 3) + "{}]",
    "pairs": lambda: "[" + '{"a":0},' * (MOST // 8) + "{}]",
    "texts": lambda: "[" + '"",' * (MOST // 3) + '""]',
    "megabytes": lambda: "[" + dump("x" * (1 << 20)) + (", " + dump("x" * (1 << 20))) * 14 + "]",
    "keys": lambda: "{" + ",".join(f'"{at}": 1' for at in range(MOST // 13)) + "}",
    "escapes": lambda: '"' + "\\u001b" * (MOST // 6) + '"',
}


def filled(name, path, before, fill, after, names, accept=""):
    """A body with something long in its midst."""
    return posted(name, path, lambda: f"{before}{fill()}{after}", names, accept)


def large():
    for path, key in REQUIRED.items():
        for name, fill in FILLS.items():
            # `detokenize` has no bound but that of bodies.
            accept = "a long text" if (path, name) == ("/detokenize", "zeros") else ""
            names = (key, "longer than", TOO_MANY, "exceed")
            yield filled(f"large-{name}", path, f'{{"{key}": ', fill, "}", names, accept)
    for name, fill in FILLS.items():
        accept = "a long text" if name in ("text", "words", "megabyte", "most", "escapes") else ""
        yield filled(f"large-{name}", "/tokenize", '{"prompt": ', fill, "}", ("prompt", TOO_MANY), accept)
        names = ("messages", TOO_MANY)
        yield filled(f"large-content-{name}", CHAT, '{"messages": [{"role": "user", "content": ', fill, "}]}", names)
        yield filled(f"large-nothing-{name}", COMPLETION, SOUND + ', "zz": ', fill, "}", (NOT_KNOWN, TOO_MANY))
    yield filled("many-nulls", COMPLETION, SOUND, lambda: "".join(f', "k{at}": null' for at in range(20_000)), "}",
                 (NOT_KNOWN,), "null asks for nothing")  # fmt: skip
    yield filled("many-biases", COMPLETION, SOUND + ', "logit_bias": ', FILLS["keys"], "}", ("logit_bias", TOO_MANY))
    accepted = {"user": "who asks may be any text", "stop": "an end that never comes"}
    for key in ("user", "model", "protocol", "stop", "k"):
        names, accept = (key, NOT_KNOWN), accepted.get(key, "")
        yield filled(f"long-{key}", COMPLETION, SOUND + f', "{key}": ', FILLS["megabyte"], "}", names, accept)
    yield filled("long-key", COMPLETION, SOUND + ", ", FILLS["megabyte"], ": 1}", (NOT_KNOWN,))
    words = '{"return_token_strs": true, "prompt": '
    yield filled("many-words", "/tokenize", words, FILLS["most"], "}", ("prompt",), "a long text")
    yield filled("long-path", "/admin/load", '{"path": ', FILLS["megabyte"], "}", ("path",))
    for path in (COMPLETION, "/tokenize", "/admin/load"):
        yield filled("too-long", path, '{"prompt": ', lambda: dump("x" * (16 << 20)), "}", ("longer than",))


def conversations():
    """Messages that are none, or odd ones, and tools."""
    bomb = {"type": "function", "function": {"name": "f", "parameters": deep(100, "object")}}
    unread = "a template need not read its tools"
    for name, fill, accept in [
        ("many", lambda: "[" + "{}," * 100_000 + "{}]", unread),
        ("deep", lambda: dump([bomb]), unread),
        ("deeper", lambda: dump([{"a": deep(100_000)}]), ""),
        ("no-objects", lambda: '[1, "f", null]', ""),
        ("long", lambda: dump([{"name": "f" * (1 << 20)}]), unread),
    ]:
        before = json.dumps({"messages": SAID, "max_tokens": 4})[:-1] + ', "tools": '
        yield filled(f"tools-{name}", CHAT, before, fill, "}", ("tools", "messages", TOO_MANY, NO_JSON), accept)
    image = {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}
    for name, one in {
        "role-none": {"content": "x"},
        "role-number": {"role": 5, "content": "x"},
        "content-number": {"role": "user", "content": 5},
        "content-object": {"role": "user", "content": {"a": ["b"] * 10_000}},
        "content-escape": {"role": "user", "content": {"a": ESCAPE}},
        "content-image": {"role": "user", "content": [image]},
        "content-kind": {"role": "user", "content": [{"type": ESCAPE + "y" * 9000, "text": "x"}]},
        "no-content": {"role": "user"},
        "text": "hello",
        "null": None,
    }.items():
        for path, key in ((CHAT, "messages"), ("/v1/responses", "input"), ("/tokenize", "messages")):
            yield posted(f"message-{name}", path, dump({key: [one]}), (key,))
    for name, one in {
        "role-other": {"role": ESCAPE, "content": "x"},
        "role-system-last": {"role": "system", "content": "x"},
        "more-keys": {"role": "user", "content": "x", "name": "\0", "tool_calls": [deep(90)]},
        "content-null": {"role": "assistant", "content": None},
        "content-template": {"role": "user", "content": "{{ messages }}{% for x in range(10**9) %}{% endfor %}"},
    }.items():
        text = dump({"messages": [one], "max_tokens": 2})
        yield posted(f"message-{name}", CHAT, text, ("messages",), "a template decides")
    one = dump(SAID[1])
    yield filled(
        "message-many", CHAT, '{"messages": [', lambda: ",".join([one] * 100_000), "]}", ("messages", TOO_MANY)
    )
