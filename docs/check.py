#!/usr/bin/env python3
"""Checks the documentation without building anything; needs Python's standard library alone (3.10 or newer).

    docs/check.py             what `photonc COMMAND --help` says is read from the snapshots that tests/cli.rs compares
    docs/check.py PHOTONC     the program PHOTONC is asked itself

Links lead somewhere, anchors as GitHub and mdBook make them. Every page of docs is in SUMMARY.md. Prose has at most
120 columns. Commands and options that pages name exist. Quoted output is in the file that it names, quoted messages
are in the sources, and drawings and lists are what their scripts make. Words that we replaced by the field's own do
not come back. Prints `file:line: reason` for everything that is not
so; exit code 1 then.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SUMMARY = DOCS / "SUMMARY.md"
MOST_COLUMNS = 120
# Code blocks in which commands are looked for, by the word behind the fence.
SHELL = {"", "sh", "bash", "shell", "console"}
# What may stand before a command in its line: a prompt, the end of another command, `--`, variables.
COMMAND = re.compile(r"(?:^|[|&;(]|\b(?:do|then)\b|(?<= )--(?= ))\s*(?:\$ )?(?:\w+=\S* )*photonc[ \t]+(?=\S)")
# A page whose headings are messages of the program, each in a code span.
MESSAGES = DOCS / "troubleshooting.md"
# What follows in a quoted file is the output below this comment: <!-- excerpt: PATH -->
EXCERPT = re.compile(r"<!-- excerpt: (\S+) -->")
# Words of our own that the field's replaced, with those to write.
WORDS = {
    r"(?<!a )few rows|(?<!as )(?<!so )many rows": "a small batch, a large batch",
    r"few bits": "quantized weights",
    r"pretends?|pretenders?": "fake, mock",
    r"ceilings?": "roofline",
    r"allowance": "optimization fuel",
    r"heeds?": "respects",
    r"NotKept": "a cache miss",
}
# Logs tell what was done in the words of their day.
LOGS = {DOCS / "performance.md", DOCS / "persistent-kernel.md"}
LINK = re.compile(
    r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]"
    r"\(\s*<?([^()\s<>]*(?:\([^()\s]*\)[^()\s]*)?)>?(?:\s+\"[^\"]*\")?\s*\)"
)
REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s+<?(\S+?)>?\s*$", re.MULTILINE)
HTML_LINK = re.compile(r"<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=\"([^\"]+)\"")
CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)

problems = []
counts = {"links": 0, "commands": 0, "quotes": 0}


def report(page, line, reason):
    problems.append((page.relative_to(ROOT).as_posix(), line, reason))


class Page:
    """A page, its fenced blocks apart from its prose."""

    def __init__(self, path):
        self.path = path
        self.lines = path.read_text(encoding="utf-8").split("\n")
        self.fences = []  # (line of the first line inside, word behind the fence, lines inside)
        prose, fence, inside = [], None, []
        for number, line in enumerate(self.lines, 1):
            opens = re.match(r"\s*(?:[-*]\s+)?(`{3,}|~{3,})\s*([\w+-]*)", line)
            if fence is None and opens:
                fence, word, start, inside = opens[1], opens[2], number + 1, []
            elif fence is not None and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                self.fences.append((start, word, inside))
                fence = None
            elif fence is not None:
                inside.append(line)
            else:
                prose.append(line)
                continue
            prose.append("")
        if fence is not None:
            report(path, start, "a code block that does not end")
        self.prose = prose
        # HTML comments are for programs.
        hidden = re.sub(r"<!--.*?-->", blank, "\n".join(prose), flags=re.DOTALL)
        self.spans = [(line_of(hidden, span.start()), span[2]) for span in CODE_SPAN.finditer(hidden)]
        self.text = CODE_SPAN.sub(blank, hidden)

    def anchors(self):
        """The anchors of the headings as GitHub and as mdBook make them."""
        github, mdbook = set(), set()
        for line in self.prose:
            heading = re.match(r"#{1,6}\s+(.*?)\s*#*\s*$", line)
            if not heading:
                continue
            words = re.sub(r"!?\[([^\[\]]*)\]\([^()]*\)", r"\1", heading[1])
            words = re.sub(r"(?<!\w)([*_]{1,2})(\S(?:.*?\S)?)\1(?!\w)", r"\2", words).replace("`", "")
            once(github, re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-"))
            kept = (letter for letter in words if letter.isalnum() or letter in "_-" or letter.isspace())
            once(mdbook, "".join("-" if letter.isspace() else letter.lower() for letter in kept))
        named = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", "\n".join(self.prose)))
        return github | named, mdbook | named


def blank(found):
    """As many blanks, so that places stay."""
    return re.sub(r"[^\n]", " ", found[0])


def once(anchors, anchor):
    """Headings of one name are numbered."""
    numbered, number = anchor, 0
    while numbered in anchors:
        number += 1
        numbered = f"{anchor}-{number}"
    anchors.add(numbered)


def line_of(text, place):
    return text.count("\n", 0, place) + 1


def check_links(page, pages):
    found = [found for pattern in (LINK, REFERENCE, HTML_LINK) for found in pattern.finditer(page.text)]
    for link in found:
        target, line = link[1], line_of(page.text, link.start(1))
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        counts["links"] += 1
        name, _, anchor = target.partition("#")
        path = (page.path.parent / name).resolve() if name else page.path
        if not path.is_relative_to(ROOT):
            report(page.path, line, f"`{target}` leads out of the repository")
        elif not path.exists():
            report(page.path, line, f"`{target}` leads nowhere")
        elif DOCS in page.path.parents and path.parent == DOCS and path.name == "README.md":
            report(page.path, line, f"`{target}`: mdBook makes an index of a README.md, name another page")
        elif anchor:
            at = pages.get(path) or (Page(path) if path.suffix == ".md" else None)
            github, mdbook = at.anchors() if at else (set(), set())
            if anchor not in github:
                report(page.path, line, f"`{target}`: no heading of {path.relative_to(ROOT)} has this anchor")
            elif DOCS in page.path.parents and DOCS in path.parents and anchor not in mdbook:
                report(page.path, line, f"`{target}`: mdBook makes another anchor of this heading")


def check_summary(pages):
    listed = {}
    for link in LINK.finditer(pages[SUMMARY].text):
        path = (DOCS / link[1]).resolve()
        line = line_of(pages[SUMMARY].text, link.start(1))
        if path in listed:
            report(SUMMARY, line, f"`{link[1]}` is listed twice")
        if not path.is_relative_to(DOCS):
            report(SUMMARY, line, f"`{link[1]}` is not in docs, where mdBook looks")
        listed[path] = line
    for path in sorted(DOCS.rglob("*.md")):
        if path != SUMMARY and path not in listed:
            report(path, 1, "is not in docs/SUMMARY.md")


def check_columns(page):
    for number, line in enumerate(page.prose, 1):
        if line.lstrip().startswith(("|", "#")):
            continue
        shown = re.sub(r"\]\([^()\s]*\)", "]", line)
        shown = re.sub(r"https?://\S+", "", shown)
        if len(shown) > MOST_COLUMNS:
            report(page.path, number, f"{len(shown)} columns of prose, at most {MOST_COLUMNS}")


def check_words(page):
    if page.path in LOGS:
        return
    for word, instead in WORDS.items():
        for found in re.finditer(rf"\b(?:{word})\b", page.text, re.IGNORECASE):
            report(page.path, line_of(page.text, found.start()), f"`{found[0]}`: write {instead}")


def helps(program):
    """Options of every command: of the program, or of the snapshots of its help."""

    def text(name):
        if program is None:
            return (ROOT / f"tests/snapshots/cli__{name}.snap").read_text(encoding="utf-8")
        command = [program, *name.split("_")[1:], "--help"]
        environment = {**os.environ, "COLUMNS": "100"}
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"{shlex.join(command)}: {error}")

    listed = text("help").split("Commands:\n")[1].split("\n\n")[0]
    commands = re.findall(r"^  ([a-z]+)\s", listed, re.MULTILINE)
    options = {name: options_in(text(f"help_{name}")) for name in commands if name != "help"}
    return {**options, "": options_in(text("help")), "help": set()}


def options_in(text):
    options = {"-h", "--help"}
    for line in text.split("\n"):
        named = re.match(r"\s+(-\w, )?(--[\w-]+|-\w)\b", line)
        if named:
            options |= {named[2], *(named[1] or "").strip(", ").split()}
        aliases = re.search(r"\[alias(?:es)?: ([^\]]+)\]", line)
        options |= set(aliases[1].split(", ")) if aliases else set()
    return options


def whole_lines(start, lines):
    """Lines with their numbers, without comments; one that ends in a backslash goes on in the next."""
    found, goes_on = [], False
    for number, line in enumerate(lines, start):
        own = re.sub(r"(?:^|(?<=\s))#(?=\s).*", "", line).rstrip()
        if goes_on:
            found[-1] = (found[-1][0], f"{found[-1][1]} {own.strip().removesuffix(chr(92))}")
        else:
            found.append((number, own.removesuffix(chr(92))))
        goes_on = own.endswith(chr(92))
    return found


def commands_in(text):
    """The words behind each `photonc` of a command line: its own, not those of what it is piped to or starts."""
    for call in COMMAND.finditer(text):
        try:
            lexer = shlex.shlex(text[call.end() :], posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words = list(lexer)
        except ValueError:
            words = text[call.end() :].split()
        ends = [at for at, word in enumerate(words) if re.fullmatch(r"[|&;<>()]+|--", word)]
        yield words[: min(ends, default=len(words))]


def check_commands(page, known):
    places = [(line, " ".join(span.split())) for line, span in page.spans]
    for start, word, inside in page.fences:
        if word in SHELL:
            places += whole_lines(start, inside)
    for line, text in places:
        for words in commands_in(text):
            own = [at for at, word in enumerate(words) if not word.startswith("-")]
            name = words[own[0]] if own else ""
            if re.fullmatch(r"[A-Z]+|\.+|\W.*", name):
                continue  # Any command: `photonc COMMAND --help`, `photonc .. --json`.
            counts["commands"] += 1
            if name not in known:
                report(page.path, line, f"`photonc {name}`: there is no such command")
                continue
            for word in words:
                option = word.split("=")[0]
                if re.fullmatch(r"-[A-Za-z].*", option):
                    option = option[:2]
                elif not re.fullmatch(r"--[a-z][\w-]*", option):
                    continue
                if option not in known[name] | known[""]:
                    report(page.path, line, f"`photonc {name}` has no option `{option}`")


def check_excerpts(page):
    """A block behind <!-- excerpt: PATH --> holds lines of that file in their order; `..` stands for others."""
    named = {number: found[1] for number, line in enumerate(page.lines, 1) if (found := EXCERPT.search(line))}
    for start, _, inside in page.fences:
        source = next((named[line] for line in (start - 2, start - 3) if line in named), None)
        if source is None:
            continue
        counts["quotes"] += 1
        if not (ROOT / source).is_file():
            report(page.path, start, f"{source} is not there")
            continue
        lines, at, runs_on = (ROOT / source).read_text(encoding="utf-8").split("\n"), 0, False
        for number, line in enumerate(inside, start):
            if line.strip() == "..":
                runs_on = False
                continue
            within = lines[at : at + 1] if runs_on else lines[at:]
            if line not in within:
                report(page.path, number, f"{source} has no such line there: {line.strip()}")
                break
            at, runs_on = lines.index(line, at) + 1, True


def check_messages(page):
    """Each heading of the third level is a message, whose parts between `..` the sources have."""
    if page.path != MESSAGES:
        return
    sources = [path for folder in ("src", "crates") for path in sorted((ROOT / folder).rglob("*.rs"))]
    # A text that goes on in the next line.
    said = re.sub(r"\\\n\s*", "", "\n".join(path.read_text(encoding="utf-8") for path in sources))
    said = said.replace('\\"', '"')
    for number, line in enumerate(page.prose, 1):
        if not (heading := re.match(r"### `+(.*?)`+\s*$", line)):
            continue
        counts["quotes"] += 1
        for part in re.split(r"\s*\.\.\s*", heading[1].strip()):
            if part and part not in said:
                report(page.path, number, f"no message of the program says `{part}`")


def module_at(path):
    module = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location(path.stem, path))
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    spec.loader.exec_module(module)
    sys.dont_write_bytecode = written
    return module


def check_made():
    """Drawings and lists are what their scripts make of their sources now."""
    drawings, reference = DOCS / "images/photon.py", DOCS / "reference.py"
    for script, made in (
        (drawings, module_at(drawings).drawings()),
        (reference, module_at(reference).pages()),
    ):
        for name, expected in made.items():
            path = script.parent / name
            found = path.read_text(encoding="utf-8") if path.is_file() else ""
            if found != expected:
                report(script, 1, f"{path.relative_to(ROOT)} is not what this script makes; run it")


def main(arguments):
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        print(__doc__.strip())
        return 2 if len(arguments) > 1 else 0
    root = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md"]
    named = [*(ROOT / name for name in root), *(ROOT / ".github").rglob("*.md"), *DOCS.rglob("*.md")]
    pages = {path: Page(path) for path in sorted(named)}
    known = helps(arguments[0] if arguments else None)
    check_summary(pages)
    check_made()
    for page in pages.values():
        check_links(page, pages)
        check_columns(page)
        check_words(page)
        check_commands(page, known)
        check_excerpts(page)
        check_messages(page)
    for place, line, reason in sorted(problems):
        print(f"{place}:{line}: {reason}")
    told = ", ".join(f"{count} {what}" for what, count in counts.items())
    print(f"{len(pages)} pages, {told}: {len(problems) or 'no'} problems", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
