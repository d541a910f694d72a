"""Fetches public-domain English from Debian packages and splits it into documents.

Owns: which packages and versions are read, how each container is opened, the cleaning, and the held-out documents.
Refuses: a package of another version than the pinned one, unless `--any-version` says so.

    python3 examples/train/corpus.py --out DIR      # DIR/train/*.txt and DIR/heldout/*.txt
"""

import argparse
import gzip
import pathlib
import re
import struct
import subprocess
import zlib

# Package -> version. Licences are in DATA.md: every text below is in the public domain.
PACKAGES = {
    "r-cran-janeaustenr": "1.0.0-1",
    "bible-kjv": "4.38",
    "bible-kjv-text": "4.38",
    "sword-text-web": "426.0-1",
    "golang-1.19-src": "1.19.8-2",
    "golang-github-klauspost-compress-dev": "1.15.12+ds1-3",
}

# Never trained on. The same Bible books are held out of both translations: they are near copies of each other.
HELD_OUT_BOOKS = {"Ruth", "Esther", "Acts"}
HELD_OUT_NOVELS = {"northangerabbey"}

# Names of the books in the order of the King James program, as it abbreviates the first verse of each.
KJV_BOOKS = (
    "Gen Exod Lev Num Deut Josh Judg Ruth 1Sam 2Sam 1Kgs 2Kgs 1Chr 2Chr Ezra Neh Esther Job Ps Prov Eccl Song Isa Jer "
    "Lam Ezek Dan Hos Joel Amos Obad Jonah Mic Nah Hab Zeph Hag Zech Mal Matt Mark Luke John Acts Rom 1Cor 2Cor Gal Eph "
    "Phil Col 1Thess 2Thess 1Tim 2Tim Titus Phlm Heb Jas 1Pet 2Pet 1John 2John 3John Jude Rev"
).split()
# The World English Bible names one held-out book differently in its Greek form.
WEB_ALIASES = {"Esth": "Esther", "AddEsth": "Esther", "EsthGr": "Esther"}


def fetch(work, any_version):
    """Downloads and unpacks every package below `work`, once."""
    for name, version in PACKAGES.items():
        root = work / name
        if root.exists():
            continue
        wanted = name if any_version else f"{name}={version}"
        subprocess.run(["apt-get", "download", "-q", wanted], cwd=work, check=True)
        (deb,) = work.glob(f"{name}_*.deb")
        subprocess.run(["dpkg-deb", "-x", deb, root], check=True)
        deb.unlink()


def plain(text):
    """ASCII quotes and dashes, single spaces, one paragraph a line."""
    table = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "--", "\u2026": "...",
             "\u00a0": " ", "\u00e9": "e", "\u00e8": "e", "\u00e6": "ae", "\u00c6": "Ae", "\u00ef": "i", "\u00ea": "e"}
    text = text.translate(str.maketrans(table)).encode("ascii", "ignore").decode()
    text = text.replace("_", "")
    paragraphs = (re.sub(r"\s+", " ", p).strip() for p in text.split("\n\n"))
    return "\n".join(p for p in paragraphs if p) + "\n"


def austen(root):
    """The six novels: character vectors of lines in an R lazy-load database."""
    data = root / "usr/lib/R/site-library/janeaustenr/data"
    index = gzip.decompress((data / "Rdata.rdx").read_bytes())
    raw = (data / "Rdata.rdb").read_bytes()
    # The index holds name/(offset, length) pairs; names come in the order of their values.
    names = re.findall(rb"(emma|mansfieldpark|northangerabbey|persuasion|prideprejudice|sensesensibility)", index)
    names = list(dict.fromkeys(n.decode() for n in names))
    titles = {"EMMA": "emma", "MANSFIELD": "mansfieldpark", "NORTHANGER": "northangerabbey", "PERSUASION": "persuasion",
              "PRIDE": "prideprejudice", "SENSE": "sensesensibility"}
    assert len(names) == 6, names
    at = 0
    while at < len(raw):
        inflate = zlib.decompressobj()
        vector = inflate.decompress(raw[at + 4 :])
        at = len(raw) - len(inflate.unused_data)
        lines = r_strings(vector)
        if len(lines) < 1000:
            continue
        first = next(line for line in lines if line.strip())
        yield titles[first.split()[0].upper().strip(",")], plain("\n".join(lines))


def r_strings(vector):
    """The strings of one serialised R character vector (XDR, type 16 of elements of type 9)."""
    at = 14 if vector[:2] == b"X\n" else 0
    if struct.unpack_from(">i", vector, 2)[0] >= 3:
        at += 4 + struct.unpack_from(">i", vector, at)[0]
    flags, count = struct.unpack_from(">ii", vector, at)
    if flags & 0xFF != 16:
        return []
    at, out = at + 8, []
    for _ in range(count):
        size = struct.unpack_from(">i", vector, at + 4)[0]
        at += 8
        out.append("" if size < 0 else vector[at : at + size].decode("utf-8", "replace"))
        at += max(size, 0)
    return out


