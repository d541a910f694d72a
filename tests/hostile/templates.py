"""Hostile chat templates: random ones from a grammar, and bombs."""

import json

from bundles import CHAT, SAID, bundle
from fixtures import content_of, put, rehashed

WORDS = [
    "message.content",
    "message.role",
    "messages",
    "messages[0]",
    "messages[-1].content",
    "bos_token",
    "eos_token",
    "tools",
    "none",
    "undefined_name",
    "loop.index",
    "loop",
    "x",
    "1",
    "0",
    "-1",
    "2**64",
    "9999999999999999999",
    "1e308",
    "1.5",
    "'a'",
    "''",
    '"\x1b[2J"',
    "[]",
    "{}",
    "[1, 2]",
    "{'a': 1}",
    "true",
    "range(10)",
    "range(10**9)",
    "namespace(a=1)",
    "strftime_now('%Y')",
    "raise_exception('no')",
    "cycler",
    "lipsum()",
    "dict(a=1)",
    "joiner(',')",
    "self",
    "caller()",
    "super()",
    "x.y.z",
    "messages|length",
]
FILTERS = [
    "trim",
    "upper",
    "length",
    "tojson",
    "tojson(indent=1000000000)",
    "tojson(indent=-1)",
    "join(',')",
    "first",
    "last",
    "reverse",
    "list",
    "string",
    "int",
    "float",
    "sort",
    "unique",
    "batch(0)",
    "batch(2)",
    "slice(0)",
    "slice(3)",
    "replace('a', 'aa')",
    "replace('', 'aaaa')",
    "indent(1000000000)",
    "default('d')",
    "safe",
    "escape",
    "map(attribute='role')",
    "selectattr('role', 'equalto', 'user')",
    "sum",
    "max",
    "round(400)",
    "center(1000000000)",
    "wordwrap(0)",
    "format(1)",
    "items",
    "dictsort",
    "groupby('role')",
    "random",
    "truncate(-1)",
    "split('')",
    "nope",
    "abs",
    "attr('x')",
    "title",
    "capitalize",
    "striptags",
    "urlencode",
    "filesizeformat",
    "pprint",
    "xmlattr",
    "count",
]
METHODS = [
    ".split('')",
    ".split()",
    ".strip()",
    ".replace('a', 'b' * 100)",
    ".items()",
    ".keys()",
    ".format(1)",
    ".startswith('a')",
    ".join([])",
    ".__class__",
    ".__init__.__globals__",
    "[0]",
    "[-1]",
    "[::0]",
    "[::-1]",
    "[1:2]",
    "[10**20]",
    ".zfill(10**9)",
    ".ljust(10**9)",
    ".encode()",
    ".append(1)",
    ".pop()",
]
TESTS = [
    "defined",
    "none",
    "string",
    "mapping",
    "iterable",
    "divisibleby(0)",
    "equalto(1)",
    "in([])",
    "nope",
    "number",
    "even",
    "sameas(1)",
]


OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "~", "and", "or", "in", "not in", "==", "<", ">="]


def grown(start, times, step, shown):
    """A template that makes one value of `step` again and again."""
    loop = f"{{% for i in range({times}) %}}{{% set ns.x = {step} %}}{{% endfor %}}"
    return f"{{% set ns = namespace(x={start}) %}}{loop}{shown}"


def _expression(rng, depth=0):
    roll = rng.random()
    if depth > 4 or roll < 0.3:
        return rng.choice(WORDS)
    inner = lambda: _expression(rng, depth + 1)
    return rng.choice(
        [
            lambda: f"{inner()}|{rng.choice(FILTERS)}",
            lambda: f"({inner()}){rng.choice(METHODS)}",
            lambda: f"({inner()}) {rng.choice(OPERATORS)} ({inner()})",
            lambda: f"({inner()}) is {rng.choice(TESTS)}",
            lambda: f"({inner()}) if ({inner()}) else ({inner()})",
            lambda: f"not ({inner()})",
            lambda: f"[{inner()}, {inner()}]",
            lambda: f"-({inner()})",
            lambda: f"{{'a': {inner()}}}",
        ]
    )()


def _statements(rng, depth=0):
    if depth > 3:
        return "t"
    inner = lambda: _statements(rng, depth + 1)
    e = lambda: _expression(rng)
    one = lambda: rng.choice(
        [
            lambda: "{{ " + e() + " }}",
            lambda: "{% for x in " + e() + " %}" + inner() + "{% endfor %}",
            lambda: "{% for message in messages %}" + inner() + "{% endfor %}",
            lambda: "{% if " + e() + " %}" + inner() + "{% else %}" + inner() + "{% endif %}",
            lambda: "{% set x = " + e() + " %}",
            lambda: "{% macro f(a, b=" + e() + ") %}" + inner() + "{% endmacro %}{{ f(1) }}",
            lambda: "{% set x %}" + inner() + "{% endset %}",
            lambda: "{%- generation -%}" + inner() + "{%- endgeneration -%}",
            lambda: "{# " + inner() + " #}",
            lambda: "{% call f() %}" + inner() + "{% endcall %}",
            lambda: "{% filter upper %}" + inner() + "{% endfilter %}",
            lambda: "{% include 'x' %}",
            lambda: "{% break %}",
            lambda: "{% for x in [1,2] recursive %}{{ loop([x]) }}{% endfor %}",
            lambda: "text\x1b[2J",
            lambda: "{{",
            lambda: "%}",
            lambda: "{% endfor %}",
            lambda: "{% if %}",
            lambda: "{% raw %}{{ x }}{% endraw %}",
            lambda: "{% set ns = namespace(n=0) %}{% set ns.n = " + e() + " %}{{ ns.n }}",
        ]
    )()
    return "".join(one() for _ in range(rng.choice([1, 2, 3])))


