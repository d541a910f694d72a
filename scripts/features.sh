#!/usr/bin/env bash
# Every feature that can be built here, for the tests and the lints: with `tensorrt-rtx` where libclang is.
set -euo pipefail
cd "$(dirname "$0")/.."
features=cuda,ort,tract
if scripts/has-libclang.sh; then
    features+=,tensorrt-rtx
else
    echo "SKIPPED the feature tensorrt-rtx: no libclang; scripts/setup-test-deps.sh --tensorrt installs it" >&2
fi
echo "$features"
