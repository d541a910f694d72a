#!/usr/bin/env python3
"""The same inputs and options give the same bytes, whatever surrounds a run: names of folders, language, time zone,
umask, threads, the working folder, how a path is written, the order in which files were made.

    tests/faults/reproducible.py PHOTONC [--full] [--keep FOLDER]

Without --full, runs in which everything differs at once; with it, one thing after the other as well. Modes of what is
written are those that the umask gives. Exit code 1 where anything differs; the difference is named."""

import argparse
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from commands import IDS, ROOT, negated

LONG = "n" * 200
NAMES = ["a blank", "ünïcode 日本 \U0001f980", "-dash", "new\nline", "%s {0} $HOME 'quoted\"", "dots..and.", LONG]
LOCALES = ["C", "de_DE.UTF-8", "tr_TR.ISO-8859-9", "ar_EG.UTF-8", "nonsense"]
ZONES = ["UTC", "Asia/Kolkata", "America/St_Johns", ":/nowhere", "XXX-14:59:59"]
UMASKS = [0o022, 0o077, 0o000, 0o027]
THREADS = ["1", "2", "7"]
PLACES = ["beside", "root", "inside"]
STYLES = ["absolute", "relative", "roundabout", "link"]
PLAIN = dict(name="plain", locale="C", zone="UTC", umask=0o022, threads="2", place="beside", style="absolute")

# Each writes what is named first; `{m}`, `{n}` are checkpoints, `{p}` is a file of prompts.
STEPS = [
    ("synth", "synth --preset tiny --layers 1 --seed 3 --dtype bf16 -o {synth}"),
    ("export", "export {m} -o {export}"),
    ("quantised", "export {m} -o {quantised} --quant level1.decoder=int8 --target cuda --protocol recgen"),
    ("refit", "export {n} -o {refit} --protocol hiergen -O 0; refit {refit} --weights {m}"),
    ("lines", "generate {export} --prompts-file {p} -n 8 --out {lines}"),
    ("logits", f"score {{export}} --ids {IDS} --logits {{logits}}"),
    ("package", "package {export} --for docker --served-model-name model -o {package}"),
]


def several():
    """Surroundings in which everything differs at once."""
    for at in range(4):
        yield dict(
            name=NAMES[at + 1],
            locale=LOCALES[at + 1],
            zone=ZONES[at + 1],
            umask=UMASKS[at],
            threads=THREADS[at % 3],
            place=PLACES[at % 3],
            style=STYLES[at],
        )


def singly():
    """Surroundings in which one thing differs."""
    lists = dict(name=NAMES, locale=LOCALES, zone=ZONES, umask=UMASKS, threads=THREADS, place=PLACES, style=STYLES)
    for key, values in lists.items():
        yield from ({**PLAIN, key: value} for value in values if value != PLAIN[key])


class World:
    """A folder in which the steps run with one kind of surroundings."""

    def __init__(self, program, folder, around):
        self.program, self.around = program, around
        self.folder = folder / around["name"]
        self.folder.mkdir()
        self.home = folder / "home"
        self.home.mkdir(exist_ok=True)
        self._inputs()

    def _inputs(self):
        """The same files in every world, made in another order where the world is not the plain one."""
        for name in ("m", "n"):
            (self.folder / name).mkdir()
            files = ["config.json", "model.safetensors"]
            for file in files if self.around == PLAIN else reversed(files):
                shutil.copyfile(ROOT / "examples/paper-golden" / file, self.folder / name / file)
        negated(self.folder / "n/model.safetensors")
        line = '{"prompt_ids": [0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15], "seed": %d}\n'
        (self.folder / "p").write_text("".join(line % seed for seed in range(4)))
        (self.folder / "link").symlink_to(".")

    @property
    def cwd(self):
        return {"beside": self.folder, "root": Path("/"), "inside": self.folder / "m"}[self.around["place"]]

    def path(self, name):
        """A path of the world as the style writes it."""
        straight = self.folder / name
        relative = os.path.relpath(straight, self.cwd)
        return {
            "absolute": str(straight),
            # A name that begins with a dash is no option.
            "relative": relative if relative[0] != "-" else f"./{relative}",
            "roundabout": f"{self.folder}/m/..//./{name}",
            "link": str(self.folder / "link" / name),
        }[self.around["style"]]

    def run(self, step):
        """Runs a step; returns why it failed."""
        names = {name: name for name in ("m", "n", "p", *(name for name, _ in STEPS))}
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": self.around["locale"],
            "LC_ALL": self.around["locale"],
            "TZ": self.around["zone"],
            "RAYON_NUM_THREADS": self.around["threads"],
        }
        for command in step.split("; "):
            words = [
                self.path(word[1:-1]) if word[1:-1] in names and word[0] == "{" else word for word in command.split()
            ]
            done = subprocess.run(
                [str(self.program), *words, "-q"],
                cwd=self.cwd,
                env=env,
                umask=self.around["umask"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            if done.returncode:
                return f"exit code {done.returncode}: {' '.join(done.stderr.decode(errors='replace').split())}"
        return None

    def written(self, name):
        """Bytes and modes of what a step wrote, by relative path."""
        top = self.folder / name
        paths = [top, *sorted(top.rglob("*"))] if top.is_dir() else [top]
        return {
            os.path.relpath(path, top): (
                None if path.is_dir() else path.read_bytes(),
                stat.S_IMODE(path.stat().st_mode),
            )
            for path in paths
        }


def differences(name, world, expected):
    found = world.written(name)
    for path in sorted(expected.keys() | found.keys()):
        if path not in found or path not in expected:
            yield f"{name}/{path} is {'missing' if path in expected else 'more'}"
            continue
        contents, mode = found[path]
        if contents != expected[path][0]:
            yield f"{name}/{path} has other bytes"
        wanted = (0o777 if contents is None else 0o666) & ~world.around["umask"]
        if mode != wanted:
            yield f"{name}/{path} has mode {mode:o}, expected {wanted:o}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for the worlds, which must not be there")
    options = parser.parse_args()
    program, began, wrong = options.program.resolve(), time.monotonic(), 0
    arounds = [PLAIN, *several(), *(singly() if options.full else ())]
    with tempfile.TemporaryDirectory(prefix="photonc-bytes-") as work:
        work = Path(work).resolve()
        expected = {}
        for number, around in enumerate(arounds):
            (work / str(number)).mkdir()
            world = World(program, work / str(number), around)
            shown = {key: value for key, value in around.items() if value != PLAIN[key]} or "plain"
            for name, step in STEPS:
                failed = world.run(step)
                found = (
                    [failed]
                    if failed
                    else list(differences(name, world, expected.setdefault(name, world.written(name))))
                )
                wrong += len(found)
                for difference in found:
                    print(f"{name}, {shown}: {difference}", flush=True)
            if not options.keep:
                shutil.rmtree(work / str(number))
        if options.keep:
            shutil.copytree(work, options.keep, symlinks=True)
    seconds = time.monotonic() - began
    print(f"{len(STEPS)} commands in {len(arounds)} surroundings, {seconds:.0f} s; {wrong} differences")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
