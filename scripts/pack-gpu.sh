#!/usr/bin/env bash
# Packs what a machine with a GPU needs to check and measure photonc into .carry/gpu: the program and the tests of the CUDA
# runtime and of ONNX Runtime (release, features cuda and ort, stripped), the goldens, the trained example, the kernels with
# their checks, and scripts/gpu.sh. Nothing else of the repository is read there; Rust is not needed there.
#   scripts/pack-gpu.sh [--peer FILE]     FILE: a PyTorch benchmark to compare with, see the part `peer` of scripts/gpu.sh
set -euo pipefail
cd "$(dirname "$0")/.."

most_bytes=$((64 << 20))
peer=""
while (($#)); do
    case "$1" in
    --peer)
        peer="${2:?--peer needs a file}"
        shift 2
        ;;
    *)
        echo "unknown option $1; see the top of scripts/pack-gpu.sh" >&2
        exit 2
        ;;
    esac
done

pack=.carry/gpu
rm -rf "$pack"
mkdir -p "$pack/bin"

# The executable that cargo reports for a target, whatever its folder and hash.
executable() {
    cargo "$@" --release --locked --features cuda,ort,tract --message-format=json-render-diagnostics |
        python3 -c '
import json, sys
found = [line["executable"] for line in map(json.loads, sys.stdin) if line.get("executable")]
print(found[-1])'
}
strip -o "$pack/bin/photonc" "$(executable build --bin photonc)"
for name in cuda ort; do
    strip -o "$pack/bin/$name-tests" "$(executable test --test "$name" --no-run)"
done

mkdir -p "$pack/tests" "$pack/src/runtime/cuda"
cp -r tests/golden "$pack/tests/golden"
mkdir "$pack/examples"
cp -r examples/english "$pack/examples/english"
cp -r src/runtime/cuda/kernels "$pack/src/runtime/cuda/kernels"
mkdir "$pack/tests/gpu"
cp tests/gpu/*.py tests/gpu/cases.json "$pack/tests/gpu"
cp scripts/gpu.sh "$pack/gpu.sh"
if [[ -n "$peer" ]]; then
    cp "$peer" "$pack/peer_bench.py"
fi
git rev-parse HEAD >"$pack/commit"

# The programs are most of it.
gzip -9 "$pack"/bin/*
bytes="$(du -sb "$pack" | cut -f1)"
if ((bytes > most_bytes)); then
    echo "$pack has $bytes bytes, expected at most $most_bytes" >&2
    exit 1
fi
echo "$pack: $bytes bytes; there: bash gpu.sh all"
