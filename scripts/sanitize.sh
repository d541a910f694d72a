#!/usr/bin/env bash
# Runs the tests of what is `unsafe` under Miri, which knows every rule of Rust and is slow, and under AddressSanitizer, which
# knows bounds and lifetimes and runs the instructions that the processor has.
#   scripts/sanitize.sh [miri|address]   one of them, else both
# Needs a nightly toolchain, its name in PHOTONC_NIGHTLY (nightly); without it 77 is the exit code.
set -euo pipefail
cd "$(dirname "$0")/.."

nightly="${PHOTONC_NIGHTLY:-nightly}"
target="${CARGO_TARGET_DIR:-target}"
if ! cargo "+$nightly" --version >/dev/null 2>&1; then
    echo "SKIPPED sanitize: there is no toolchain \`$nightly\`; rustup toolchain install nightly" >&2
    exit 77
fi

# Kernels, memory and threads of the processor's device, and what launch plans give kernels. Addresses are numbers there, as on
# a GPU, so that provenance is what Miri guesses; models and files are too much for it. The threads are rayon's, which live to the
# end and whose queues follow the newer of the two models of borrowing alone.
miri() {
    if ! cargo "+$nightly" miri --version >/dev/null 2>&1 &&
        ! rustup component add miri rust-src --toolchain "$nightly" >/dev/null 2>&1; then
        echo "SKIPPED Miri: it is no part of the toolchain \`$nightly\`" >&2
        return
    fi
    local flags="-Zmiri-permissive-provenance -Zmiri-disable-isolation -Zmiri-tree-borrows -Zmiri-ignore-leaks"
    MIRIFLAGS="$flags" CARGO_TARGET_DIR="$target/miri" \
        cargo "+$nightly" miri test --quiet --locked --package photonc-launch --lib -- cpu:: launch::codes launch::arguments
}

# The same tests, every product and every golden on the processor's kernels, and the C library's.
address() {
    local host
    host="$(rustc "+$nightly" -vV | sed -n 's/^host: //p')"
    RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR="$target/address" \
        cargo "+$nightly" test --quiet --locked --target "$host" --package photonc-launch --package photonc-c --lib
    RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR="$target/address" \
        cargo "+$nightly" test --quiet --locked --target "$host" --package photonc --test cpu
}

for kind in ${1:-miri address}; do
    echo "== $kind"
    "$kind"
done
