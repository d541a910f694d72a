#!/usr/bin/env bash
# Python packages that check exported models: into .deps/py, once. Fast when they are already there.
#   scripts/setup-test-deps.sh             onnx, ONNX Runtime, NVRTC (compiles CUDA kernels, without a GPU)
#   scripts/setup-test-deps.sh --tensorrt  also TensorRT-RTX, which builds engines without a GPU (400 MB)
# Prints the Python to use.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 safetensors==0.8.0
    nvidia-cuda-nvrtc==13.0.88)
if [[ "${1:-}" == --tensorrt ]]; then
    packages+=(tensorrt-rtx-cu13-libs==1.7.1.116 tensorrt-rtx-cu13-bindings==1.7.1.116)
fi

deps="${PHOTONC_DEPS:-.deps}"
python="$deps/py/bin/python"
stamp="$deps/py/installed"
wanted="$(printf '%s\n' "${packages[@]}")"
# The stamp lists everything installed so far; a package of another version is not on it.
if [[ ! -x "$python" ]] || [[ -n "$(comm -23 <(sort <<<"$wanted") <(sort "$stamp" 2>/dev/null))" ]]; then
    mkdir -p "$deps"
    [[ -x "$python" ]] || python3 -m venv "$deps/py"
    "$python" -m pip install --quiet --disable-pip-version-check "${packages[@]}" >&2
    sort -u <(cat "$stamp" 2>/dev/null) <(echo "$wanted") >"$stamp.new"
    mv "$stamp.new" "$stamp"
fi
echo "$python"
