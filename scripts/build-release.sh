#!/usr/bin/env bash
# A release build in which no path of this machine is left: those of the compiler, of dependencies and of this folder are written
# as if they stood elsewhere. `trim-paths` will do the same in Cargo.toml once it is stable.
#   scripts/build-release.sh [options of cargo build]
set -euo pipefail
cd "$(dirname "$0")/.."

# The later of two that fit is taken.
flags=("--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
    "--remap-path-prefix=$(rustc --print sysroot)=rust"
    "--remap-path-prefix=$PWD=photonc")
RUSTFLAGS="${RUSTFLAGS:-} ${flags[*]}" exec cargo build --release --locked "$@"
