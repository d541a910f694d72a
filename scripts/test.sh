#!/usr/bin/env bash
# Installs what the tests need (Python packages, into the ignored folder .deps) and runs all of them.
#   scripts/test.sh         the tests, documentation examples, every exported model in ONNX Runtime, and engines of the
#                           goldens built by TensorRT-RTX
#   scripts/test.sh --full  the same with more random cases from a new seed, every kernel for every generation of GPU, and
#                           every exported model built by TensorRT-RTX
set -euo pipefail
cd "$(dirname "$0")/.."

tensorrt=()
if [[ "${1:-}" == --full ]]; then
    tensorrt=(--tensorrt)
    export PHOTONC_FULL=1
    export PROPTEST_CASES="${PROPTEST_CASES:-2048}"
    export PHOTONC_FUZZ_CASES="${PHOTONC_FUZZ_CASES:-10000}" PHOTONC_FUZZ_SEED="${PHOTONC_FUZZ_SEED:-random}"
fi
python="$(scripts/setup-test-deps.sh --tensorrt)"
features="$(scripts/features.sh)"

# Snapshots are compared, never written, and each must be compared by some test.
export INSTA_UPDATE=no
references="$(mktemp)"
trap 'rm -f "$references"' EXIT
INSTA_SNAPSHOT_REFERENCES_FILE="$references" cargo test --locked --no-fail-fast --workspace --features "$features"
unreferenced="$(comm -23 \
    <(find src crates tests -name '*.snap' -exec realpath {} + | sort -u) \
    <(xargs -r realpath <"$references" | sort -u))"
if [[ -n "$unreferenced" ]]; then
    echo "snapshots that no test compares; remove them:" >&2
    echo "$unreferenced" >&2
    exit 1
fi
if [[ -n "$(find src crates tests -name '*.snap.new')" ]]; then
    echo "pending snapshots (*.snap.new): accept or remove them" >&2
    exit 1
fi

scripts/test-python.sh
scripts/test-c.sh
"$python" tests/python/onnx_check.py "${CARGO_TARGET_DIR:-target}/tmp/onnx" "${tensorrt[@]}"
