#!/usr/bin/env bash
# Checks that everything compiles with the oldest Rust that it says it needs (`rust-version` in the manifests): the program as
# it is installed, with each feature that needs a newer one, and the crates for other languages.
#   scripts/msrv.sh          all of them
#   scripts/msrv.sh default  the program as it is installed alone
# Toolchains come by rustup; one that cannot be had is said, and 77 is the exit code.
set -euo pipefail
cd "$(dirname "$0")/.."

# The oldest Rust of a crate, as its manifest says.
stated() {
    cargo metadata --locked --no-deps --format-version 1 |
        python3 -c 'import json, sys
print(next(one["rust_version"] for one in json.load(sys.stdin)["packages"] if one["name"] == sys.argv[1]))' "$1"
}
# The newest that a dependency asks for, which is that of a feature.
asked_by() {
    cargo metadata --locked --format-version 1 --all-features |
        python3 -c 'import json, sys
print(next(one["rust_version"] for one in json.load(sys.stdin)["packages"] if one["name"] == sys.argv[1]))' "$1"
}
skipped=0
# Checks with a version of Rust and these arguments of cargo.
check() {
    local version="$1"
    shift
    if ! cargo "+$version" --version >/dev/null 2>&1 &&
        ! rustup toolchain install "$version" --profile minimal --no-self-update >/dev/null 2>&1; then
        echo "SKIPPED Rust $version: the toolchain is not there and rustup cannot install it" >&2
        skipped=1
        return
    fi
    echo "== Rust $version: cargo check $*"
    # Whatever these compilers write is nobody else's.
    CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/msrv" cargo "+$version" check --locked --quiet "$@"
}
check "$(stated photonc)"
if [[ "${1:-}" != default ]]; then
    check "$(stated photonc)" --no-default-features --features cuda
    check "$(asked_by tract-onnx)" --features cuda,tract
    check "$(stated photonc-python)" --workspace --features "$(scripts/features.sh)"
fi
if ((skipped)); then exit 77; fi
