"""Hostile requests that are sound HTTP: bodies, routes, names and headers. Each is refused by the name of what is
wrong, or accepted where the rules of `bodies` say that it may be."""

import copy
import gzip
import json

import bodies
import large
import routes
from bodies import NOT_KNOWN, OWN, RULES, SHORT, SOUND
from client import Deaf, opened
from inputs import Input
from outcomes import ACCEPTED, REFUSED
from sending import NO_JSON, READ_AS, TOO_MANY, judged, posted, sent
from served import End, head
from values import ESCAPE, VALUES, Raw, changed, deep, dump

NUMBERS = {
    "2^32": 2**32,
    "2^32-1": 2**32 - 1,
    "2^53": 2**53,
    "-2^63": -(2**63),
    "-2^63-1": -(2**63) - 1,
    "1e2": Raw("1e2"),
    "1.0": Raw("1.0"),
    "-0": Raw("-0"),
    "1e-400": Raw("1e-400"),
    "quarter": 0.25,
    "2": 2,
    "8": 8,
    "9": 9,
    "16": 16,
    "20": 20,
    "21": 21,
    "255": 255,
    "256": 256,
    "257": 257,
    "leading-zero": Raw("01"),
    "plus": Raw("+1"),
    "hex": Raw("0x1"),
    "undefined": Raw("undefined"),
}
LISTS = {
    "list-17-texts": [f"end{at}" for at in range(17)],
    "list-1025": [1] * 1025,
    "list-1024": [1] * 1024,
    "list-of-list": [[]],
    "list-of-lists": [[1, 2], [3]],
    "list-of-nothing": [None],
    "empty-texts": ["", ""],
    "half-character": Raw('"\\udfff\\ud800"'),
    "long-texts": ["z" * 10_000] * 16,
    "object-1025": {str(at): 0 for at in range(1025)},
    "object-of-bias": {"-1": 1},
    "object-beyond": {"256": 1},
    "object-word": {ESCAPE: 1},
    "object-infinite": {"1": 1e300},
    "object-signs": {"+1": 5, "1": -5},
    "special": "<|im_start|><|im_end|><s>",
    "template": "{{ 7 * 7 }}{% for x in range(99999999) %}{% endfor %}",
}
WORDS = {"recgen": "recgen", "hiergen": "hiergen", "auto": "auto", "none": "none", "flags": [True, False]}
EDGES = VALUES | NUMBERS | LISTS | WORDS


def mutated(rng):
    """One change of a body that says everything."""
    path = rng.choice(list(SOUND))
    change = changed(rng, SOUND[path])
    touched = {str(key) for place, _, _ in change.touched for key in (place[0], place[-1])}
    return judged(change.name, path, dump(change.document), touched)


def edge(rng):
    """One or two parameters at their edges in a body that says little; streamed where it can be."""
    path = rng.choice(list(RULES))
    body, named = copy.deepcopy(SHORT[path]), []
    if "max_tokens" in RULES[path] and rng.random() < 0.8:
        body["max_tokens"] = 4
    if "stream" in RULES[path] and rng.random() < 0.3:
        body["stream"] = True
    for _ in range(rng.choice([1, 1, 2])):
        key = rng.choice(list(OWN.get(path, RULES[path])) if rng.random() < 0.6 else list(RULES[path]))
        name, body[key] = rng.choice(list(EDGES.items()))
        named.append(f"{key}={name}")
    return judged(",".join(named), path, dump(body), {one.split("=")[0] for one in named})


