#!/usr/bin/env bash
# A release build in which no path of this machine is left: those of the compiler, of dependencies and of this folder are written
# as if they stood elsewhere. `trim-paths` will do the same in Cargo.toml once it is stable.
#   scripts/build-release.sh [options of cargo build]
#   scripts/build-release.sh --target x86_64-unknown-linux-musl [..]    a static program, linked by the compiler's own linker
set -euo pipefail
cd "$(dirname "$0")/.."

sources="${CARGO_HOME:-$HOME/.cargo}"
# The later of two that fit is taken.
flags=("--remap-path-prefix=$sources=cargo"
    "--remap-path-prefix=$(rustc --print sysroot)=rust"
    "--remap-path-prefix=$PWD=photonc")
# What dependencies compile from C and assembler.
export CFLAGS="${CFLAGS:-} -ffile-prefix-map=$sources=cargo -ffile-prefix-map=$PWD=photonc"
target=
previous=
for option in "$@"; do
    case "$previous $option" in
        *" --target="*) target="${option#--target=}" ;;
        "--target "*) target="$option" ;;
    esac
    previous="$option"
done
if [[ $target == *-linux-musl ]]; then
    # rust-lld and the C library that come with the target: no linker of another system is needed.
    linker="CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$target")_LINKER"
    export "$linker=${!linker:-rust-lld}"
    flags+=(-Clink-self-contained=yes -Ctarget-feature=+crt-static)
fi
RUSTFLAGS="${RUSTFLAGS:-} ${flags[*]}" exec cargo build --release --locked "$@"