def template(rng, fixtures):
    def one(name, text):
        def change(fixtures, folder):
            own = fixtures.manifest()
            rehashed(folder, own, {own["carried"]["chat_template.jinja"]["file"]: content_of(text)})

        command = (
            CHAT
            if rng.random() < 0.8
            else ["generate", "bundle", "--prompts-file", "in.jsonl", "-n", "2", "--greedy", "-q"]
        )
        made = bundle(
            "template",
            name,
            change,
            "a template says what it says",
            [command],
            names=("chat_template", "template", "prompt", "JSON", "in.jsonl"),
        )
        made.prints_text = True
        if command is not CHAT:
            plain = made.make

            def make(fixtures, folder):
                plain(fixtures, folder)
                put(
                    folder / "in.jsonl",
                    json.dumps(
                        {
                            "messages": [{"role": "user", "content": SAID}],
                            "tools": [{"type": "function", "function": {"name": "f"}}],
                        }
                    ),
                )

            made.make = make
            made.names = ()
        return made

    deep_messages = grown("[]", 100000, "[ns.x]", "")
    fixed = [
        ("empty", ""),
        ("binary", b"\xff\xfe{{ x }}"),
        ("deep-add", "{{ " + "1+" * 100_000 + "1 }}"),
        ("deep-not", "{{ " + "not " * 100_000 + "1 }}"),
        ("deep-parentheses", "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}"),
        ("deep-lists", "{{ " + "[" * 100_000 + "]" * 100_000 + " }}"),
        ("deep-index", "{{ x" + "[0]" * 100_000 + " }}"),
        ("deep-filter", "{{ 1" + "|string" * 100_000 + " }}"),
        ("deep-call", "{{ x" + "()" * 100_000 + " }}"),
        ("deep-tern", "{{ " + "1 if " * 50_000 + "1" + " else 2" * 50_000 + " }}"),
        ("deep-dot", "{{ x" + ".y" * 100_000 + " }}"),
        ("deep-minus", "{{ " + "-" * 100_000 + "1 }}"),
        ("deep-power", "{{ " + "2**" * 100_000 + "1 }}"),
        ("deep-for", "{% for x in [1] %}" * 20_000 + "{% endfor %}" * 20_000),
        ("deep-if", "{% if 1 %}" * 20_000 + "{% endif %}" * 20_000),
        ("deep-elif", "{% if 0 %}" + "{% elif 0 %}" * 50_000 + "{% endif %}"),
        ("deep-macro", "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}"),
        ("deep-recursive", "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}"),
        ("deep-print", deep_messages + "{{ ns.x }}"),
        ("deep-tojson", deep_messages + "{{ ns.x|tojson }}"),
        ("deep-compare", deep_messages + "{{ ns.x == ns.x }}"),
        ("deep-drop", deep_messages),
        ("deep-concat", "{{ " + "'a'~" * 100_000 + "'a' }}"),
        ("doubling", grown("'a'", 64, "ns.x ~ ns.x", "{{ ns.x }}")),
        ("doubling-list", grown("[1]", 64, "ns.x + ns.x", "{{ ns.x|length }}")),
        ("doubling-nested", grown("[1]", 64, "[ns.x, ns.x]", "{{ ns.x }}")),
        ("doubling-nested-json", grown("[1]", 64, "[ns.x, ns.x]", "{{ ns.x|tojson|length }}")),
        ("doubling-compare", grown("[1]", 64, "[ns.x, ns.x]", "{{ ns.x == [ns.x, ns.x] }}")),
        ("replace", grown("'a'", 60, "ns.x|replace('a', 'aa')", "{{ ns.x }}")),
        ("loops", "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"),
        ("range-1e9", "{{ range(1000000000)|list|length }}"),
        ("repeat", "{{ 'a' * 10000000000 }}"),
        ("list-repeat", "{{ ([0] * 10000000000)|length }}"),
        ("power", "{{ 9 ** 9 ** 9 }}"),
        ("big-number", "{{ " + "9" * 100_000 + " }}"),
        ("output", "{% for i in range(100000) %}{{ messages[0].content * 100 }}{% endfor %}"),
        ("1MB-comment", "{# " + "x" * (1 << 20) + " #}"),
        ("20MB-text", lambda: "x" * (20 << 20)),
        ("many-sets", "".join(f"{{% set v{at} = {at} %}}" for at in range(50_000))),
        ("quadratic-list", grown("[]", 100000, "ns.x + [i]", "{{ ns.x|length }}")),
        ("quadratic-text", grown("''", 1000000, "ns.x ~ 'abcdefgh'", "")),
        ("sort", "{{ range(1000000)|list|sort|length }}"),
        ("unique", "{{ range(100000)|list|unique|list|length }}"),
        ("in", "{% for i in range(100000) %}{{ 'x' if i in range(100000)|list }}{% endfor %}"),
        ("indent", "{{ ('a\n' * 10000)|indent(100000) }}"),
        ("format", "{{ '%1000000000d' % 1 }}"),
        ("format-star", "{{ '%*d' % (1000000000, 1) }}"),
        ("strftime", "{{ strftime_now('%' * 100000) }}"),
        ("strftime-width", "{{ strftime_now('%999999999d') }}"),
        ("slice", "{{ range(10)|slice(1000000000)|list|length }}"),
        ("batch", "{{ range(10)|batch(1000000000, 'x')|list|length }}"),
        ("split-empty", "{{ 'abc'.split('') }}"),
        ("center", "{{ 'a'|center(10000000000) }}"),
    ]
    while True:
        for name, content in rng.sample(fixed, len(fixed)):
            yield one(name, content)
            for _ in range(2):
                yield one(f"random-{rng.randrange(10**9)}", _statements(rng))