# Parameters that do not go together, with a body that says little; and some that do.
TOGETHER = {
    "/v1/completions": [
        {"n": 3, "best_of": 4},
        {"best_of": 2},
        {"prompt": ["a", "b", "c"], "n": 3},
        {"prompt": [[1]] * 9},
        {"max_tokens": 0},
        {"max_tokens": 0, "echo": True, "logprobs": 0},
        {"max_tokens": 0, "echo": True, "prompt": [1] * 256, "logprobs": 20},
        {"echo": True, "logprobs": 1, "stream": True},
        {"stream_options": {"include_usage": True}},
        {"stream": True, "stream_options": {"continuous_usage_stats": True}},
        {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}, "n": 8},
        {"min_tokens": 9, "max_tokens": 8},
        {"prompt_length": 6},
        {"prompt_length": 0, "min_tokens": 20},
        {"prompt": [1] * 250, "max_tokens": 7},
        {"prompt": [1] * 257},
        {"suffix": ""},
        {"temperature": 0, "top_k": 1, "top_p": 0, "min_p": 1},
        {"temperature": 5e-324, "repetition_penalty": 1e308, "presence_penalty": 2, "frequency_penalty": 2},
        {"temperature": 1e308, "repetition_penalty": 5e-324, "top_p": 5e-324},
        {"logit_bias": {str(at): -100 for at in range(256)}},
        {"stop_token_ids": list(range(256)), "min_tokens": 4},
        {"stop": ["\ufffd", " ", "\0"], "echo": True},
        {"prompt": "", "echo": True, "logprobs": 20, "n": 8},
    ],
    "/v1/chat/completions": [
        {"top_logprobs": 2},
        {"top_logprobs": 21, "logprobs": True},
        {"max_tokens": 3, "max_completion_tokens": 4},
        {"max_completion_tokens": 0},
        {"max_completion_tokens": 257},
        {"tool_choice": "none", "tools": [{}]},
        {"tool_choice": "none", "tools": []},
        {"tool_choice": {"type": "function"}},
        {"functions": []},
        {"response_format": {"type": "json_object"}},
    ],
    "/v1/responses": [
        {"max_output_tokens": 0},
        {"previous_response_id": "resp-0"},
        {"tools": [{}]},
        {"background": True},
    ],
    "/v1/generate": [
        {"prompt_logprobs": 1, "stream": True},
        {"prompt_logprobs": 21},
        {"logprobs": 21},
        {"token_ids": [], "prompt_length": 1},
        {"token_ids": [], "prompt_logprobs": 20},
        {"token_ids": [256]},
        {"n": 9},
    ],
    bodies.KSERVE: [
        {"stream": True},
        {"n": 2},
        {"model": "x"},
        {"text_input": "", "max_tokens": 1},
        {"text_input": "a" * 257},
        {"min_tokens": 9, "max_tokens": 8},
        {"best_of": 2},
    ],
    "/v1/trajectories": [{"stream": True}, {"protocol": "hiergen"}, {"prompt": ["a", "b"]}, {"n": 2}, {"echo": True}],
    "/v1/trajectories/{trajectory}/expand": [{"from": 2, "to": 1}, {"from": 3}, {"to": 4}, {"from": 1, "to": 1}],
    "/tokenize": [{"prompt": "a"}, {"add_special_tokens": True}],
}


def together():
    for path, cases in TOGETHER.items():
        for more in cases:
            for stream in ({}, {"stream": True}) if "stream" in RULES[path] else ({},):
                text = dump({**SHORT[path], **stream, **more})
                yield judged(f"together {dump(more)[:60]}{' streamed' if stream else ''}", path, text, more)


