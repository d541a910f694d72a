"""The commands that write, each with what stands at its target before, and what may stand there after a fault."""

import json
import shutil
import struct
import subprocess
from pathlib import Path

from tracing import environment

ROOT = Path(__file__).resolve().parents[2]
IDS = ",".join(map(str, range(16)))

# How a result appears: at once, line by line, in its own file, or on standard output.
WHOLE, LINES, OVER, PRINTED = "whole", "lines", "over", "printed"


class Case:
    """A command: `arguments`, where `IN` and `OUT` stand for the folders of inputs and outputs, writes `target` in OUT,
    over `old` in IN if there is one. `again` is what the next run is given besides."""

    def __init__(self, name, target, arguments, how=WHOLE, old=None, again=(), cwd=None, hint=None):
        self.name, self.target, self.arguments, self.how = name, target, arguments.split(), how
        self.old, self.again, self.cwd, self.hint = old, list(again), cwd, hint or target

    def command(self, program, inputs, out):
        paths = {"IN": str(inputs), "OUT": str(out)}
        words = [word.split("/", 1) for word in self.arguments]
        return [str(program)] + ["/".join([paths.get(first, first), *rest]) for first, *rest in words]

    def prepare(self, inputs, out):
        """Makes `out` as it is before a run."""
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        if self.old:
            source = inputs / self.old
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, out / self.target)
        if self.how == OVER:
            (out / "link").hardlink_to(out / self.target)

    @property
    def beside(self):
        """Names in OUT after a run that left nothing behind."""
        return {self.target} | ({"link"} if self.how == OVER else set())


FORCE = ["--force"]
# Compiling is not what is tried: one protocol, and no more passes than there must be.
EXPORT = "--protocol recgen -O 0 --target cpu -q"
PORTABLE = EXPORT.replace("cpu", "portable")
GENERATE = "-n 4 --prompts-file IN/prompts.jsonl --batch 1"
SCORE = f"score IN/b --ids {IDS} --logits OUT/logits -q"

CASES = [
    Case("export", "b", f"export IN/m -o OUT/b {EXPORT}", again=FORCE),
    Case("export over", "b", f"export IN/m -o OUT/b {EXPORT} --force", old="other"),
    # The folder that the user is in cannot be exchanged: it is emptied and filled.
    Case("export here", "b", f"export IN/m -o OUT/b {EXPORT} --force", old="other", cwd="b"),
    Case("export quantised", "b", f"export IN/m -o OUT/b {EXPORT} --quant level1.decoder=int8", again=FORCE),
    Case("export models", "b", f"export IN/m -o OUT/b {PORTABLE}", again=FORCE),
    Case("refit", "b", "refit OUT/b --weights IN/m -q", old="other"),
    Case("synth", "m", "synth --preset tiny --layers 1 -o OUT/m -q", again=FORCE),
    Case("synth over", "m", "synth --preset tiny --layers 1 -o OUT/m -q --force", old="synth"),
    Case("package", "k", "package IN/b --for docker -o OUT/k -q", again=FORCE),
    Case("package over", "k", "package IN/b --for docker -o OUT/k -q --force", old="package"),
    Case("generate", "lines", f"generate IN/b {GENERATE} --out OUT/lines -q", how=LINES),
    Case("generate on", "lines", f"generate IN/b {GENERATE} --out OUT/lines -q", how=LINES, old="half"),
    Case("score", "logits", SCORE),
    Case("score over", "logits", SCORE, old="logits"),
    # A file of two names stays one, so it is written over where it stands.
    Case("score linked", "logits", SCORE, how=OVER, old="logits"),
    Case(
        "generate printed", "printed", f"generate IN/b {GENERATE} -q", how=PRINTED, hint="result could not be printed"
    ),
    Case("report printed", "printed", "inspect IN/b --format html -q", how=PRINTED, hint="result could not be printed"),
]


class Inputs:
    """What the commands read and write over, made once by the program itself from the golden checkpoint `m`."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        folder.mkdir()
        shutil.copytree(ROOT / "examples/paper-golden", folder / "m")
        shutil.copytree(folder / "m", folder / "n")
        negated(folder / "n/model.safetensors")
        ids = list(range(16))
        lines = [json.dumps({"prompt_ids": ids, "seed": seed}) + "\n" for seed in range(3)]
        (folder / "prompts.jsonl").write_text("".join(lines))
        self._call("export", "m", "-o", "b", *EXPORT.split())
        self._call("export", "n", "-o", "other", *EXPORT.split())
        self._call("synth", "--preset", "tiny", "--layers", "1", "--seed", "1", "-o", "synth")
        self._call("package", "other", "--for", "docker", "-o", "package")
        self._call("score", "other", "--ids", IDS, "--logits", "logits")
        words = [word.replace("IN/", "") for word in GENERATE.split()]
        self._call("generate", "b", *words, "--out", "half")
        whole = (folder / "half").read_bytes()
        # As a kill leaves it.
        (folder / "half").write_bytes(whole[: len(whole) // 2])

    def _call(self, *arguments):
        home = self.folder.parent
        with open(home / "setup", "w+b") as told:
            done = subprocess.run(
                [str(self.program), *arguments],
                cwd=self.folder,
                env=environment(home),
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=subprocess.STDOUT,
            )
            told.seek(0)
            if done.returncode:
                raise SystemExit(
                    f"`{' '.join(arguments)}` fails without a fault:\n{told.read().decode(errors='replace')}"
                )


def negated(path):
    """Turns the sign of every weight of a safetensors file of f32."""
    data = bytearray(path.read_bytes())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    data[start + 3 :: 4] = bytes(byte ^ 0x80 for byte in data[start + 3 :: 4])
    path.write_bytes(data)


def contents(path):
    """What stands at a path: bytes, or a folder's contents by relative path; `None` where nothing does."""
    if path.is_dir():
        return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
    return path.read_bytes() if path.exists() else None
