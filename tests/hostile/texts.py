"""Hostile text around a model: tokenizers, chat templates, conversations, files of prompts and of token ids."""

import copy as copying
import json

import files
from bundles import bundle
from fixtures import content_of, copy, put, rehashed
from inputs import Input
from values import ESCAPE, Raw, changed, deep, dump

SAID = "It was a bright cold day in April and nobody knew what the garden was for"
PROMPT = ["generate", "bundle", "--prompt", SAID, "-n", "4", "--greedy", "-q"]
CHAT = [*PROMPT[:2], "--chat", *PROMPT[2:]]

REGEXES = ["", "(", "[", "(a*)*b", "(a|aa)+$", "(.*)*(.*)*(.*)*x", "\\p{L}+", "\\p{Nope}", "(?<=a+)b", "(?=a)*", "a{1000000}", "((a{1000}){1000}){1000}", "(?:" * 2000 + "a" + ")" * 2000,
           "\\1", "(?<n>a)\\k<n>", "[^\\s\\S]", ".", "\\A\\Z", "(?i)ß", "[a-\\d]", "[z-a]", "\\x{110000}", "\\G", "(?>a+)a", "$", "^", "|", "a||", "\\", "\0", "x" * 100_000,
           "\\s+(?!\\S)|\\s+", "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+"]
TEXTS = ["", " ", "x", "▁", "Ġ", "\0", "🦀" * 50, "a" * 5000, "b" * 2_000_000, ESCAPE, "\u202e", "<s>", "\n"]


def _pattern(rng):
    return rng.choice([{"Regex": rng.choice(REGEXES)}, {"String": rng.choice(TEXTS)}, rng.choice(REGEXES), None, {"Regex": 1}, {}])