def spoiled(rng):
    """The text of a sound body with a few bytes of it changed."""
    path = rng.choice(list(SHORT))
    text = bytearray(json.dumps(SHORT[path] | {"model": bodies.MODEL}).encode())
    if "expand" in path:
        text = bytearray(b'{"from": 0, "to": 2}')
    place, what = rng.randrange(len(text)), rng.choice(["flip", "cut", "twice", "put", "end", "drop"])
    if what == "flip":
        text[place] ^= 1 << rng.randrange(8)
    elif what == "cut":
        del text[place:]
    elif what == "twice":
        text[place:place] = text[place : place + rng.randrange(1, 12)]
    elif what == "put":
        text[place:place] = rng.choice(
            [b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x1b[2J", b"//x\n", b",", b"NaN", b'"']
        )
    elif what == "end":
        text += rng.choice([b" x", b"{}", b"\0", b",", b"\xef\xbb\xbf"])
    else:
        del text[place]
    # Which parameter a change makes wrong follows from what it is now.
    return judged(f"{what}-{place}", path, bytes(text), set(RULES[path]) | {"expected", "unknown field"})


def documents():
    """Bodies that are no document, or one of another kind; and such as take room or time."""
    for path in SOUND:
        sound = json.dumps(SHORT[path] or {"model": None} if "expand" not in path else {"from": 0}).encode()
        if path == "/admin/load":
            sound = b'{"path": "b"}'
        for name, text in {
            "empty": b"",
            "blank": b" \n\t",
            "nul": b"\0" * 100,
            "mark": b"\xef\xbb\xbf" + sound,
            "utf-16": sound.decode().encode("utf-16"),
            "not-utf-8": sound[:-1] + b', "user": "\xff\xfe"}',
            "surrogate-bytes": sound[:-1] + b', "user": "\xed\xa0\x80"}',
            "comment": b"/* a */" + sound,
            "comma": sound[:-1] + b",}",
            "two": sound + sound,
            "gzip": gzip.compress(sound, mtime=0),
            "deep": lambda: str(deep(1_000_000)),
            "deep-object": lambda: str(deep(200_000, "object")),
            "form": b"prompt=Hello&max_tokens=4",
        }.items():
            yield posted(name, path, text, (NO_JSON, TOO_MANY, "expected", NOT_KNOWN))
        for name, text in {"list": "[]", "null": "null", "number": "5", "text": '"x"', "true": "true"}.items():
            yield posted(name, path, text, ("expected",))
        positional = [json.loads(sound).get(key) for key in RULES[path]]
        yield posted("list-of-its-values", path, json.dumps(positional), ("expected",))
        yield posted("spaces", path, lambda sound=sound: b" " * (1 << 20) + sound, (), READ_AS)
        yield posted("nothing-twice", path, lambda sound=sound: sound[:-1] + b', "zz": 5, "zz": null}', ("zz",))
        one = next(iter(json.loads(sound)))
        again = f', "none": null, {json.dumps(one)}: {json.dumps(json.loads(sound)[one])}}}'
        yield posted("twice-behind-null", path, lambda sound=sound, again=again: sound[:-1] + again.encode(), (one,))


def several():
    """More than one request, and the end of a server."""
    body = json.dumps({"prompt": [1], "max_tokens": 16, "temperature": 0}).encode()
    create = head("POST", "/v1/trajectories", body)

    def trajectories(server):
        server.alive()
        made = []
        while (answer := server.ask(create)).status == 201:
            made.append(json.loads(answer.body)["id"])
        end = server.meet([create], names=("trajectories",))
        for one in made:
            server.ask(head("DELETE", f"/v1/trajectories/{one}"))
        return end

    def methods(server):
        many = b"".join(head(f"X{at}", "/health") for at in range(200))
        end = server.meet([many], wanted=200, names=("is not done with",))
        counted = server.ask(head("GET", "/metrics")).body.count(b'"X1')
        if counted and end.outcome == REFUSED:
            end.outcome, end.shown = "left over", f"a counter for each of {counted} methods"
        return end

    def ending(server):
        """What is under way when a server is told to end."""
        server.alive()
        long = {"token_ids": [1], "max_tokens": 200, "ignore_eos": True, "stream": True, "n": 8}
        stream = head("POST", "/v1/generate", json.dumps(long).encode())
        begun = [opened(server.port, data) for data in (stream, stream[:50], stream[:-5], b"", stream)]
        fault = server.stop()
        for one in begun:
            one.close()
        return End(*fault) if fault else End(ACCEPTED)

    yield Input("http", "too many trajectories", None, [], run=trajectories)
    yield Input("http", "many methods", None, [], run=methods)
    yield Input("http", "end under way", None, [], (), "whoever started it may end it", run=ending)
    body = {"prompt": "Hello", "max_tokens": 200, "ignore_eos": True, "stream": True, "logprobs": 20, "n": 8}
    slow = [head("POST", "/v1/completions", json.dumps(body).encode()), Deaf(1.0)]
    yield sent("http", "slow reader", slow, (), "a reader may be slow")


def fixed():
    """What is not left to chance."""
    yield from documents()
    yield from large.large()
    yield from large.conversations()
    yield from together()
    yield from routes.names_of_things()
    yield from routes.routes()
    yield from routes.headers()
    yield from several()


def http(rng, fixtures):
    while True:
        cases = list(fixed())
        for case in rng.sample(cases, len(cases)):
            yield case
            yield mutated(rng)
            yield edge(rng)
            yield edge(rng)
            yield spoiled(rng)