def king_james(root, program):
    """One text a book, a paragraph a chapter, verse numbers removed."""
    text = subprocess.run(
        [program / "usr/bin/bible", "-p", root / "usr/lib", "-f", "gen1:1-rev22:21"],
        check=True, capture_output=True, stdin=subprocess.DEVNULL,
    ).stdout.decode("latin-1")
    books, chapter_of = [], None
    for line in text.splitlines():
        verse = re.match(r"\s*([1-3]?[A-Za-z]+)\s*(\d+):\d+ +(.*)", line)
        if not verse:
            continue
        book, chapter, words = verse.groups()
        if not books or books[-1][0] != book:
            books.append((book, []))
        if chapter_of != (book, chapter):
            books[-1][1].append([])
            chapter_of = (book, chapter)
        books[-1][1][-1].append(words)
    assert len(books) == 66, [b for b, _ in books]
    for name, (_, chapters) in zip(KJV_BOOKS, books):
        yield name, plain("\n\n".join(" ".join(c) for c in chapters).translate(str.maketrans("", "", "[]<>")))


def world_english(root):
    """One text a book from the compressed OSIS of a SWORD module; notes and headings removed."""
    module = next((root / "usr/share/sword/modules/texts/ztext").iterdir())
    osis = ""
    for part in ("ot", "nt"):
        index = (module / f"{part}.bzs").read_bytes()
        packed = (module / f"{part}.bzz").read_bytes()
        for offset, size, _ in struct.iter_unpack("<III", index):
            if size:
                osis += zlib.decompress(packed[offset : offset + size]).decode("utf-8", "replace")
    osis = re.sub(r"<note\b.*?</note>|<title\b.*?</title>", "", osis, flags=re.S)
    osis = re.sub(r"\s*\n\s*", " ", osis)
    osis = re.sub(r'<div eID="[^"]*" type="x-p"/>|<chapter\b[^>]*sID=[^>]*>', "\n\n", osis)
    parts = re.split(r'<div canonical="true" osisID="([^"]+)"[^>]*type="book"/>', osis)
    for name, body in zip(parts[1::2], parts[2::2]):
        # A line of poetry, a cell of a table and some words end with a tag, not a space.
        text = re.sub(r"</w>(?=<w\b)|</divineName>(?=\w)", " ", body)
        text = re.sub(r"</?(?:l|lg|cell|row|q)\b[^>]*>", " ", text)
        text = re.sub(r"<[^>]*>", "", text).replace("&amp;", "&").replace("&lt;", "").replace("&gt;", "")
        if len(text) > 1000:
            yield WEB_ALIASES.get(name, name), plain(text)


def documents(work):
    """Every document as (source, name, text, held out)."""
    for name, text in austen(work / "r-cran-janeaustenr"):
        yield "austen", name, text, name in HELD_OUT_NOVELS
    for name, text in king_james(work / "bible-kjv-text", work / "bible-kjv"):
        yield "kjv", name, text, name in HELD_OUT_BOOKS
    for name, text in world_english(work / "sword-text-web"):
        yield "web", name, text, name in HELD_OUT_BOOKS
    opticks = work / "golang-1.19-src/usr/share/go-1.19/src/testdata/Isaac.Newton-Opticks.txt"
    yield "newton", "opticks", plain(between_markers(opticks)), False
    sawyer = next(work.glob("golang-github-klauspost-compress-dev/**/testdata/Mark.Twain-Tom.Sawyer.txt"))
    yield "twain", "tomsawyer", plain(between_markers(sawyer)), False


def between_markers(path):
    """The work itself, without the header and the licence of its electronic edition."""
    text = path.read_text("utf-8", "replace").replace("\r", "")
    start = re.search(r"\*\*\* ?START OF.*?\n|\*END.*?\n", text)
    end = re.search(r"\*\*\* ?END OF|End of (?:the )?Project Gutenberg", text)
    text = text[start.end() if start else 0 : end.start() if end else len(text)]
    return re.sub(r"\n\s*Produced by.*?\n\n", "\n\n", "\n" + text, count=1, flags=re.S)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--any-version", action="store_true", help="take the versions that this system offers")
    args = parser.parse_args()
    work = args.out / "packages"
    work.mkdir(parents=True, exist_ok=True)
    fetch(work, args.any_version)
    totals = {}
    for source, name, text, held_out in documents(work):
        part = "heldout" if held_out else "train"
        folder = args.out / part
        folder.mkdir(exist_ok=True)
        (folder / f"{source}-{name.lower()}.txt").write_text(text)
        totals[source, part] = totals.get((source, part), 0) + len(text)
    for (source, part), size in sorted(totals.items()):
        print(f"{source:8} {part:8} {size:>10} bytes")


if __name__ == "__main__":
    main()
