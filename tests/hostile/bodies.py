"""Sound bodies of the server's endpoints, and what every parameter may be: which of them a refusal may blame, and
whether there is any."""

from fixtures import GENERATION
from served import ROOM, SEQUENCES

VOCAB, LOGPROBS, STOPS, IDS = 256, 20, 16, 1024
# Those that end a sequence by themselves.
ENDS = set(GENERATION["eos_token_id"])
MODEL = "b"
SPECIALS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
NOT_KNOWN = "is not known here"

# What other servers' parameters may be where they ask for nothing, as docs/serving.md promises.
NEUTRAL = {
    "add_generation_prompt": True,
    "background": False,
    "best_of": 1,
    "continue_final_message": False,
    "echo": False,
    "include": [],
    "include_stop_str_in_output": False,
    "length_penalty": 1,
    "logprobs": False,
    "metadata": {},
    "modalities": ["text"],
    "service_tier": "auto",
    "skip_special_tokens": True,
    "spaces_between_special_tokens": True,
    "tools": [],
    "top_logprobs": 0,
    "truncation": "disabled",
    "use_beam_search": False,
}


class Twice(dict):
    """An object some of whose keys were given twice; what they were the first time is lost."""

    keys_given_twice = ()


def objects(pairs):
    """What a reader makes of the pairs of an object."""
    found = Twice(pairs)
    keys = [key for key, _ in pairs]
    found.keys_given_twice = {key for key in keys if keys.count(key) > 1} if len(found) < len(pairs) else set()
    return found


def number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def whole(value, least, most):
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def between(least, most):
    return lambda value: number(value) and least <= value <= most


def count(most=2**32 - 1, least=0):
    return lambda value: whole(value, least, most)


def flag(value):
    return isinstance(value, bool)


def text(value):
    return isinstance(value, str)


def token_ids(value, most=None):
    return isinstance(value, list) and all(whole(one, 0, VOCAB - 1) for one in value) and (most or 1e9) >= len(value)


def stop(value):
    texts = [value] if text(value) else value
    return isinstance(texts, list) and len(texts) <= STOPS and all(text(one) and one for one in texts)


def bias(value):
    def known(key):
        try:
            return key.strip() == key and "_" not in key and key.isascii() and 0 <= int(key) < VOCAB
        except ValueError:
            return False

    fits = isinstance(value, dict) and all(known(key) and between(-100, 100)(one) for key, one in value.items())
    return fits and len(value) <= IDS


def of_list(kind):
    return lambda value: isinstance(value, list) and all(isinstance(one, kind) for one in value)


def tokens(value):
    """Tokens of a text: every byte is one."""
    for special in SPECIALS:
        value = value.replace(special, "?")
    return len(value.encode())


def prompts(value):
    """Lengths of the prompts; None where they are none."""
    if text(value):
        return [tokens(value)]
    if not isinstance(value, list) or not value:
        return None
    if token_ids(value):
        return [len(value)]
    if all(text(one) for one in value):
        return [tokens(one) for one in value]
    return [len(one) for one in value] if all(token_ids(one) for one in value) else None


def messages(value):
    def content(message):
        if isinstance(message.get("content"), list):
            kinds = ("text", "input_text", "output_text")
            return all(
                isinstance(part, dict) and part.get("type") in kinds and text(part.get("text"))
                for part in message["content"]
            )
        return ("content" in message and (message["content"] is None or text(message["content"]))) or (
            "content" not in message and "tool_calls" in message
        )

    return of_list(dict)(value) and value and all(text(one.get("role")) and content(one) for one in value)


def items(value):
    """What `input` of responses may be."""
    if text(value):
        return True
    return of_list(dict)(value) and all(one.get("type", "message") == "message" for one in value) and messages(value)


def stream_options(value):
    known = {"include_usage", "continuous_usage_stats"}
    return isinstance(value, dict) and not getattr(value, "keys_given_twice", ()) and value.keys() <= known and all(
        one is None or flag(one) for one in value.values()
    )  # fmt: skip


