"""Hostile checkpoints: configurations, headers and bytes of weights, packed weights, indices, weight maps, files that
are none."""

import json
import math
import os
import random
import struct
import tomllib
from pathlib import Path

import files
from fixtures import GENERATE, copy, header_of, put, with_header
from inputs import Input
from values import at as value_at
from values import ESCAPE, GONE, Raw, changed, deep, dump, same, same_type

DIALECTS = Path(__file__).resolve().parents[2] / "crates/photonc-compiler/src/model/dialects"
# One protocol: what a changed input needs is to be met, not to be compiled four times.
EXPORT = ["export", "ckpt", "-o", "out", "-q", "--protocol", "recgen"]
WORK = [EXPORT, ["generate", "out", *GENERATE]]
# Commands that read no more than headers, or other parts than an export does.
READERS = [
    ["inspect", "ckpt"],
    ["inspect", "ckpt", "--params"],
    ["refit", "bundle", "--weights", "ckpt", "-q"],
    ["diff", "ckpt", "bundle"],
    ["inspect", "ckpt", "--graph", "step", "--format", "json"],
]

# Fields of a model whose values change no shape, as dialects call them.
FREE = {
    "rms_norm_eps",
    "norm_eps",
    "rope_theta",
    "max_position_embeddings",
    "softmax_scale",
    "rope_partial",
    "factor",
    "top_k",
    "window",
    "full_every",
    "groups",
    "kept_groups",
    "encoder_window",
    "softcap",
    "normalize",
    "scaled_embedding",
    "stream",
}
# Fields that a model may do without, beside those for which a dialect says a value.
OPTIONAL = {"encoder_window", "softcap", "stream", "shared_inner", "query_rank", "softmax_scale", "window"}


def steering(text):
    return any(ord(character) < 32 or 127 <= ord(character) < 160 for character in text)


class Rules:
    """Which keys a dialect reads, from its data file."""

    def __init__(self, file):
        data = tomllib.loads((DIALECTS / file).read_text())
        self.rules = {}
        for part, inside in (("model", False), ("level", True)):
            for field, rule in data[part].items():
                if "key" in rule:
                    replaceable = "value" in rule or "from" in rule or field.split(".")[-1] in OPTIONAL
                    if ".latent." in field:
                        # Read of models with latent attention alone, and no golden here is one.
                        continue
                    self.rules[inside, rule["key"]] = (field.split(".")[-1], replaceable)
        for expect in data.get("expect", []):
            self.rules[expect.get("level", False), expect["key"]] = ("expected", not expect.get("required"))

    def harmless(self, change, sound):
        """Why a changed configuration may be accepted, or nothing; `sound` is what it was, empty where nobody knows."""
        reasons = [self._place(sound, *touched) for touched in change.touched]
        return reasons[0] if all(reasons) else ""

    def _place(self, sound, path, old, new):
        keys = [key for key in path if isinstance(key, str)]
        # Deeper ones are no JSON, whoever reads the key.
        if any(map(steering, keys)) or (isinstance(new, Raw) and new not in ("", "NaN", "-Infinity", deep(100))):
            return ""
        if same(old, new):
            return "nothing is changed"
        inside = len(path) > 2 and path[0] == "levels"
        key = ".".join(map(str, path[2:] if inside else path))
        near = [
            rule
            for (level, known), rule in self.rules.items()
            if level == inside and (known == key or known.startswith(key + ".") or key.startswith(known + "."))
        ]
        if not near and path != ("levels",) and not (len(path) == 2 and path[0] == "levels"):
            return "a key that no rule reads"
        latent = sound and path[-1] in ("n_kv_heads", "head_dim") and value_at(sound, path[:-1]).get("kind") == "mla"
        if latent:
            return "heads of latent attention follow from its own sizes"
        if sound and "moe" in path and not value_at(sound, path[: path.index("moe") + 1]).get("enabled"):
            return "a stack without experts reads nothing of them"
        if path[-1] in ("enc_heads", "dec_heads") and same_type(old, new):
            return "heads of another width, which follows from their number"
        field, replaceable = self.rules.get((inside, key), ("", False))
        if replaceable and (new is None or new is GONE):
            return "what the dialect says is taken in its place"
        numbers = old is None and isinstance(new, (int, float)) and not isinstance(new, bool)
        if field in FREE and (same_type(old, new) or numbers and replaceable):
            return "a value that changes no shape"
        return ""


