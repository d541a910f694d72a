#!/usr/bin/env bash
# Builds photonc, compiles the trained example into a bundle and lets it write. One command, nothing but Rust.
set -euo pipefail
cd "$(dirname "$0")/.."

bundle="target/quickstart"
scripts/build-release.sh --bin photonc
photonc="${CARGO_TARGET_DIR:-target}/release/photonc"

show() {
    echo "\$ photonc $*"
    "$photonc" "$@"
}
show export examples/english -o "$bundle" --force
show generate "$bundle" -n 96 --top-k 40 --seed 1 --prompt "Catherine was at the window, and saw her brother come across the \
garden with a letter in his hand; her mother was in the parlour, and her father had not yet come home"