COMMON = {
    "model": lambda value: value == MODEL,
    "temperature": between(0, 1.8e308),
    "top_p": between(0, 1),
    "top_k": count(2**63 - 1, -1),
    "min_p": between(0, 1),
    "seed": count(2**63 - 1, -(2**63)),
    "presence_penalty": between(-2, 2),
    "frequency_penalty": between(-2, 2),
    "repetition_penalty": between(1e-6, 1e6),
    "logit_bias": bias,
    "stop": stop,
    "stop_token_ids": lambda value: token_ids(value, IDS),
    "min_tokens": count(),
    "ignore_eos": flag,
    "protocol": lambda value: value in ("recgen", "hiergen"),
    "priority": count(2**31 - 1, -(2**31)),
    "stream": flag,
    "user": text,
}
KIND_OF_TEXT = {"type": "text"}
OWN = {
    "/v1/completions": {
        "prompt": prompts,
        "suffix": lambda value: False,
        "max_tokens": count(),
        "n": count(SEQUENCES, 1),
        "best_of": count(),
        "echo": flag,
        "logprobs": count(LOGPROBS),
        "stream_options": stream_options,
        "return_token_ids": flag,
        "return_tokens_as_token_ids": flag,
        "prompt_length": count(),
        "add_special_tokens": flag,
    },
    "/v1/chat/completions": {
        "messages": messages,
        "tools": of_list(dict),
        "tool_choice": lambda value: value in ("auto", "none"),
        "parallel_tool_calls": lambda value: value is True,
        "response_format": lambda value: isinstance(value, dict) and value.get("type") == "text",
        "max_completion_tokens": count(ROOM, 1),
        "max_tokens": count(ROOM, 1),
        "n": count(SEQUENCES, 1),
        "logprobs": flag,
        "top_logprobs": count(LOGPROBS),
        "stream_options": stream_options,
        "return_token_ids": flag,
        "store": lambda value: value is False,
    },
    "/v1/responses": {
        "input": items,
        "instructions": text,
        "max_output_tokens": count(ROOM, 1),
        "text": lambda value: value in ({}, {"format": KIND_OF_TEXT}),
        "store": lambda value: value is False,
    },
    "/v1/generate": {
        "token_ids": token_ids,
        "max_tokens": count(ROOM, 1),
        "n": count(SEQUENCES, 1),
        "logprobs": count(LOGPROBS),
        "prompt_logprobs": count(LOGPROBS),
        "prompt_length": count(),
    },
    "/v1/trajectories": {
        "prompt": lambda value: len(prompts(value) or ()) == 1,
        "max_tokens": count(ROOM, 1),
        "protocol": lambda value: value == "recgen",
        "stream": lambda value: value is False,
    },
}
# KServe's protocol; parameters stand beside the text.
KSERVE = "/v2/models/b/generate"
OWN[KSERVE] = {
    "id": text,
    "text_input": text,
    "max_tokens": count(ROOM, 1),
    "prompt_length": count(),
    "add_special_tokens": flag,
    "stream": lambda value: value is False,
}
RULES = {path: COMMON | own for path, own in OWN.items()}
RULES["/v1/trajectories/{trajectory}/expand"] = {
    "from": count(),
    "to": count(),
    "sample": count(),
    **{key: COMMON[key] for key in ("seed", "temperature", "top_p", "top_k", "min_p")},
}
RULES["/tokenize"] = {
    "model": COMMON["model"],
    "prompt": text,
    "messages": messages,
    "tools": of_list(dict),
    "add_special_tokens": flag,
    "return_token_strs": flag,
}
RULES["/detokenize"] = {"model": COMMON["model"], "tokens": token_ids}
# Any other bundle is none here.
RULES["/admin/load"] = {"model": COMMON["model"], "path": lambda value: value in ("b", "./b", "b/")}
REQUIRED = {
    "/v1/completions": "prompt",
    "/v1/chat/completions": "messages",
    "/v1/responses": "input",
    "/v1/generate": "token_ids",
    "/v1/trajectories": "prompt",
    KSERVE: "text_input",
    "/detokenize": "tokens",
}
LENGTH = {"/v1/responses": "max_output_tokens"}

