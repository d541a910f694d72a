#!/usr/bin/env bash
# Builds photonc, compiles a checkpoint into a bundle and generates tokens from it.
#   scripts/quickstart.sh [MODEL]   by default the small checkpoint in examples/paper-golden
set -euo pipefail
cd "$(dirname "$0")/.."

model="${1:-examples/paper-golden}"
bundle="target/quickstart"
cargo build --release --locked --bin photonc
photonc="${CARGO_TARGET_DIR:-target}/release/photonc"

show() {
    echo "\$ photonc $*"
    "$photonc" "$@"
}
show export "$model" -o "$bundle" --force
show generate "$bundle" --prompt-ids 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16 -n 32 --greedy