def names_of(commands):
    """What a refusal names: the checkpoint, or what of it a later command could not do. Differences are results."""
    return () if commands[0][0] == "diff" else ("ckpt", "exceed the bundle's")


def with_config(kind, name, base, text, accept="", commands=WORK):
    """A checkpoint with this text as configuration."""
    file = "model_config.json" if base.startswith("scala") else "config.json"

    def make(fixtures, folder):
        copy(fixtures.folder / base, folder / "ckpt")
        put(folder / "ckpt" / file, text)
        if any("bundle" in command for command in commands):
            copy(fixtures.folder / "b", folder / "bundle")

    return Input(kind, f"{base}-{name}", make, commands, names_of(commands), accept)


def config(rng, fixtures):
    document = fixtures.json("m/config.json")
    text = json.dumps(document)
    level = document["levels"][0]

    def many(count, level):
        return dump({**document, "levels": Raw("[" + ", ".join([dump(level)] * count) + "]")})

    fixed = [
        ("empty", ""),
        ("blank", " \n"),
        ("null", "null"),
        ("list", "[]"),
        ("object", "{}"),
        ("text", '"model"'),
        ("half", text[: len(text) // 2]),
        ("tail", text + "x"),
        ("twice", text + text),
        ("utf-16", text.encode("utf-16")),
        ("not-utf-8", text.replace("photon", "phot\udcff").encode("utf-8", "surrogateescape")),
        ("nul-bytes", b"\0" * 1000),
        ("html", "<!DOCTYPE html><html></html>"),
        ("lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        ("deep-list", str(deep(200_000))),
        ("deep-object", str(deep(20_000, "object"))),
        ("escape", ESCAPE),
        ("key-escape", dump({**document, ESCAPE: 1})),
        ("value-escape", dump({**document, "model_type": ESCAPE})),
        ("2MB-unknown-keys", lambda: dump({**document, **{f"key{at}": at for at in range(120_000)}})),
        ("1MB-of-blanks", lambda: text + " " * (1 << 20)),
        ("2MB-of-blanks", lambda: text + " " * (2 << 20)),
        ("200MB", lambda: "x" * (200 << 20)),
        *((f"levels-{count}-empty", lambda count=count: many(count, {})) for count in (1000, 10_000, 100_000)),
        *((f"levels-{count}", many(count, level)) for count in (0, 1, 3, 64, 65, 600)),
        *((f"chunk-{size}", many(2, {**level, "chunk_size": size})) for size in (0, 1, 100_000, 2**31, 2**40, 2**63)),
        *(
            (f"layers-{count}", many(2, {**level, "encoder": {**level["encoder"], "layers": count}}))
            for count in (0, 300, 2700, 100_000, 2**31 - 1)
        ),
        *((f"vocabulary-{size}", dump({**document, "vocab_size": size})) for size in (1, 255, 257, 2**31 - 1, 2**62)),
    ]
    accepted = {"1MB-of-blanks": "", "levels-1": ""}
    for name, content in rng.sample(fixed, len(fixed)):
        yield with_config("config", name, "m", content, accepted.get(name, ""))
        # Between them some that nobody thought of.
        yield from _changed_configs(rng, fixtures, 3)
    while True:
        yield from _changed_configs(rng, fixtures, 50)


def _changed_configs(rng, fixtures, count):
    bases = {
        "m": "config.json",
        "paper": "config.json",
        "photon-experiment": "config.json",
        "scala_short": "model_config.json",
        "scala_moe": "model_config.json",
    }
    paper, scala = Rules("paper.toml"), Rules("scala.toml")
    rules = {
        "m": paper,
        "paper": paper,
        "photon-experiment": Rules("photon-experiment.toml"),
        "scala_short": scala,
        "scala_moe": scala,
    }
    for _ in range(count):
        base = rng.choices(list(bases), [4, 2, 2, 3, 2])[0]
        sound = fixtures.json(f"{base}/{bases[base]}")
        change = changed(rng, sound)
        commands = WORK if rng.random() < 0.7 or base != "m" else [rng.choice(READERS)]
        yield with_config(
            "config", change.name, base, dump(change.document), rules[base].harmless(change, sound), commands
        )


def with_weights(kind, name, base, content, accept="", commands=WORK):
    """A checkpoint with these bytes as weights, or what makes them of the sound ones."""

    def make(fixtures, folder):
        copy(fixtures.folder / base, folder / "ckpt")
        target = folder / "ckpt/model.safetensors"
        sound = target.read_bytes()
        put(target, content(sound) if callable(content) else content)
        if any("bundle" in command for command in commands):
            copy(fixtures.folder / "b", folder / "bundle")

    return Input(kind, f"{base}-{name}", make, commands, names_of(commands), accept)


def header(rng, fixtures):
    sound = fixtures.bytes("m/model.safetensors")
    entries, data = header_of(sound)
    text = json.dumps(entries)
    first = next(name for name in entries if name != "__metadata__")

    def length(value):
        return struct.pack("<Q", value) + sound[8:]

    def more(name, **entry):
        return with_header({**entries, name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0], **entry}}, data)

    def empties(count):
        rest = ", ".join(f'"e{at}": {{"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}' for at in range(count))
        return with_header((text[:-1] + ", " + rest + "}").encode(), data)

    def spelled(change):
        return with_header(change.encode(), data)

    size = len(data)
    fixed = [
        *(
            (f"length-{value}", length(value))
            for value in (
                0,
                1,
                2,
                len(text) - 1,
                len(text) + 1,
                len(sound) - 8,
                len(sound) - 7,
                2**31,
                2**63,
                2**64 - 8,
                2**64 - 1,
            )
        ),
        ("empty", b""),
        ("3-bytes", b"abc"),
        ("8-bytes", b"\0" * 8),
        ("only-header", sound[: 8 + len(text)]),
        ("zeros", b"\0" * 5000),
        ("truncated", sound[:-1]),
        ("longer", sound + b"\0"),
        ("half", sound[: len(sound) // 2]),
        ("pickle", b"PK\x03\x04" + b"\0" * 4000),
        ("lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        ("list", spelled("[]")),
        ("null", spelled("null")),
        ("number", spelled("7")),
        ("tail", spelled(text + "x")),
        ("not-utf-8", with_header(text.encode().replace(b"embed", b"emb\xff\xfe"), data)),
        ("padded", spelled(text + " " * 4096)),
        ("mark", with_header(b"\xef\xbb\xbf" + text.encode(), data)),
        ("escape-in-name", more(ESCAPE)),
        ("bidi-name", more("\u202ex")),
        ("empty-name", more("")),
        ("name-1MB", more("n" * (1 << 20))),
        ("name-14MB", lambda sound: more("n" * (14 << 20))),
        ("name-90MB", lambda sound: more("n" * (90 << 20))),
        ("empties-1000", empties(1000)),
        ("empties-80000", lambda sound: empties(80_000)),
        ("empties-1400000", lambda sound: empties(1_400_000)),
        ("dims-1000", more("d", shape=[1] * 1000, data_offsets=[0, 4])),
        ("dims-5e6", lambda sound: more("d", shape=Raw("[" + "1," * 5_000_000 + "1]"), data_offsets=[0, 4])),
        ("shape-wrap", more("w", shape=[2**32, 2**32], data_offsets=[size, size])),
        ("shape-wrap-zero", more("w", shape=[2**63, 2, 0], data_offsets=[size, size])),
        ("offsets-backwards", more("o", shape=[1], data_offsets=[8, 4])),
        ("offsets-huge", more("o", data_offsets=[2**64 - 1, 2**64 - 1])),
        ("offsets-beyond", more("o", shape=[1], data_offsets=[size, size + 4])),
        ("overlap", more("o", shape=[1], data_offsets=[0, 4])),
        ("dtype-none", more("o", dtype="Q7")),
        ("dtype-f4", more("o", dtype="F4", shape=[1])),
        ("twice", spelled(text[:-1] + f', "{first}": ' + json.dumps(entries[first]) + "}")),
        *(
            (f"metadata-deep-{depth}", spelled('{"__metadata__": ' + str(deep(depth)) + ", " + text[1:]))
            for depth in (100, 10_000, 1_000_000)
        ),
        *((f"tensor-deep-{depth}", more("t", shape=deep(depth))) for depth in (100, 10_000, 1_000_000)),
        ("metadata-escape", spelled('{"__metadata__": {"a": ' + json.dumps(ESCAPE) + "}, " + text[1:])),
        ("metadata-list", spelled('{"__metadata__": [1], ' + text[1:])),
    ]
    free = {"padded": "blanks are what aligns headers", "empties": "", "metadata-escape": "metadata that nobody reads"}
    for name, content in rng.sample(fixed, len(fixed)):
        yield with_weights("header", name, "m", content, free.get(name, ""))
        yield from _changed_headers(rng, fixtures, 2, entries, data)
    while True:
        yield from _changed_headers(rng, fixtures, 50, entries, data)


def _changed_headers(rng, fixtures, count, entries, data):
    for _ in range(count):
        if rng.random() < 0.2:
            seed = rng.random()
            yield with_weights(
                "header",
                f"bytes-{seed}",
                "m",
                lambda sound, seed=seed: _mutated(sound, seed),
                "a letter of a name may be one of its own",
            )
            continue
        change = changed(rng, entries)
        new = with_header(change.document, data)
        accept = ""
        tensor = change.path[0]
        if tensor == "__metadata__":
            accept = "metadata that nobody reads"
        elif same(change.old, change.new):
            accept = "nothing is changed"
        elif change.what.startswith("swap") and _alike(change):
            accept = "tensors of one shape may stand for each other"
        commands = WORK if rng.random() < 0.6 else [rng.choice(READERS)]
        yield with_weights("header", change.name, "m", new, accept, commands)


def _alike(change):
    """Whether two tensors that changed places have one type and shape."""
    entries = [value for _, value, _ in change.touched]
    return (
        all(isinstance(entry, dict) for entry in entries)
        and len({(dump(entry.get("shape")), entry.get("dtype")) for entry in entries}) == 1
    )


def _mutated(sound, seed):
    """A few bytes of the header, changed blindly."""
    rng, data = random.Random(seed), bytearray(sound)
    header_end = 8 + struct.unpack("<Q", sound[:8])[0]
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        data[rng.randrange(header_end)] = rng.choice(
            [rng.randrange(256), ord('"'), ord("9"), ord("["), ord("}"), 0, 0xFF, ord(",")]
        )
    return bytes(data)


NUMBERS = {"nan": math.nan, "infinite": math.inf, "largest": 3.4e38, "-largest": -3.4e38, "tiny": 1e-45, "zero": 0.0}


def weights(rng, fixtures):
    """Numbers that are none, or no model's."""

    def filled(sound, value, share, seed):
        entries, data = header_of(sound)
        floats = bytearray(data)
        chance = random.Random(seed)
        for at in range(0, len(floats) - 3, 4):
            if chance.random() < share:
                floats[at : at + 4] = struct.pack("<f", value)
        return with_header(entries, bytes(floats))

    while True:
        name, value = rng.choice(list(NUMBERS.items()))
        share, seed, allow = rng.choice([1e-4, 0.01, 1.0]), rng.random(), rng.random() < 0.5
        finite = math.isfinite(value)
        accept = "any number is a weight" if finite or allow else ""
        export = [*EXPORT, "--allow-nonfinite"] if allow else EXPORT
        after = rng.choice(
            [
                ["generate", "out", *GENERATE],
                ["generate", "out", *GENERATE[:-2]],
                ["score", "out", "--ids", "1,2,3,4,5", "-q"],
                ["verify", "out", "-q"],
            ]
        )
        dtype = rng.choice(
            [[], ["--dtype", "f16"], ["--quant", "level1.decoder=int8"], ["--quant", "level1.decoder=fp8"]]
        )
        changed_weights = with_weights(
            "weights",
            f"{name}-{share}-{dtype}-{after[0]}-{allow}-{seed}",
            "m",
            lambda sound, value=value, share=share, seed=seed: filled(sound, value, share, seed),
            accept,
            [[*export, *dtype], after],
        )
        # Where weights are not finite, so are what is computed of them: that is said of the model, not of a file.
        changed_weights.names = () if allow or finite else ("ckpt", "level1.decoder")
        yield changed_weights


def packed(rng, fixtures):
    """Weights in few bits: codes, scales and what says how they fit together."""
    bases = {
        base: header_of(fixtures.bytes(f"{base}/model.safetensors")) for base in ("scala_moe_fp8", "scala_moe_nvfp4")
    }
    while True:
        base = rng.choice(list(bases))
        entries, data = bases[base]
        if rng.random() < 0.25:
            content = bytearray(data)
            at = rng.randrange(len(content) - 64)
            content[at : at + 64] = rng.choice([b"\xff", b"\x7f", b"\0", b"\x80", rng.randbytes(1)]) * 64
            new = with_header(entries, bytes(content))
            coded = with_weights("packed", f"codes-{at}", base, new, "codes may be any numbers", WORK)
            # Logits that are no numbers are said of the model, not of a file.
            coded.names = ("ckpt", "the logits of token")
            yield coded
            continue
        change = changed(rng, entries)
        accept = ""
        if change.what == "without" and change.path[0].endswith((".fmt", ".red_axis")) and len(change.path) == 3:
            accept = "one number, with or without an axis"
        elif same(change.old, change.new) or change.path[0] == "__metadata__":
            accept = "nothing that is read is changed"
        elif change.what.startswith("swap") and _alike(change):
            accept = "tensors of one shape may stand for each other"
        yield with_weights("packed", change.name, base, with_header(change.document, data), accept, WORK)


def index(rng, fixtures):
    document = fixtures.json("shards/model.safetensors.index.json")
    names = sorted(set(document["weight_map"].values()))

    def one(name, content, accept=""):
        def make(fixtures, folder):
            copy(fixtures.folder / "shards", folder / "ckpt")
            put(folder / "ckpt/model.safetensors.index.json", content)

        commands = WORK if rng.random() < 0.6 else [["inspect", "ckpt"]]
        return Input("index", name, make, commands, names_of(commands), accept)

    def mapped(path, share=1.0):
        return dump(
            {
                "weight_map": {
                    tensor: path if rng.random() < share else shard for tensor, shard in document["weight_map"].items()
                }
            }
        )

    fixed = [
        *(
            (f"shard-{at}", mapped(path, share))
            for at, (path, share) in enumerate(
                [
                    ("../ckpt/" + names[0], 1),
                    ("/dev/zero", 1),
                    ("", 1),
                    (".", 1),
                    ("a/" * 2000, 1),
                    (ESCAPE, 1),
                    ("x" * 5000, 1),
                    (names[0] + "\0", 1),
                    (names[0], 1),
                    (names[1], 0.5),
                    ("./" + names[0], 0.3),
                    ("config.json", 1),
                    ("model.safetensors.index.json", 1),
                ]
            )
        ),
        ("5MB-not-strings", lambda: dump({"weight_map": {f"t{at}": at for at in range(300_000)}})),
        (
            "15MB-missing-shards",
            lambda: dump({"weight_map": {f"t{at}": f"s{at}.safetensors" for at in range(450_000)}}),
        ),
        (
            "60MB-missing-shards",
            lambda: dump({"weight_map": {f"t{at}": f"s{at}.safetensors" for at in range(1_800_000)}}),
        ),
        ("empty-map", '{"weight_map": {}}'),
        ("no-map", "{}"),
        ("list", "[]"),
        ("deep", str(deep(100_000))),
        ("empty", ""),
        (
            "more-tensors",
            lambda: dump({"weight_map": {**document["weight_map"], **{f"t{at}": names[0] for at in range(100_000)}}}),
        ),
        ("key-escape", dump({"weight_map": {**document["weight_map"], ESCAPE: names[0]}})),
    ]
    while True:
        for name, content in rng.sample(fixed, len(fixed)):
            yield one(name, content)
            for _ in range(3):
                change = changed(rng, document)
                free = change.path[0] != "weight_map" and not (change.what == "swap-weight_map")
                same = change.old == change.new
                accept = "only `weight_map` is read" if free or same else ""
                yield one(change.name, dump(change.document), accept)


def weight_map(rng, fixtures):
    """Data files of dialects: lines that are changed, lost, repeated; patterns and computed sizes that are none."""
    texts = {
        "m": (DIALECTS / "paper.toml").read_text(),
        "photon-experiment": (DIALECTS / "photon-experiment.toml").read_text(),
        "scala_short": (DIALECTS / "scala.toml").read_text(),
    }
    words = [
        "{i}",
        "{j}",
        "{i+1}",
        "{i",
        "{}",
        "{k}",
        '"',
        "[",
        "]",
        "{",
        "}",
        "=",
        "0",
        "-1",
        "9999999999999999999999",
        "nan",
        "inf",
        "''",
        '""',
        "\\",
        "\x1b[2J",
        "(a*)*b",
        ".*",
        "x / 0",
        "below.dim",
        "embed_dim * embed_dim",
        "true",
        "[[a]]",
        "1e400",
        "\u202e",
        "levels",
        "*",
        "../x",
    ]

    def one(name, base, content):
        def make(fixtures, folder):
            copy(fixtures.folder / base, folder / "ckpt")
            put(folder / "map.toml", content)

        command = rng.choice(
            [
                ["export", "ckpt", "--weight-map", "map.toml", "-o", "out", "-q"],
                ["inspect", "ckpt", "--weight-map", "map.toml"],
            ]
        )
        return Input("weight-map", name, make, [command], ("map.toml", "ckpt"), "a map may name things otherwise")

    text = texts["m"]
    fixed = [
        ("empty", ""),
        ("binary", b"\0\xff" * 1000),
        ("deep", "a = " + "[" * 100_000),
        ("deep-tables", "[" + ".".join(["a"] * 50_000) + "]"),
        ("json", "{}"),
        ("20MB-comment", lambda: "# " + "x" * (20 << 20) + "\n" + text),
        ("20MB-keys", lambda: text + "".join(f"\nk{at} = 1" for at in range(1_500_000))),
        ("pattern-1MB", lambda: text.replace("{j}", "{j}" * 300_000, 1)),
        ("many-expects", lambda: text + '\n[[expect]]\nkey = "a"\nvalues = [1]\nreason = "x"\n' * 50_000),
    ]
    for name, content in rng.sample(fixed, len(fixed)):
        yield one(name, "m", content)
    while True:
        base = rng.choice(list(texts))
        lines = texts[base].split("\n")
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            at = rng.choice([at for at, line in enumerate(lines) if line.strip() and not line.startswith("#")])
            line, roll = lines[at], rng.random()
            if roll < 0.15:
                lines[at] = ""
            elif roll < 0.25:
                lines.insert(rng.randrange(len(lines)), line)
            elif roll < 0.6:
                parts = line.split(" ")
                parts[rng.randrange(len(parts))] = rng.choice(words)
                lines[at] = " ".join(parts)
            elif roll < 0.85:
                where = rng.randrange(len(line) + 1)
                lines[at] = line[:where] + rng.choice(words) + line[where + rng.randrange(3) :]
            else:
                other = rng.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
        yield one(f"lines-{rng.randrange(10**9)}", base, "\n".join(lines))


def place(rng, fixtures):
    """Something else where a file of a checkpoint stands."""
    names = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
        "tokenizer_config.json",
        ".",
    ]
    cases = [(name, what) for name in names for what in files.KINDS]
    while True:
        for name, what in rng.sample(cases, len(cases)):

            def make(fixtures, folder, name=name, what=what):
                copy(fixtures.folder / "m", folder / "ckpt")
                if name == ".":
                    os.rename(folder / "ckpt", folder / "other")
                files.put(folder / ("ckpt" if name == "." else f"ckpt/{name}"), what, folder / "other")

            accept = files.accept(what, name)
            yield Input(
                "place",
                f"ckpt-{name}-{what}",
                make,
                WORK if rng.random() < 0.7 else [["inspect", "ckpt"]],
                ("ckpt", "out/"),
                accept
                or ("`inspect` reads headers alone" if name not in (".", "config.json", "model.safetensors") else ""),
            )
