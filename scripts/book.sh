#!/usr/bin/env bash
# Builds the documentation as a book, target/book; a warning of mdBook is an error. Links are checked by docs/check.py, which
# needs no build.
#   scripts/book.sh          mdBook from PATH, else compiled once into .deps/mdbook (minutes): no registry has it as a program
# Exit code 77: mdBook is not there and cannot be installed.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.5.2
deps="$(realpath -m "${PHOTONC_DEPS:-.deps}")"
PATH="$PATH:$deps/mdbook/bin"
# Of its features only the search is used.
if ! command -v mdbook >/dev/null &&
    ! cargo install --quiet --locked --root "$deps/mdbook" --version "$version" --no-default-features --features search mdbook; then
    echo "SKIPPED the book: mdbook is not there and cannot be installed" >&2
    exit 77
fi
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
rm -rf target/book
mdbook build 2>&1 | tee "$log" >&2
if grep -qwE "WARN|ERROR" "$log"; then
    echo "mdbook warns; see above" >&2
    exit 1
fi
for page in docs/*.md; do
    name="$(basename "$page" .md)"
    [[ $name == SUMMARY || -f target/book/$name.html ]] || { echo "target/book has no $name.html" >&2 && exit 1; }
done
echo "target/book/index.html"