SAID = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
DRAWN = {"model": MODEL, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.01, "seed": 7}
OTHERS = {
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.1,
    "logit_bias": {"65": 2, "66": -100},
    "stop": ["zzzz", "yyyy"],
    "stop_token_ids": [250, 251],
    "min_tokens": 1,
    "ignore_eos": True,
    "protocol": "recgen",
    "priority": 1,
    "user": "somebody",
}
STREAM = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": False}}
# Bodies that say everything, so that every place of them can be changed.
SOUND = {
    "/v1/completions": {"prompt": "Hello", "max_tokens": 4, "n": 2, "best_of": 2, "echo": False, "logprobs": 2,
                        "return_token_ids": True, "return_tokens_as_token_ids": False, "prompt_length": 5,
                        "add_special_tokens": True, **DRAWN, **OTHERS, **STREAM},
    "/v1/chat/completions": {"messages": SAID, "tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": True,
                             "response_format": KIND_OF_TEXT, "max_completion_tokens": 4, "max_tokens": 4, "n": 2,
                             "logprobs": True, "top_logprobs": 2, "return_token_ids": True, "store": False,
                             **DRAWN, **OTHERS, **STREAM},
    "/v1/responses": {"input": [{"type": "message", **one} for one in SAID], "instructions": "Be kind.",
                      "max_output_tokens": 4, "text": {"format": KIND_OF_TEXT}, "store": False, "stream": False,
                      **DRAWN, **OTHERS},
    "/v1/generate": {"token_ids": [1, 2, 3, 4], "max_tokens": 4, "n": 2, "logprobs": 2, "prompt_logprobs": 1,
                     "prompt_length": 3, "stream": False, **DRAWN, **OTHERS},
    "/v1/trajectories": {"prompt": [1, 2, 3, 4], "max_tokens": 20, "stream": False, **DRAWN, **OTHERS},
    KSERVE: {"id": "1", "text_input": "Hello", "max_tokens": 4, "prompt_length": 5, "add_special_tokens": True,
             "stream": False, **DRAWN, **OTHERS},
    "/v1/trajectories/{trajectory}/expand": {"from": 1, "to": 2, "sample": 1,
                                             **{key: DRAWN[key] for key in DRAWN if key != "model"}},
    "/tokenize": {"model": MODEL, "prompt": "Hello", "add_special_tokens": True, "return_token_strs": True},
    "/detokenize": {"model": MODEL, "tokens": [72, 105]},
    "/admin/load": {"model": MODEL, "path": "b"},
}  # fmt: skip
# Bodies that say as little as they may.
SHORT = {path: {key: body[key]} if (key := REQUIRED.get(path)) else {} for path, body in SOUND.items()}
SHORT["/tokenize"] = {"messages": SAID, "tools": TOOLS}


def wrong(path, body):
    """The parameters that are to blame; none where the body may be accepted."""
    if not isinstance(body, dict):
        return {"expected"}
    rules, needed = RULES[path], REQUIRED.get(path)
    blamed = set(getattr(body, "keys_given_twice", ()))
    for key, value in body.items():
        if key in rules:
            if value is not None or key == needed:
                blamed |= set() if rules[key](value) else {key}
        elif value is not None and not (key in NEUTRAL and _same(value, NEUTRAL[key])):
            blamed |= {key, NOT_KNOWN} if len(key) < 100 and key.isprintable() else {NOT_KNOWN}
    if needed and needed not in body:
        blamed.add(needed)
    # Of several mistakes any may be told: also what contradicts another in the rest.
    rest = {key: value for key, value in body.items() if value is not None and key not in blamed}
    return blamed | _contradicting(path, ({needed: SHORT[path][needed]} if needed else {}) | rest)


