"""Hostile conversations, files of prompts and of token ids, and what stands in the place of files for results."""

import json

import files
from bundles import CHAT
from fixtures import copy, put
from inputs import Input
from values import ESCAPE, changed, deep, dump

LINE = {
    "id": 7,
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
    "max_new_tokens": 2,
    "seed": 1,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
}


def messages(rng, fixtures):
    """Lines of JSON with conversations, and lists of tools."""

    def one(name, lines, accept, tools=None):
        def make(fixtures, folder):
            copy(fixtures.folder / "b", folder / "bundle")
            put(folder / "in.jsonl", lines)
            if tools is not None:
                put(folder / "tools.json", tools)

        command = [
            "generate",
            "bundle",
            "--prompts-file",
            "in.jsonl",
            "-n",
            "2",
            "--greedy",
            "-q",
            *(["--tools", "tools.json"] if tools is not None else []),
        ]
        # What is wrong with a line stands in its result; standard error counts them.
        return Input(
            "messages", name, make, [command], ("in.jsonl", "tools.json", "lines say why"), accept, prints_text=True
        )

    sound = json.dumps(LINE)
    fixed = [
        ("empty", "", "no prompts, no results"),
        ("blank", "\n\n", "no prompts, no results"),
        ("list", "[]", ""),
        ("half", sound[:40], ""),
        ("deep", '{"id": ' + str(deep(100_000)) + ', "prompt": "x"}', "an id comes back as it is"),
        ("deep-content", '{"messages": [{"role": "user", "content": ' + str(deep(100_000)) + "}]}", ""),
        ("not-utf-8", sound.encode()[:60] + b"\xff" + sound.encode()[60:], ""),
        ("long-line", lambda: dump({"prompt": "x" * (50 << 20)}), ""),
        ("long-id", lambda: dump({"id": "i" * (20 << 20), "prompt_ids": list(range(16))}), "an id comes back as it is"),
        ("many-messages", lambda: dump({"messages": LINE["messages"] * 50_000}), ""),
        ("many-lines", lambda: "{}\n" * 500_000, ""),
        ("many-bad-lines", lambda: sound + "\n" + "{}\n" * 200_000, ""),
        (
            "many-lines-of-ids",
            '{"prompt_ids": [1]}\n' * 3 + '{"prompt_ids": []}\n' * 1000,
            "no token at all is a prompt too",
        ),
        ("huge-ids", dump({"prompt_ids": [2**63 - 1] * 16}), ""),
        ("negative-ids", dump({"prompt_ids": [-1] * 16}), ""),
        ("many-ids", lambda: '{"prompt_ids": [' + "1," * 5_000_000 + "1]}", ""),
        ("new-tokens", dump({"prompt_ids": [1] * 16, "max_new_tokens": 2**64 - 1}), ""),
        ("new-tokens-0", dump({"prompt_ids": [1] * 16, "max_new_tokens": 0}), ""),
        ("seed", dump({"prompt_ids": [1] * 16, "seed": 2**64}), ""),
        ("nul", "\0" * 1000, ""),
    ]
    while True:
        for name, lines, accept in rng.sample(fixed, len(fixed)):
            yield one(name, lines, accept)
            for _ in range(5):
                change = changed(rng, LINE)
                yield one(change.name, dump(change.document) + "\n", "a template decides what messages may hold")
            change = changed(rng, {"tools": LINE["tools"]})
            yield one(
                f"tools-{change.name}",
                sound,
                "a tool is described as its maker likes",
                dump(change.document.get("tools", [])) if isinstance(change.document, dict) else "[]",
            )


def prompts(rng, fixtures):
    """Files of ids, of text, of prompts; and what stands in their place."""
    options = {
        "--prompt-file": ["generate", "bundle", "--prompt-file", "file", "-n", "2", "--greedy", "-q"],
        "--prompts-file": ["generate", "bundle", "--prompts-file", "file", "-n", "2", "--greedy", "-q"],
        "--ids-file": ["score", "bundle", "--ids-file", "file", "-q"],
        "--text-file": ["score", "bundle", "--text-file", "file", "-q"],
        "--tools": [*CHAT, "--tools", "file"],
        "--weight-map": ["inspect", "ckpt", "--weight-map", "file"],
        "--logits": ["score", "bundle", "--ids", "1,2,3,4", "--logits", "file", "-q"],
        "--out": ["generate", "bundle", "--prompts-file", "in.jsonl", "-n", "2", "--greedy", "-q", "--out", "file"],
        "export -o": ["export", "ckpt", "-o", "file", "-q"],
        "synth -o": ["synth", "--preset", "tiny", "-o", "file", "-q"],
        "reduce -o": ["reduce", "bundle", "--graph", "coarse", "-o", "file", "-q", "--", "true"],
        "package -o": ["package", "bundle", "--for", "docker", "-o", "file", "-q"],
        "--plot": ["bench", "bundle", "--regime", "16/16", "--repetitions", "1", "-q", "--plot", "file"],
    }
    written = {"--logits", "--out", "export -o", "synth -o", "reduce -o", "package -o", "--plot"}
    contents = {
        "empty": b"",
        "nul": b"\0" * 1000,
        "nul-10MB": lambda: b"\0" * (10 << 20),
        "binary": bytes(range(256)) * 10,
        "no-space-10MB": lambda: b"x" * (10 << 20),
        "spaces-10MB": lambda: b" " * (10 << 20),
        "emoji-2MB": lambda: "🦀".encode() * 500_000,
        "ids-20MB": lambda: b"1 " * (10 << 20),
        "lines-10MB": lambda: b"1\n" * (5 << 20),
        "words": b"one two\n",
        "id-huge": b"9" * 100,
        "id-negative": b"-1,-2",
        "id-beyond": b"256",
        "escape": ESCAPE.encode(),
        "bidi": "\u202e1".encode(),
        "commas": b"," * 100_000,
        "mark": b"\xef\xbb\xbf1,2,3",
        "half-character": b"caf\xc3",
        "json": b"{}",
        "tool-list": b"[{}]",
        "ids": b"1,2,3,4\n",
    }
    cases = [(option, "kind", what) for option in options for what in files.KINDS] + [
        (option, "content", what) for option in options if option not in written for what in contents
    ]
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

            # A pipe that nobody writes to, or reads, is the caller's to end: whoever names one waits for it. So does
            # whoever has a text of millions of tokens scored.
            if what == "pipe" or (option in ("--text-file", "--ids-file") and what.endswith("MB")):
                continue
            accept = "a user may name any file to read or write"
            if how == "kind" and option not in written and what in ("missing", "folder", "socket", "dangling", "loop"):
                accept = ""
            if (
                option in ("export -o", "synth -o", "package -o")
                and how == "kind"
                and what not in ("missing", "folder", "dangling")
            ):
                accept = ""
            made = Input(
                "prompts",
                f"{option}-{what}",
                make,
                [options[option]],
                ("file", "/dev/", "prompt", "text", "tokens", "ids"),
                accept,
                prints_text=True,
            )
            yield made
