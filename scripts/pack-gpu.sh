#!/usr/bin/env bash
# Packs what a machine with a GPU needs to check and measure photonc, besides the repository's own files, into .carry/gpu: the
# program and the tests of the CUDA runtime and of ONNX Runtime (release, features cuda, ort and tract, stripped). Rust is not
# needed there.
#   scripts/pack-gpu.sh [--peer FILE]     FILE: a PyTorch benchmark to compare with, see the part `peer` of scripts/gpu.sh
#   scripts/pack-gpu.sh --gateway         the program and Shepherd Model Gateway, for the part `workers`, and nothing else: about
#                                         30 MB. (NVIDIA Dynamo's library alone is 38 MB, packed in the same way.)
set -euo pipefail
cd "$(dirname "$0")/.."

most_bytes=$((64 << 20))
peer=""
gateway=""
while (($#)); do
    case "$1" in
    --peer)
        peer="${2:?--peer needs a file}"
        shift 2
        ;;
    --gateway)
        gateway=yes
        shift
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
git rev-parse HEAD >"$pack/commit"

# The executable that cargo reports for a target, whatever its folder and hash.
executable() {
    cargo "$@" --release --locked --features cuda,ort,tract --message-format=json-render-diagnostics |
        python3 -c '
import json, sys
found = [line["executable"] for line in map(json.loads, sys.stdin) if line.get("executable")]
print(found[-1])'
}
# What is packed is small enough to be carried.
check_size() {
    local bytes
    bytes="$(du -sb "$pack" | cut -f1)"
    if ((bytes > most_bytes)); then
        echo "$pack has $bytes bytes, expected at most $most_bytes" >&2
        exit 1
    fi
    echo "$pack: $bytes bytes; there: bash scripts/gpu.sh $1"
}

# The gateway's wheel without its symbols, and the program.
pack_gateway() {
    local work
    work="$(mktemp -d)"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 \
        --implementation cp --platform manylinux2014_x86_64 --dest "$work" smg==1.13.0
    python3 -m zipfile -e "$work"/smg-*.whl "$work/gateway"
    strip "$work/gateway/smg/smg_rs.abi3.so"
    strip -o "$work/gateway/photonc" "$(executable build --bin photonc)"
    tar -C "$work" -c gateway | xz -9 -T1 >"$pack/gateway.tar.xz"
    rm -r "$work"
}
if [[ -n "$gateway" ]]; then
    pack_gateway
    check_size workers
    exit
fi

strip -o "$pack/bin/photonc" "$(executable build --bin photonc)"
for name in cuda ort; do
    strip -o "$pack/bin/$name-tests" "$(executable test --test "$name" --no-run)"
done

if [[ -n "$peer" ]]; then
    cp "$peer" "$pack/peer_bench.py"
fi
# The programs are most of it.
gzip -9 "$pack"/bin/*
check_size all
