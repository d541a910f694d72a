#!/usr/bin/env bash
# A minute of training on the CPU: tiny models of two shapes and the Transformer beside them, from this repository's own
# documents in the place of books; then the tests of the training code, which compare it with the goldens and with PHOTONC.
#   PHOTONC=target/debug/photonc scripts/train-smoke.sh
# PHOTONC_TRAIN_PYTHON names a Python with PyTorch, tokenizers and pytest; without it one is made in .deps/train, once
# (on x86-64 PyTorch brings CUDA along: 5 GB).
set -euo pipefail
cd "$(dirname "$0")/.."

photonc="${PHOTONC:?name the program to compare with, such as target/debug/photonc}"
packages=(torch==2.11.0 tokenizers==0.23.3 pytest==9.2.0)
python="${PHOTONC_TRAIN_PYTHON:-}"
if [[ -z "$python" ]]; then
    deps="${PHOTONC_DEPS:-.deps}"
    python="$deps/train/bin/python"
    stamp="$deps/train/installed"
    if [[ "$(cat "$stamp" 2>/dev/null)" != "${packages[*]}" ]]; then
        mkdir -p "$deps"
        python3 -m venv --clear "$deps/train"
        "$python" -m pip install --quiet --disable-pip-version-check "${packages[@]}" >&2
        echo "${packages[*]}" >"$stamp"
    fi
fi

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/corpus/train" "$work/corpus/heldout"
for document in docs/*.md README.md ARCHITECTURE.md; do
    cp "$document" "$work/corpus/train/$(basename "$document" .md).txt"
done
cp CHANGELOG.md "$work/corpus/heldout/changelog.txt"
"$python" examples/train/prepare.py --corpus "$work/corpus" --out "$work/data" --vocab 800
"$python" examples/train/explore.py --data "$work/data" --out "$work/out" --work "$work/runs" --smoke --device cpu
# What was trained is a checkpoint like any other.
mkdir "$work/model"
tar -xf "$work/out/c2x2-a0.3.tar" -C "$work/model"
"$photonc" export "$work/model/c2x2-a0.3" -o "$work/bundle" -q
"$photonc" generate "$work/bundle" --prompt "The compiler" -n 32 --greedy >"$work/text"
[[ -s "$work/text" ]] || { echo "the trained model wrote nothing" >&2; exit 1; }
PHOTONC="$(realpath "$photonc")" PHOTONC_GOLDENS="$(realpath tests/golden)" "$python" -m pytest -q -p no:cacheprovider examples/train/tests
