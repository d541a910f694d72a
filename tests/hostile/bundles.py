"""Hostile bundles: manifests, graph texts, ONNX models and weights that were changed, with the hashes that fit, and
files that are none."""

import random
import struct

import files
import protobuf
from fixtures import GENERATE, IDS, content_of, copy, header_of, put, rehashed, sealed, with_header
from checkpoints import Rules
from inputs import Input
from values import ESCAPE, GONE, Change, Pairs, Raw, changed, deep, dump, same, same_type

SAID = "It was a bright cold day in April and nobody knew what the garden was for"
PROMPT = ["generate", "bundle", "--prompt", SAID, "-n", "4", "--greedy", "-q"]
CHAT = [*PROMPT[:2], "--chat", *PROMPT[2:]]
GENERATED = ["generate", "bundle", *GENERATE]
READERS = [
    ["inspect", "bundle"],
    ["inspect", "bundle", "--cost"],
    ["inspect", "bundle", "--params"],
    ["inspect", "bundle", "--format", "json", "--graph", "coarse"],
    ["verify", "bundle", "-q"],
    ["score", "bundle", "--ids", IDS, "-q"],
    ["generate", "bundle", *GENERATE, "--protocol", "hiergen"],
    ["generate", "bundle", *GENERATE, "--backend", "reference"],
    ["bench", "bundle", "--regime", "16/16", "--repetitions", "1", "-q"],
    ["diff", "bundle", "sound"],
    ["package", "bundle", "--for", "docker", "-o", "packed", "-q"],
    ["refit", "bundle", "--weights", "ckpt", "-q"],
]

LOOKS = {"inspect", "diff", "refit"}
PAPER = Rules("paper.toml")


def told(change, command):
    """Why a changed manifest may be accepted by a command, or nothing."""
    reasons = [_told(path, old, new, command) for path, old, new in change.touched]
    return reasons[0] if all(reasons) else ""


def _told(path, old, new, command):
    if same(old, new):
        return "nothing is changed"
    if old is GONE:
        return "a key that nobody reads"
    if path[:2] == ("model", "config") and len(path) > 2:
        if command not in LOOKS:
            return "it is told to people; what runs are the graphs"
        inside = Change(None, "", path[2:], old, new)
        # Sizes are compared with weights; whatever leaves them as they are is what somebody says.
        return PAPER.harmless(inside, {})
    entry = (
        len(path) == 2
        and path[0] in ("carried", "quantized")
        or path[0] == "onnx"
        and len(path) in (2, 3)
        or path[:2] == ("source", "files")
        and len(path) == 3
    )
    if new is GONE and entry and path[0] != "quantized":
        return "a bundle need not have it"
    if "declined" in path and (new is GONE or same_type(old, new)):
        return "it says why a model was not split, which no graph tells"
    if not same_type(old, new):
        return ""
    if path == ("carried",) and new == {}:
        return "a bundle need not have any"
    if path[0] in ("photonc", "source"):
        return "it says where a bundle comes from"
    if path == ("model", "max_tokens"):
        return "how long sequences may get is a choice"
    if path[0] == "onnx" and entry and command not in ("verify",):
        return "models are compared where they are asked for"
    if path[0] == "carried" and entry:
        return "which files a checkpoint had is its maker's to say"
    return ""


def bundle(kind, name, change, accept="", commands=None, source="b", same=False, names=("bundle",)):
    """A copy of a bundle, changed by `change(fixtures, folder of the bundle)`."""
    commands = commands or [GENERATED]

    def make(fixtures, folder):
        copy(fixtures.folder / source, folder / "bundle")
        words = {word for command in commands for word in command}
        if "sound" in words:
            copy(fixtures.folder / "b", folder / "sound")
        if "ckpt" in words:
            copy(fixtures.folder / "m", folder / "ckpt")
        change(fixtures, folder / "bundle")

    # What differs is the result of these, and not a refusal of the file.
    names = () if commands[0][0] in ("diff", "verify") else names
    return Input(kind, name, make, commands, names, accept, same)


def with_manifest(kind, name, text, accept="", commands=None, source="b", same=False):
    def change(fixtures, folder):
        put(folder / "photon.json", sealed(text) if isinstance(text, (dict, Pairs)) else text)

    return bundle(kind, name, change, accept, commands, source, same)


