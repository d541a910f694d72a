"""Hostile tokenizers: parts of every type with every parameter, patterns, vocabularies."""

import copy as copying
import json

from bundles import CHAT, PROMPT, bundle
from fixtures import content_of, rehashed
from values import ESCAPE, Raw, changed, deep, dump

REGEXES = [
    "",
    "(",
    "[",
    "(a*)*b",
    "(a|aa)+$",
    "(.*)*(.*)*(.*)*x",
    "\\p{L}+",
    "\\p{Nope}",
    "(?<=a+)b",
    "(?=a)*",
    "a{1000000}",
    "((a{1000}){1000}){1000}",
    "(?:" * 2000 + "a" + ")" * 2000,
    "\\1",
    "(?<n>a)\\k<n>",
    "[^\\s\\S]",
    ".",
    "\\A\\Z",
    "(?i)ß",
    "[a-\\d]",
    "[z-a]",
    "\\x{110000}",
    "\\G",
    "(?>a+)a",
    "$",
    "^",
    "|",
    "a||",
    "\\",
    "\0",
    "x" * 100_000,
    "\\s+(?!\\S)|\\s+",
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+",
]
TEXTS = ["", " ", "x", "▁", "Ġ", "\0", "🦀" * 50, "a" * 5000, "b" * 2_000_000, ESCAPE, "\u202e", "<s>", "\n"]


def _pattern(rng):
    return rng.choice(
        [{"Regex": rng.choice(REGEXES)}, {"String": rng.choice(TEXTS)}, rng.choice(REGEXES), None, {"Regex": 1}, {}]
    )


def _part(rng, depth=0):
    """A normalizer, splitter, decoder or what adds marks, with parameters of every kind."""
    flag, count, text = (
        rng.choice([True, False]),
        rng.choice([0, 1, 2, 500, 501, 2**32, 2**64 - 1, -1]),
        rng.choice(TEXTS),
    )
    parts = [
        {"type": "Replace", "pattern": _pattern(rng), "content": text},
        {"type": "Prepend", "prepend": text},
        {"type": "Lowercase"},
        {"type": "NFD"},
        {"type": "NFKC"},
        {"type": "Nmt"},
        {"type": "StripAccents"},
        {"type": "Strip", "strip_left": flag, "strip_right": True},
        {"type": "Strip", "content": text, "start": count, "stop": rng.choice([0, 1, 500])},
        {
            "type": "Precompiled",
            "precompiled_charsmap": rng.choice(
                ["", "AAAA", "AgAAAAAAAAA=", "/////w==", "x", "A" * 4000, None, "BAAAAAAAAAD/////"]
            ),
        },
        {
            "type": "BertNormalizer",
            "clean_text": flag,
            "handle_chinese_chars": flag,
            "strip_accents": None,
            "lowercase": flag,
        },
        {"type": "ByteLevel", "add_prefix_space": flag, "trim_offsets": flag, "use_regex": flag},
        {"type": "Whitespace"},
        {"type": "WhitespaceSplit"},
        {"type": "BertPreTokenizer"},
        {
            "type": "Split",
            "pattern": _pattern(rng),
            "behavior": rng.choice(
                ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous", "Nope"]
            ),
            "invert": flag,
        },
        {"type": "Punctuation", "behavior": "Isolated"},
        {"type": "Digits", "individual_digits": flag},
        {
            "type": "Metaspace",
            "replacement": text,
            "prepend_scheme": rng.choice(["always", "first", "never", "x"]),
            "split": flag,
        },
        {"type": "CharDelimiterSplit", "delimiter": text},
        {"type": "UnicodeScripts"},
        {"type": "FixedLength", "length": count},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "WordPiece", "prefix": text, "cleanup": flag},
        {"type": "BPEDecoder", "suffix": text},
        {"type": "CTC", "pad_token": text, "word_delimiter_token": text, "cleanup": flag},
        {"type": "BertProcessing", "sep": [text, count], "cls": ["<s>", 252]},
        {
            "type": "RobertaProcessing",
            "sep": ["</s>", 253],
            "cls": [text, count],
            "trim_offsets": flag,
            "add_prefix_space": flag,
        },
        {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": rng.choice(["<s>", "none", text]), "type_id": 0}},
                {"Sequence": {"id": rng.choice(["A", "B"]), "type_id": 0}},
            ],
            "pair": [],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [rng.choice([252, 10**6, 2**32 - 1])], "tokens": ["<s>"]}},
        },
        {"type": rng.choice(["", "Nope", ESCAPE, None])},
        None,
        [],
        "x",
    ]
    if depth < 3 and rng.random() < 0.25:
        key = rng.choice(["normalizers", "pretokenizers", "decoders", "processors"])
        return {"type": "Sequence", key: [_part(rng, depth + 1) for _ in range(rng.choice([0, 1, 3, 40]))]}
    return rng.choice(parts)