def _part(rng, depth=0):
    """A normalizer, splitter, decoder or what adds marks, with parameters of every kind."""
    flag, count, text = rng.choice([True, False]), rng.choice([0, 1, 2, 500, 501, 2**32, 2**64 - 1, -1]), rng.choice(TEXTS)
    parts = [
        {"type": "Replace", "pattern": _pattern(rng), "content": text}, {"type": "Prepend", "prepend": text}, {"type": "Lowercase"}, {"type": "NFD"}, {"type": "NFKC"}, {"type": "Nmt"},
        {"type": "StripAccents"}, {"type": "Strip", "strip_left": flag, "strip_right": True}, {"type": "Strip", "content": text, "start": count, "stop": rng.choice([0, 1, 500])},
        {"type": "Precompiled", "precompiled_charsmap": rng.choice(["", "AAAA", "AgAAAAAAAAA=", "/////w==", "x", "A" * 4000, None, "BAAAAAAAAAD/////"])},
        {"type": "BertNormalizer", "clean_text": flag, "handle_chinese_chars": flag, "strip_accents": None, "lowercase": flag},
        {"type": "ByteLevel", "add_prefix_space": flag, "trim_offsets": flag, "use_regex": flag}, {"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "BertPreTokenizer"},
        {"type": "Split", "pattern": _pattern(rng), "behavior": rng.choice(["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous", "Nope"]), "invert": flag},
        {"type": "Punctuation", "behavior": "Isolated"}, {"type": "Digits", "individual_digits": flag}, {"type": "Metaspace", "replacement": text, "prepend_scheme": rng.choice(["always", "first", "never", "x"]), "split": flag},
        {"type": "CharDelimiterSplit", "delimiter": text}, {"type": "UnicodeScripts"}, {"type": "FixedLength", "length": count}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "WordPiece", "prefix": text, "cleanup": flag}, {"type": "BPEDecoder", "suffix": text}, {"type": "CTC", "pad_token": text, "word_delimiter_token": text, "cleanup": flag},
        {"type": "BertProcessing", "sep": [text, count], "cls": ["<s>", 252]}, {"type": "RobertaProcessing", "sep": ["</s>", 253], "cls": [text, count], "trim_offsets": flag, "add_prefix_space": flag},
        {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": rng.choice(["<s>", "none", text]), "type_id": 0}}, {"Sequence": {"id": rng.choice(["A", "B"]), "type_id": 0}}],
         "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [rng.choice([252, 10**6, 2**32 - 1])], "tokens": ["<s>"]}}},
        {"type": rng.choice(["", "Nope", ESCAPE, None])}, None, [], "x",
    ]
    if depth < 3 and rng.random() < 0.25:
        key = rng.choice(["normalizers", "pretokenizers", "decoders", "processors"])
        return {"type": "Sequence", key: [_part(rng, depth + 1) for _ in range(rng.choice([0, 1, 3, 40]))]}
    return rng.choice(parts)


def _model(rng, sound):
    vocab = dict(list(sound["vocab"].items()))
    word = rng.choice(TEXTS)
    return rng.choice([
        {"type": "BPE", "vocab": vocab, "merges": rng.choice([[["a", "b"]], ["a b"], [["a", ""]], ["ab"], [[]], [["x" * 1000, "y"]], ["a a"] * 100_000])},
        {"type": "BPE", "vocab": {**vocab, "ab": 252}, "merges": [["a", "b"]] * 1000, "unk_token": word},
        {"type": "BPE", "vocab": {**vocab, "zz": rng.choice([2**31, 2**32 - 1, 2**32, -1, 0])}, "merges": []},
        {"type": "BPE", "vocab": vocab, "merges": [], "dropout": rng.choice([0.0, 0.5, 2, -1, Raw("NaN")])},
        {"type": "BPE", "vocab": vocab, "merges": [], "continuing_subword_prefix": word, "end_of_word_suffix": rng.choice(TEXTS)},
        {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": True, "unk_token": word, "fuse_unk": True},
        {"type": "WordLevel", "vocab": vocab, "unk_token": word}, {"type": "WordPiece", "vocab": vocab, "unk_token": word, "continuing_subword_prefix": word, "max_input_chars_per_word": rng.choice([0, 100, 2**64 - 1])},
        {"type": "Unigram", "vocab": [[text, rng.choice([0.0, -1.0, 1e308, Raw("NaN")])] for text in list(vocab)[:250]], "unk_id": rng.choice([0, 249, 250, 2**32, None]), "byte_fallback": rng.choice([True, False])},
        {"type": "Unigram", "vocab": [], "unk_id": 0}, {"type": "Unigram", "vocab": [["", 0.0]], "unk_id": 0}, {"type": "BPE", "vocab": {}, "merges": []}, {"vocab": vocab, "merges": []}, {"type": "Nope"},
    ])


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
        ("empty", "", ""), ("list", "[]", ""), ("object", "{}", ""), ("half", text[: len(text) // 2], ""), ("not-utf-8", text.encode()[:-5] + b"\xff}", ""), ("deep", str(deep(100_000)), ""),
        ("deep-normalizer", dump({**sound, "normalizer": deep(50_000, "object")}), ""),
        ("sequences-deep", dump({**sound, "normalizer": Raw('{"type": "Sequence", "normalizers": [' * 100 + ']}' * 100)}), "nothing in nothing"),
        ("sequences-deeper", dump({**sound, "normalizer": Raw('{"type": "Sequence", "normalizers": [' * 5000 + ']}' * 5000)}), ""),
        ("doubling", dump({**sound, "normalizer": {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 30}}), ""),
        ("doubling-regex", dump({**sound, "normalizer": {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"Regex": "."}, "content": "aa"}] * 30}}), ""),
        ("prepends", dump({**sound, "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "x" * 900}] * 20}}), ""),
        ("50MB-vocabulary", lambda: dump({**sound, "model": {**sound["model"], "vocab": {f"word-number-{at}": at for at in range(1_500_000)}}}), ""),
        ("100000-added", lambda: dump({**sound, "added_tokens": [{**sound["added_tokens"][0], "content": f"<t{at}>", "id": 256 + at} for at in range(100_000)]}), "a tokenizer may have more tokens than the model"),
        ("added-regex", dump({**sound, "added_tokens": [{**sound["added_tokens"][0], "content": "(" * 1000}]}), "a token may be any text"),
        ("truncation", dump({**sound, "truncation": {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 10}}), "truncation and padding are not done"),
        ("padding", dump({**sound, "padding": {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}}), "truncation and padding are not done"),
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


WORDS = ["message.content", "message.role", "messages", "messages[0]", "messages[-1].content", "bos_token", "eos_token", "tools", "none", "undefined_name", "loop.index", "loop", "x", "1", "0", "-1",
         "2**64", "9999999999999999999", "1e308", "1.5", "'a'", "''", '"\x1b[2J"', "[]", "{}", "[1, 2]", "{'a': 1}", "true", "range(10)", "range(10**9)", "namespace(a=1)", "strftime_now('%Y')", "raise_exception('no')", "cycler", "lipsum()", "dict(a=1)",
         "joiner(',')", "self", "caller()", "super()", "x.y.z", "messages|length"]
FILTERS = ["trim", "upper", "length", "tojson", "tojson(indent=1000000000)", "tojson(indent=-1)", "join(',')", "first", "last", "reverse", "list", "string", "int", "float", "sort", "unique", "batch(0)", "batch(2)", "slice(0)", "slice(3)", "replace('a', 'aa')",
           "replace('', 'aaaa')", "indent(1000000000)", "default('d')", "safe", "escape", "map(attribute='role')", "selectattr('role', 'equalto', 'user')", "sum", "max", "round(400)", "center(1000000000)", "wordwrap(0)", "format(1)", "items", "dictsort", "groupby('role')", "random",
           "truncate(-1)", "split('')", "nope", "abs", "attr('x')", "title", "capitalize", "striptags", "urlencode", "filesizeformat", "pprint", "xmlattr", "count"]
METHODS = [".split('')", ".split()", ".strip()", ".replace('a', 'b' * 100)", ".items()", ".keys()", ".format(1)", ".startswith('a')", ".join([])", ".__class__", ".__init__.__globals__", "[0]", "[-1]", "[::0]", "[::-1]", "[1:2]", "[10**20]", ".zfill(10**9)", ".ljust(10**9)", ".encode()", ".append(1)", ".pop()"]
TESTS = ["defined", "none", "string", "mapping", "iterable", "divisibleby(0)", "equalto(1)", "in([])", "nope", "number", "even", "sameas(1)"]


def _expression(rng, depth=0):
    roll = rng.random()
    if depth > 4 or roll < 0.3:
        return rng.choice(WORDS)
    inner = lambda: _expression(rng, depth + 1)
    return rng.choice([
        lambda: f"{inner()}|{rng.choice(FILTERS)}", lambda: f"({inner()}){rng.choice(METHODS)}", lambda: f"({inner()}) {rng.choice(['+', '-', '*', '/', '//', '%', '**', '~', 'and', 'or', 'in', 'not in', '==', '<', '>='])} ({inner()})",
        lambda: f"({inner()}) is {rng.choice(TESTS)}", lambda: f"({inner()}) if ({inner()}) else ({inner()})", lambda: f"not ({inner()})", lambda: f"[{inner()}, {inner()}]", lambda: f"-({inner()})", lambda: f"{{'a': {inner()}}}",
    ])()


def _statements(rng, depth=0):
    if depth > 3:
        return "t"
    inner = lambda: _statements(rng, depth + 1)
    e = lambda: _expression(rng)
    one = lambda: rng.choice([
        lambda: "{{ " + e() + " }}", lambda: "{% for x in " + e() + " %}" + inner() + "{% endfor %}", lambda: "{% for message in messages %}" + inner() + "{% endfor %}", lambda: "{% if " + e() + " %}" + inner() + "{% else %}" + inner() + "{% endif %}",
        lambda: "{% set x = " + e() + " %}", lambda: "{% macro f(a, b=" + e() + ") %}" + inner() + "{% endmacro %}{{ f(1) }}", lambda: "{% set x %}" + inner() + "{% endset %}", lambda: "{%- generation -%}" + inner() + "{%- endgeneration -%}",
        lambda: "{# " + inner() + " #}", lambda: "{% call f() %}" + inner() + "{% endcall %}", lambda: "{% filter upper %}" + inner() + "{% endfilter %}", lambda: "{% include 'x' %}", lambda: "{% break %}", lambda: "{% for x in [1,2] recursive %}{{ loop([x]) }}{% endfor %}",
        lambda: "text\x1b[2J", lambda: "{{", lambda: "%}", lambda: "{% endfor %}", lambda: "{% if %}", lambda: "{% raw %}{{ x }}{% endraw %}", lambda: "{% set ns = namespace(n=0) %}{% set ns.n = " + e() + " %}{{ ns.n }}",
    ])()
    return "".join(one() for _ in range(rng.choice([1, 2, 3])))


def template(rng, fixtures):
    def one(name, text):
        def change(fixtures, folder):
            own = fixtures.manifest()
            rehashed(folder, own, {own["carried"]["chat_template.jinja"]["file"]: content_of(text)})

        command = CHAT if rng.random() < 0.8 else ["generate", "bundle", "--prompts-file", "in.jsonl", "-n", "2", "--greedy", "-q"]
        made = bundle("template", name, change, "a template says what it says", [command], names=("chat_template", "template", "prompt", "JSON", "in.jsonl"))
        made.prints_text = True
        if command is not CHAT:
            plain = made.make

            def make(fixtures, folder):
                plain(fixtures, folder)
                put(folder / "in.jsonl", json.dumps({"messages": [{"role": "user", "content": SAID}], "tools": [{"type": "function", "function": {"name": "f"}}]}))

            made.make = make
            made.names = ()
        return made

    deep_messages = "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}"
    fixed = [
        ("empty", ""), ("binary", b"\xff\xfe{{ x }}"), ("deep-add", "{{ " + "1+" * 100_000 + "1 }}"), ("deep-not", "{{ " + "not " * 100_000 + "1 }}"), ("deep-parentheses", "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}"),
        ("deep-lists", "{{ " + "[" * 100_000 + "]" * 100_000 + " }}"), ("deep-index", "{{ x" + "[0]" * 100_000 + " }}"), ("deep-filter", "{{ 1" + "|string" * 100_000 + " }}"), ("deep-call", "{{ x" + "()" * 100_000 + " }}"), ("deep-tern", "{{ " + "1 if " * 50_000 + "1" + " else 2" * 50_000 + " }}"),
        ("deep-dot", "{{ x" + ".y" * 100_000 + " }}"), ("deep-minus", "{{ " + "-" * 100_000 + "1 }}"), ("deep-power", "{{ " + "2**" * 100_000 + "1 }}"), ("deep-for", "{% for x in [1] %}" * 20_000 + "{% endfor %}" * 20_000), ("deep-if", "{% if 1 %}" * 20_000 + "{% endif %}" * 20_000),
        ("deep-elif", "{% if 0 %}" + "{% elif 0 %}" * 50_000 + "{% endif %}"), ("deep-macro", "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}"), ("deep-recursive", "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}"), ("deep-print", deep_messages + "{{ ns.x }}"), ("deep-tojson", deep_messages + "{{ ns.x|tojson }}"),
        ("deep-compare", deep_messages + "{{ ns.x == ns.x }}"), ("deep-drop", deep_messages), ("deep-concat", "{{ " + "'a'~" * 100_000 + "'a' }}"), ("doubling", "{% set ns = namespace(x='a') %}{% for i in range(64) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}"),
        ("doubling-list", "{% set ns = namespace(x=[1]) %}{% for i in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x|length }}"), ("doubling-nested", "{% set ns = namespace(x=[1]) %}{% for i in range(64) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}"),
        ("doubling-nested-json", "{% set ns = namespace(x=[1]) %}{% for i in range(64) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|tojson|length }}"), ("doubling-compare", "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(64) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}"),
        ("replace", "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x|replace('a', 'aa') %}{% endfor %}{{ ns.x }}"), ("loops", "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"), ("range-1e9", "{{ range(1000000000)|list|length }}"), ("repeat", "{{ 'a' * 10000000000 }}"),
        ("list-repeat", "{{ ([0] * 10000000000)|length }}"), ("power", "{{ 9 ** 9 ** 9 }}"), ("big-number", "{{ " + "9" * 100_000 + " }}"), ("output", "{% for i in range(100000) %}{{ messages[0].content * 100 }}{% endfor %}"), ("1MB-comment", "{# " + "x" * (1 << 20) + " #}"), ("20MB-text", lambda: "x" * (20 << 20)),
        ("many-sets", "".join(f"{{% set v{at} = {at} %}}" for at in range(50_000))), ("quadratic-list", "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = ns.x + [i] %}{% endfor %}{{ ns.x|length }}"), ("quadratic-text", "{% set ns = namespace(x='') %}{% for i in range(1000000) %}{% set ns.x = ns.x ~ 'abcdefgh' %}{% endfor %}"),
        ("sort", "{{ range(1000000)|list|sort|length }}"), ("unique", "{{ range(100000)|list|unique|list|length }}"), ("in", "{% for i in range(100000) %}{{ 'x' if i in range(100000)|list }}{% endfor %}"), ("indent", "{{ ('a\n' * 10000)|indent(100000) }}"), ("format", "{{ '%1000000000d' % 1 }}"), ("format-star", "{{ '%*d' % (1000000000, 1) }}"),
        ("strftime", "{{ strftime_now('%' * 100000) }}"), ("strftime-width", "{{ strftime_now('%999999999d') }}"), ("slice", "{{ range(10)|slice(1000000000)|list|length }}"), ("batch", "{{ range(10)|batch(1000000000, 'x')|list|length }}"), ("split-empty", "{{ 'abc'.split('') }}"), ("center", "{{ 'a'|center(10000000000) }}"),
    ]
    while True:
        for name, content in rng.sample(fixed, len(fixed)):
            yield one(name, content)
            for _ in range(2):
                yield one(f"random-{rng.randrange(10**9)}", _statements(rng))


LINE = {"id": 7, "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}], "max_new_tokens": 2, "seed": 1,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}


def messages(rng, fixtures):
    """Lines of JSON with conversations, and lists of tools."""
    def one(name, lines, accept, tools=None):
        def make(fixtures, folder):
            copy(fixtures.folder / "b", folder / "bundle")
            put(folder / "in.jsonl", lines)
            if tools is not None:
                put(folder / "tools.json", tools)

        command = ["generate", "bundle", "--prompts-file", "in.jsonl", "-n", "2", "--greedy", "-q", *(["--tools", "tools.json"] if tools is not None else [])]
        # What is wrong with a line stands in its result; standard error counts them.
        return Input("messages", name, make, [command], ("in.jsonl", "tools.json", "lines say why"), accept, prints_text=True)

    sound = json.dumps(LINE)
    fixed = [
        ("empty", "", "no prompts, no results"), ("blank", "\n\n", "no prompts, no results"), ("list", "[]", ""), ("half", sound[:40], ""), ("deep", '{"id": ' + str(deep(100_000)) + ', "prompt": "x"}', ""), ("deep-content", '{"messages": [{"role": "user", "content": ' + str(deep(100_000)) + "}]}", ""),
        ("not-utf-8", sound.encode()[:60] + b"\xff" + sound.encode()[60:], ""), ("long-line", lambda: dump({"prompt": "x" * (50 << 20)}), ""), ("long-id", lambda: dump({"id": "i" * (20 << 20), "prompt_ids": list(range(16))}), "an id comes back as it is"), ("many-messages", lambda: dump({"messages": LINE["messages"] * 50_000}), ""),
        ("many-lines", lambda: "{}\n" * 500_000, ""), ("many-bad-lines", lambda: sound + "\n" + "{}\n" * 200_000, ""), ("many-lines-of-ids", '{"prompt_ids": [1]}\n' * 3 + '{"prompt_ids": []}\n' * 1000, "no token at all is a prompt too"), ("huge-ids", dump({"prompt_ids": [2**63 - 1] * 16}), ""), ("negative-ids", dump({"prompt_ids": [-1] * 16}), ""),
        ("many-ids", lambda: '{"prompt_ids": [' + "1," * 5_000_000 + "1]}", ""), ("new-tokens", dump({"prompt_ids": [1] * 16, "max_new_tokens": 2**64 - 1}), ""), ("new-tokens-0", dump({"prompt_ids": [1] * 16, "max_new_tokens": 0}), ""), ("seed", dump({"prompt_ids": [1] * 16, "seed": 2**64}), ""), ("nul", "\0" * 1000, ""),
    ]
    while True:
        for name, lines, accept in rng.sample(fixed, len(fixed)):
            yield one(name, lines, accept)
            for _ in range(5):
                change = changed(rng, LINE)
                yield one(change.name, dump(change.document) + "\n", "a template decides what messages may hold")
            change = changed(rng, {"tools": LINE["tools"]})
            yield one(f"tools-{change.name}", sound, "a tool is described as its maker likes", dump(change.document.get("tools", [])) if isinstance(change.document, dict) else "[]")


def prompts(rng, fixtures):
    """Files of ids, of text, of prompts; and what stands in their place."""
    options = {"--prompt-file": ["generate", "bundle", "--prompt-file", "file", "-n", "2", "--greedy", "-q"], "--prompts-file": ["generate", "bundle", "--prompts-file", "file", "-n", "2", "--greedy", "-q"],
               "--ids-file": ["score", "bundle", "--ids-file", "file", "-q"], "--text-file": ["score", "bundle", "--text-file", "file", "-q"], "--tools": [*CHAT, "--tools", "file"],
               "--weight-map": ["inspect", "ckpt", "--weight-map", "file"], "--logits": ["score", "bundle", "--ids", "1,2,3,4", "--logits", "file", "-q"], "--out": ["generate", "bundle", "--prompts-file", "in.jsonl", "-n", "2", "--greedy", "-q", "--out", "file"],
               "export -o": ["export", "ckpt", "-o", "file", "-q"], "synth -o": ["synth", "--preset", "tiny", "-o", "file", "-q"], "reduce -o": ["reduce", "bundle", "--graph", "coarse", "-o", "file", "-q", "--", "true"], "package -o": ["package", "bundle", "--for", "docker", "-o", "file", "-q"],
               "--plot": ["bench", "bundle", "--regime", "16/16", "--repetitions", "1", "-q", "--plot", "file"]}
    written = {"--logits", "--out", "export -o", "synth -o", "reduce -o", "package -o", "--plot"}
    contents = {"empty": b"", "nul": b"\0" * 1000, "nul-10MB": lambda: b"\0" * (10 << 20), "binary": bytes(range(256)) * 10, "no-space-10MB": lambda: b"x" * (10 << 20), "spaces-10MB": lambda: b" " * (10 << 20), "emoji-2MB": lambda: "🦀".encode() * 500_000, "ids-20MB": lambda: b"1 " * (10 << 20), "lines-10MB": lambda: b"1\n" * (5 << 20),
                "words": b"one two\n", "id-huge": b"9" * 100, "id-negative": b"-1,-2", "id-beyond": b"256", "escape": ESCAPE.encode(), "bidi": "\u202e1".encode(), "commas": b"," * 100_000, "mark": b"\xef\xbb\xbf1,2,3", "half-character": b"caf\xc3", "json": b"{}", "tool-list": b"[{}]", "ids": b"1,2,3,4\n"}
    cases = [(option, "kind", what) for option in options for what in files.KINDS] + [(option, "content", what) for option in options if option not in written for what in contents]
    while True:
        for option, how, what in rng.sample(cases, len(cases)):
            def make(fixtures, folder, how=how, what=what):
                copy(fixtures.folder / "b", folder / "bundle")
                copy(fixtures.folder / "m", folder / "ckpt")
                put(folder / "in.jsonl", '{"prompt_ids": [1, 2, 3]}\n')
                put(folder / "file.sound", b"1,2,3,4\n")
                if how == "kind":
                    files.put(folder / "file", what, folder / "file.sound")
                else:
                    put(folder / "file", contents[what])

            # A pipe that nobody writes to, or reads, is the caller's to end: whoever names one waits for it. And whoever has a text
            # of millions of tokens scored waits for that.
            if what == "pipe" or (option in ("--text-file", "--ids-file") and what.endswith("MB")):
                continue
            accept = "a user may name any file to read or write"
            if how == "kind" and option not in written and what in ("missing", "folder", "socket", "dangling", "loop"):
                accept = ""
            if option in ("export -o", "synth -o", "package -o") and how == "kind" and what not in ("missing", "folder", "dangling"):
                accept = ""
            made = Input("prompts", f"{option}-{what}", make, [options[option]], ("file", "/dev/", "prompt", "text", "tokens", "ids"), accept, prints_text=True)
            yield made