def commands_of(rng):
    return [GENERATED] if rng.random() < 0.5 else [rng.choice(READERS)]


def manifest(rng, fixtures):
    sound = fixtures.manifest()
    text = sealed(sound)

    def also(**entries):
        return {**sound, **entries}

    fixed = [
        ("empty", ""),
        ("list", "[]"),
        ("null", "null"),
        ("object", "{}"),
        ("sealed-empty", sealed({})),
        ("half", text[: len(text) // 2]),
        ("tail", text + "x"),
        ("unsealed", dump(sound)),
        ("old-seal", text.replace('"format": 2', '"format":  2')),
        ("deep", str(deep(200_000))),
        ("deep-sealed", sealed(also(extra=deep(100_000)))),
        ("15MB-list", lambda: sealed(also(extra=Raw("[" + "0," * 7_000_000 + "0]")))),
        ("200MB-list", lambda: "[" + "0," * 100_000_000 + "0]"),
        ("format-1", sealed(also(format=1))),
        ("format-3", sealed(also(format=3))),
        ("format-huge", sealed(also(format=2**64))),
        ("escape-version", sealed(also(format=9, photonc=ESCAPE))),
        ("not-utf-8", text.encode()[:500] + b"\xff" + text.encode()[500:]),
        (
            "many-carried",
            lambda: sealed(
                also(carried={f"f{at}": {"file": "tokenizer.json", "bytes": 1, "blake3": ""} for at in range(100_000)})
            ),
        ),
        (
            "many-protocols",
            sealed(
                also(
                    protocols={
                        name: sound["protocols"]["recgen"] for name in ("recgen", "hiergen", "windowed", "chunkgen")
                    }
                )
            ),
        ),
        ("no-protocols", sealed(also(protocols={}))),
        ("no-graphs", sealed(also(graphs={}, protocols={}))),
        ("no-weights", sealed(also(weights={}, weight_files={}))),
        ("graph-escape", sealed(also(graphs={**sound["graphs"], ESCAPE: sound["graphs"]["coarse"]}))),
        (
            "weight-escape",
            sealed(
                also(weights={**sound["weights"], ESCAPE: {**next(iter(sound["weights"].values())), "dtype": ESCAPE}})
            ),
        ),
    ]
    accepted = {
        "15MB-list": "a key that nobody reads",
        "deep-sealed": "a key that nobody reads",
    }
    for name, content in rng.sample(fixed, len(fixed)):
        commands = commands_of(rng)
        accept = accepted.get(name, "")
        if name == "no-graphs" and commands[0][0] in LOOKS:
            accept = "a bundle may be looked at"
        yield with_manifest("manifest", name, content, accept, commands)
        yield from _changed_manifests(rng, fixtures, 4)
    while True:
        yield from _changed_manifests(rng, fixtures, 50)


def _changed_manifests(rng, fixtures, count):
    for _ in range(count):
        source = rng.choice(["b", "b", "b", "q"])
        sound = fixtures.manifest(source)
        # Every part in turn: weights are many, and their entries alike.
        part = rng.choice(
            [
                None,
                "model",
                "protocols",
                "graphs",
                "onnx",
                "weight_files",
                "weights",
                "carried",
                "quantized",
                "source",
                "top",
            ]
        )
        keep = (lambda path: len(path) == 1) if part == "top" else None
        only = (part,) if part not in (None, "top") and sound.get(part) else None
        change = changed(rng, sound, only, keep)
        commands = commands_of(rng)
        if source == "q":
            commands = [GENERATED] if rng.random() < 0.6 else [["inspect", "bundle"]]
        accept = told(change, commands[0][0])
        # Kernels of f32 are exact in what they print; a bundle in few bits prints other tokens.
        same = source == "b" and commands == [GENERATED]
        yield with_manifest("manifest", f"{source}-{change.name}", change.document, accept, commands, source, same)
        if rng.random() < 0.1:
            yield with_manifest(
                "manifest", f"unsealed-{change.name}", dump(change.document)[:-1] + ', "blake3": "0"}', "", commands
            )


ATTRIBUTES = [
    "nan",
    "inf",
    "-1",
    "0",
    "1",
    "2",
    "7",
    "1e400",
    "18446744073709551615",
    "9223372036854775808",
    "4294967296",
    "batch",
    "meta",
    "capacity",
    "batch*meta*capacity",
    "true",
    "argument",
    "state",
    "[]",
    "f32",
    "i64",
    "bool",
    "f32[]",
    "i64[batch]",
    "99999999999999999999999",
    "(batch+meta+capacity)",
    "''",
    '"x"',
    '"\x1b[2J"',
    "-0.0",
    "5e-324",
]


def graph(rng, fixtures):
    sound = fixtures.manifest()
    texts = {name: fixtures.bytes("b/" + record["file"]).decode() for name, record in sound["graphs"].items()}

    def one(name, graph, text, accept="a valid graph is a model"):
        def change(fixtures, folder):
            own = fixtures.manifest()
            rehashed(folder, own, {own["graphs"][graph]["file"]: content_of(text)})

        return bundle("graph", f"{graph}-{name}", change, accept, commands_of(rng))

    coarse = texts["coarse"]
    sum_of = "+".join(["batch*meta*capacity"] * 200)
    fixed = [
        ("empty", ""),
        ("nothing", "graph coarse {\n}\n"),
        ("10MB-garbage", lambda: "x y z %%\n" * 1_200_000),
        ("10MB-one-line", lambda: "graph coarse { " + "x" * (10 << 20)),
        ("20MB", lambda: coarse + "//" + "x" * (20 << 20)),
        ("other-graph", texts["expand"]),
        ("not-utf-8", coarse.encode().replace(b"output", b"out\xffut")),
        ("dim-bomb", lambda: coarse.replace("batch", "(batch+meta+capacity)" + "*(batch+meta+capacity)" * 300)),
        ("dim-bomb-60", coarse.replace("batch", "(batch+meta+capacity)" + "*(batch+meta+capacity)" * 60)),
        ("dim-sum", coarse.replace("batch", sum_of)),
        ("dim-digits", lambda: coarse.replace("batch", "9" * 100_000)),
        ("deep-dims", lambda: coarse.replace("batch", "(" * 50_000 + "batch" + ")" * 50_000)),
        ("100000-nodes", lambda: _many_nodes(coarse, 100_000)),
        (
            "20000-outputs",
            lambda: coarse.rstrip().rstrip("}")
            + "".join(f'  output "o{at}" = %level2:1\n' for at in range(20_000))
            + "}\n",
        ),
        ("escape-name", coarse.replace("top_state", "top\x1b[2Jstate")),
        ("crlf", coarse.replace("\n", "\r\n")),
        ("nul", coarse.replace("%0", "%\0")),
        ("tabs", coarse.replace("  %", "\t%")),
    ]
    for name, content in rng.sample(fixed, len(fixed)):
        yield one(name, "coarse", content)
        for _ in range(4):
            yield one(*_changed_graph(rng, texts))
    while True:
        yield one(*_changed_graph(rng, texts))


def _many_nodes(text, count):
    lines = text.split("\n")
    at = next(at for at, line in enumerate(lines) if line.startswith("  output"))
    extra = ["@flood", '  %0 = input{name="flood", ty=f32[batch], role=argument}']
    extra += [f"  %{number} = neg %{number - 1} : f32[batch]" for number in range(1, count)]
    return "\n".join(lines[:at] + extra + lines[at:])


def _changed_graph(rng, texts):
    graph = rng.choice(list(texts))
    lines = texts[graph].split("\n")
    nodes = [at for at, line in enumerate(lines) if "=" in line]
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at, roll = rng.choice(nodes), rng.random()
        line = lines[at]
        if roll < 0.1:
            lines[at] = ""
        elif roll < 0.2:
            lines.insert(rng.randrange(len(lines)), line)
        elif roll < 0.3:
            other = rng.choice(nodes)
            lines[at], lines[other] = lines[other], lines[at]
        elif roll < 0.55 and "{" in line:
            # The value of an attribute.
            keys = [position for position in range(len(line)) if line[position] == "=" and position > line.find("{")]
            if keys:
                start = rng.choice(keys) + 1
                end = next((end for end in range(start, len(line)) if line[end] in ",}"), len(line))
                lines[at] = line[:start] + rng.choice(ATTRIBUTES) + line[end:]
        elif roll < 0.7:
            # An operand.
            operands = [position for position in range(len(line)) if line[position] == "%" and position > 3]
            if operands:
                start = rng.choice(operands)
                end = next((end for end in range(start, len(line)) if line[end] in " ,"), len(line))
                lines[at] = (
                    line[:start]
                    + rng.choice(
                        ["%0", "%1", "%999999", "%:0", "%level1.head:0", "%18446744073709551616", line[start:end] + "0"]
                    )
                    + line[end:]
                )
        elif roll < 0.85:
            # An operation by another's name.
            words = line.split(" ")
            others = [one for one in lines if " = " in one]
            other = rng.choice(others).split(" = ", 1)[1].split(" ")[0]
            if " = " in line:
                left, right = line.split(" = ", 1)
                rest = right.split(" ", 1)
                lines[at] = f"{left} = {other} {rest[1] if len(rest) > 1 else ''}"
            else:
                lines[at] = " ".join(words[:-1])
        else:
            where = rng.randrange(len(line) + 1)
            lines[at] = (
                line[:where]
                + rng.choice(["%", "{", "}", "[", ":", "batch", "9", "\x1b[2J", " ", "next", "@", "#x", '"', "-"])
                + line[where + rng.randrange(3) :]
            )
    return f"lines-{rng.randrange(10**9)}", graph, "\n".join(lines)


def onnx(rng, fixtures):
    """Models of the format that others read: compared with the graph texts where they are asked for."""
    sound = fixtures.manifest()
    models = {name: record["file"] for target in sound["onnx"].values() for name, record in target.items()}

    while True:
        graph = rng.choice(list(models))
        seed = rng.random()
        what = rng.choice(["field", "field", "field", "bytes", "cut", "empty", "zeros", "large"])

        def change(fixtures, folder, graph=graph, seed=seed, what=what):
            content = fixtures.bytes("b/" + models[graph])
            own = fixtures.manifest()
            rehashed(folder, own, {models[graph]: _changed_model(random.Random(seed), content, what)})

        verify = ["verify", "bundle", "-q", "--graph", graph]
        reads = rng.random() < 0.7
        command = (
            verify if reads else rng.choice([GENERATED, ["inspect", "bundle"], ["score", "bundle", "--ids", IDS, "-q"]])
        )
        yield bundle(
            "onnx",
            f"{graph}-{what}-{seed}",
            change,
            "" if reads else "the graph texts are what runs",
            [command],
            same=command is GENERATED,
        )


def _changed_model(rng, content, what):
    if what == "field":
        new = protobuf.changed(rng, content)
        return new if new != content else content + b"\0"
    if what == "bytes":
        data = bytearray(content)
        at = rng.randrange(len(data))
        data[at] ^= 1 << rng.randrange(8)
        return bytes(data)
    if what == "cut":
        return content[: rng.randrange(len(content))]
    return {"empty": b"", "zeros": b"\0" * 1000, "large": content + b"\0" * (40 << 20)}[what]


def stored(rng, fixtures):
    """Weights files of a bundle, with hashes that fit."""
    while True:
        source = rng.choice(["b", "q"])
        sound = fixtures.manifest(source)
        file = rng.choice(list(sound["weight_files"]))
        content = fixtures.bytes(f"{source}/{file}")
        entries, data = header_of(content)
        roll = rng.random()
        accept = ""
        if roll < 0.6:
            change_of = changed(rng, entries)
            name, new = change_of.name, with_header(change_of.document, data)
            # Where data begins moves with the length of the header; a blank puts it back where it was.
            length = struct.unpack("<Q", content[:8])[0]
            text = dump(change_of.document).encode()
            if len(text) <= length:
                new = with_header(text.ljust(length), data)
            if change_of.path[0] == "__metadata__" or change_of.old == change_of.new:
                accept = "nothing that is read is changed"
            elif change_of.what.startswith(("more-", "swap-")) or source == "q":
                accept = "places are compared with the manifest, and types of codes are its own"
        elif roll < 0.8:
            bad = bytearray(data)
            at = rng.randrange(len(bad) - 400)
            value = rng.choice([b"\xff\xff\xff\x7f", b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f", b"\0\0\0\0"])
            bad[at - at % 4 : at - at % 4 + 400] = value * 100
            name, new, accept = (
                f"numbers-{value.hex()}-{at}",
                with_header(entries, bytes(bad)),
                "a weight may be any number",
            )
            new = content[: len(content) - len(data)] + bytes(bad)
        elif roll < 0.9:
            name, new = "cut", content[: rng.randrange(len(content))]
        else:
            name, new = rng.choice(
                [
                    ("length-max", b"\xff" * 8 + content[8:]),
                    ("length-0", b"\0" * 8 + content[8:]),
                    ("empty", b""),
                    ("short", b"\0" * 7),
                    ("deep", with_header(str(deep(100_000)).encode(), data)),
                    ("longer", content + b"\0" * 8),
                ]
            )
            accept = "bytes after the last weight are nobody's" if name == "longer" else ""

        def change(fixtures, folder, source=source, file=file, new=new):
            rehashed(folder, fixtures.manifest(source), {file: new})

        commands = [GENERATED] if rng.random() < 0.7 or source == "q" else [rng.choice(READERS)]
        # A model that computes no numbers is said to, without a file to blame.
        yield bundle(
            "stored",
            f"{source}-{name}",
            change,
            accept,
            commands,
            source,
            names=() if name.startswith("numbers") else ("bundle",),
        )


def place(rng, fixtures):
    """Something else where a file of a bundle stands."""
    sound = fixtures.manifest()
    names = [
        "photon.json",
        ".",
        sound["graphs"]["coarse"]["file"],
        next(iter(sound["weight_files"])),
        "tokenizer.json",
        next(iter(next(iter(sound["onnx"].values())).values()))["file"],
    ]
    cases = [(name, what) for name in names for what in files.KINDS]
    while True:
        for name, what in rng.sample(cases, len(cases)):

            def make(fixtures, folder, name=name, what=what):
                copy(fixtures.folder / "b", folder / ("other" if name == "." else "bundle"))
                files.put(folder / ("bundle" if name == "." else f"bundle/{name}"), what, folder / "other")

            accept = "a link to a sound file" if what == "link" else ""
            command = (
                GENERATED
                if rng.random() < 0.7
                else rng.choice(
                    [
                        ["inspect", "bundle"],
                        ["verify", "bundle", "-q"],
                        ["bench", "bundle", "--regime", "16/16", "--repetitions", "1", "-q"],
                    ]
                )
            )
            yield Input("place", f"bundle-{name}-{what}", make, [command], ("bundle",), accept)


def generation(rng, fixtures):
    """`generation_config.json`, `config.json` and `tokenizer_config.json` as a bundle carries them."""
    documents = {name: fixtures.json(f"m/{name}") for name in ("generation_config.json", "tokenizer_config.json")}

    def one(name, file, text, accept, command):
        def change(fixtures, folder):
            own = fixtures.manifest()
            rehashed(folder, own, {own["carried"][file]["file"]: content_of(text)})

        made = bundle("generation", name, change, accept, [command], names=(file,))
        made.prints_text = True
        return made

    while True:
        file = rng.choices(list(documents), [3, 1])[0]
        change = changed(rng, documents[file])
        drawn = ["generate", "bundle", "--prompt", "It was a bright day", "-n", "8", "--seed", "1", "-q"]
        chat = [*drawn[:4], "--chat", *drawn[4:]]
        command = rng.choice([drawn, chat])
        accept = (
            "names of tokens may be any text"
            if file != "generation_config.json" or _reads(change.document, change)
            else ""
        )
        yield one(f"{file}-{change.name}", file, dump(change.document), accept, command)


def _reads(document, change):
    """Whether every key that `generate` reads has a value that it may have."""
    if change.what.startswith("twice"):
        return True

    def number(value, fits):
        return value is None or (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and not isinstance(value, Raw)
            and fits(value)
        )

    def whole(value, least):
        return value is None or (isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**64)

    ids = document.get("eos_token_id")
    ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
    sampled = document.get("do_sample")
    if not (sampled is None or isinstance(sampled, bool)) or not all(
        isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 256 for one in ids
    ):
        return False
    if not number(document.get("repetition_penalty"), lambda x: 0 < x):
        return False
    if not sampled:
        return True
    return (
        number(document.get("temperature"), lambda t: t >= 0)
        and whole(document.get("top_k"), 0)
        and number(document.get("top_p"), lambda p: 0 < p <= 1)
    )
