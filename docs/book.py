#!/usr/bin/env python3
"""What book.toml has mdBook run on every chapter. In the repository a link such as `../SECURITY.md` leads to a file
beside `docs`; the book has no such page, so there the link leads to the repository that book.toml names.

    docs/book.py supports RENDERER       exit code 0: any renderer will do
    docs/book.py < INPUT > OUTPUT        [context, book] as JSON, as mdBook hands it over; the book, its links changed
"""

import json
import posixpath
import re
import sys

LINK = re.compile(r"(?P<start>\]\(|\]:\s+)(?P<target>\.\./[^()\s]*)")


def outside(text, folder, repository):
    """A chapter whose page is in `folder` of docs, with its links out of docs leading to the repository."""

    def changed(link):
        path, hash_mark, anchor = link["target"].partition("#")
        place = posixpath.normpath(posixpath.join("docs", folder, path))
        if place == "docs" or place.startswith("docs/") or place.startswith(".."):
            return link[0]
        kind = "blob" if "." in posixpath.basename(place) else "tree"
        return f"{link['start']}{repository}/{kind}/main/{place}{hash_mark}{anchor}"

    # Code blocks stay as they are.
    parts = re.split(r"(^[ \t]*(`{3,}|~{3,}).*?^[ \t]*\2[ \t]*$)", text, flags=re.MULTILINE | re.DOTALL)
    # A split with two groups yields prose, block, fence, prose, ..
    return "".join(LINK.sub(changed, part) if at % 3 == 0 else part for at, part in enumerate(parts) if at % 3 != 2)


def walk(items, repository):
    """Changes every chapter below, whatever the version of mdBook calls their list."""
    for item in items:
        chapter = item.get("Chapter") if isinstance(item, dict) else None
        if chapter:
            folder = posixpath.dirname(chapter.get("source_path") or chapter.get("path") or "")
            chapter["content"] = outside(chapter["content"], folder, repository)
            walk(chapter.get("sub_items") or [], repository)


def main(arguments):
    if arguments[:1] == ["supports"]:
        return 0
    if arguments:
        print(__doc__.strip())
        return 2
    context, book = json.load(sys.stdin)
    html = context["config"].get("output", {}).get("html", {})
    walk(book.get("items") or book.get("sections") or [], html["git-repository-url"].rstrip("/"))
    json.dump(book, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