def _same(value, neutral):
    return value == neutral and (type(value) is type(neutral) or (number(value) and number(neutral)))


def _contradicting(path, body):
    """Parameters each of which may be what it is, and not together."""
    blamed, get = set(), body.get
    ends = set(get("stop_token_ids", [])) | (set() if get("ignore_eos") else ENDS)
    blamed |= {"min_tokens"} if len(ends) == VOCAB and get("min_tokens") else set()
    new = get(LENGTH.get(path, "max_tokens"), get("max_completion_tokens"))
    if path == "/v1/completions":
        new = 16 if new is None else new
        blamed |= {"best_of"} if get("best_of", get("n", 1)) != get("n", 1) else set()
        blamed |= {"max_tokens"} if new == 0 and not get("echo") else set()
        blamed |= {"echo", "logprobs"} if get("echo") and get("stream") and "logprobs" in body else set()
        blamed |= {"n", "prompt"} if len(prompts(body["prompt"])) * get("n", 1) > SEQUENCES else set()
    elif path in ("/v1/generate", KSERVE):
        new = get("max_tokens", 16)
        blamed |= {"prompt_logprobs"} if "prompt_logprobs" in body and get("stream") else set()
    elif path == "/v1/trajectories":
        new = get("max_tokens", 64)
    elif path == "/v1/chat/completions":
        blamed |= {"top_logprobs"} if "top_logprobs" in body and not get("logprobs") else set()
        blamed |= {"tool_choice"} if get("tool_choice") == "none" and get("tools") else set()
        names = ("max_tokens", "max_completion_tokens")
        blamed |= {*names} if all(name in body for name in names) and body[names[0]] != body[names[1]] else set()
    elif path == "/tokenize":
        both = ("prompt" in body) == ("messages" in body) or ("tools" in body and "prompt" in body)
        return {"prompt"} if both else {"add_special_tokens"} & body.keys() if "messages" in body else set()
    elif path.endswith("/expand"):
        # The trajectory has 48 tokens behind a meta-context of 16.
        first, behind = get("from", 0), get("to", 3)
        return {"from", "to"} if first >= behind or behind > 3 else set()
    if path in RULES and "stream_options" in RULES[path] and "stream_options" in body:
        wishes = body["stream_options"]
        alone = wishes.get("continuous_usage_stats") and not wishes.get("include_usage")
        blamed |= {"stream_options"} if not get("stream") or alone else set()
    return blamed or (_too_long(path, body, new) if path in OWN else set())


def _too_long(path, body, new):
    """What asks for more tokens than there is room for, or for an end behind the end."""
    needed = REQUIRED.get(path)
    if needed not in ("prompt", "token_ids", "text_input"):
        length = sum(_length(body.get(key)) for key in (needed, "instructions"))
        long = length > 8 * ROOM or (new or 0) > ROOM - 16 or (new or ROOM) < body.get("min_tokens", 0)
        return {needed, LENGTH.get(path, "max_tokens"), "min_tokens"} if long else set()
    lengths, blamed = prompts(body[needed]) or [0], set()
    room = [max(length, 1) + max(new, 1) - (new == 0 and length == ROOM) for length in lengths]
    blamed |= {needed, "max_tokens"} if max(room) > ROOM else set()
    known = min(body.get("prompt_length", lengths[0]), *lengths, 10**9)
    blamed |= {"prompt_length"} if body.get("prompt_length", 0) > min(lengths) else set()
    blamed |= {"min_tokens"} if body.get("min_tokens", 0) > min(lengths) - known + max(new, 1) else set()
    return blamed


def _length(said):
    """Characters of a text, or of what a template writes of messages."""
    if isinstance(said, list):
        return sum(_length(one.get("role")) + _length(one.get("content", one.get("text"))) for one in said)
    return len(said) if text(said) else 0