def _model(rng, sound):
    vocab = dict(list(sound["vocab"].items()))
    word = rng.choice(TEXTS)
    return rng.choice(
        [
            {
                "type": "BPE",
                "vocab": vocab,
                "merges": rng.choice(
                    [[["a", "b"]], ["a b"], [["a", ""]], ["ab"], [[]], [["x" * 1000, "y"]], ["a a"] * 100_000]
                ),
            },
            {"type": "BPE", "vocab": {**vocab, "ab": 252}, "merges": [["a", "b"]] * 1000, "unk_token": word},
            {"type": "BPE", "vocab": {**vocab, "zz": rng.choice([2**31, 2**32 - 1, 2**32, -1, 0])}, "merges": []},
            {"type": "BPE", "vocab": vocab, "merges": [], "dropout": rng.choice([0.0, 0.5, 2, -1, Raw("NaN")])},
            {
                "type": "BPE",
                "vocab": vocab,
                "merges": [],
                "continuing_subword_prefix": word,
                "end_of_word_suffix": rng.choice(TEXTS),
            },
            {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": True, "unk_token": word, "fuse_unk": True},
            {"type": "WordLevel", "vocab": vocab, "unk_token": word},
            {
                "type": "WordPiece",
                "vocab": vocab,
                "unk_token": word,
                "continuing_subword_prefix": word,
                "max_input_chars_per_word": rng.choice([0, 100, 2**64 - 1]),
            },
            {
                "type": "Unigram",
                "vocab": [[text, rng.choice([0.0, -1.0, 1e308, Raw("NaN")])] for text in list(vocab)[:250]],
                "unk_id": rng.choice([0, 249, 250, 2**32, None]),
                "byte_fallback": rng.choice([True, False]),
            },
            {"type": "Unigram", "vocab": [], "unk_id": 0},
            {"type": "Unigram", "vocab": [["", 0.0]], "unk_id": 0},
            {"type": "BPE", "vocab": {}, "merges": []},
            {"vocab": vocab, "merges": []},
            {"type": "Nope"},
        ]
    )


def tokenizer(rng, fixtures):
    sound = fixtures.json("m/tokenizer.json")

    def one(name, text, accept="what is a tokenizer is up to its maker"):
        def change(fixtures, folder):
            own = fixtures.manifest()
            rehashed(folder, own, {own["carried"]["tokenizer.json"]["file"]: content_of(text)})

        command = rng.choice([PROMPT, PROMPT, CHAT, [*PROMPT, "--stop", "a"]])
        made = bundle("tokenizer", name, change, accept, [command], names=("tokenizer.json", "prompt", "text"))
        made.prints_text = True
        return made

    text = json.dumps(sound)
    fixed = [
        ("empty", "", ""),
        ("list", "[]", ""),
        ("object", "{}", ""),
        ("half", text[: len(text) // 2], ""),
        ("not-utf-8", text.encode()[:-5] + b"\xff}", ""),
        ("deep", str(deep(100_000)), ""),
        ("deep-normalizer", dump({**sound, "normalizer": deep(50_000, "object")}), ""),
        (
            "sequences-deep",
            dump({**sound, "normalizer": Raw('{"type": "Sequence", "normalizers": [' * 100 + "]}" * 100)}),
            "nothing in nothing",
        ),
        (
            "sequences-deeper",
            dump({**sound, "normalizer": Raw('{"type": "Sequence", "normalizers": [' * 5000 + "]}" * 5000)}),
            "",
        ),
        (
            "doubling",
            dump(
                {
                    **sound,
                    "normalizer": {
                        "type": "Sequence",
                        "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 30,
                    },
                }
            ),
            "",
        ),
        (
            "doubling-regex",
            dump(
                {
                    **sound,
                    "normalizer": {
                        "type": "Sequence",
                        "normalizers": [{"type": "Replace", "pattern": {"Regex": "."}, "content": "aa"}] * 30,
                    },
                }
            ),
            "",
        ),
        (
            "prepends",
            dump(
                {
                    **sound,
                    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "x" * 900}] * 20},
                }
            ),
            "",
        ),
        (
            "50MB-vocabulary",
            lambda: dump(
                {**sound, "model": {**sound["model"], "vocab": {f"word-number-{at}": at for at in range(1_500_000)}}}
            ),
            "",
        ),
        (
            "100000-added",
            lambda: dump(
                {
                    **sound,
                    "added_tokens": [
                        {**sound["added_tokens"][0], "content": f"<t{at}>", "id": 256 + at} for at in range(100_000)
                    ],
                }
            ),
            "a tokenizer may have more tokens than the model",
        ),
        (
            "added-regex",
            dump({**sound, "added_tokens": [{**sound["added_tokens"][0], "content": "(" * 1000}]}),
            "a token may be any text",
        ),
        (
            "truncation",
            dump(
                {
                    **sound,
                    "truncation": {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 10},
                }
            ),
            "truncation and padding are not done",
        ),
        (
            "padding",
            dump(
                {
                    **sound,
                    "padding": {
                        "strategy": {"Fixed": 10**9},
                        "direction": "Right",
                        "pad_to_multiple_of": None,
                        "pad_id": 0,
                        "pad_type_id": 0,
                        "pad_token": "x",
                    },
                }
            ),
            "truncation and padding are not done",
        ),
    ]
    while True:
        for name, content, accept in rng.sample(fixed, len(fixed)):
            yield one(name, content, accept)
            for _ in range(8):
                if rng.random() < 0.45:
                    document = copying.deepcopy(sound)
                    key = rng.choice(["normalizer", "pre_tokenizer", "decoder", "post_processor", "model"])
                    document[key] = _model(rng, sound["model"]) if key == "model" else _part(rng)
                    yield one(f"{key}-{rng.randrange(10**9)}", dump(document))
                else:
                    part = rng.choice([("added_tokens",), ("pre_tokenizer",), ("decoder",), ("model",), None])
                    keep = None if part != ("model",) else (lambda path: len(path) == 2)
                    change = changed(rng, sound, part, keep)
                    yield one(change.name, dump(change.document))
