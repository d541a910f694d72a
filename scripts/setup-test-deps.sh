#!/usr/bin/env bash
# Python packages that check exported models: into .deps/py, once. Fast when they are already there.
#   scripts/setup-test-deps.sh             onnx, ONNX Runtime
#   scripts/setup-test-deps.sh --tensorrt  also TensorRT-RTX, which builds engines without a GPU (400 MB)
# Prints the Python to use. Also sees to a browser for the test of the HTML report: by apt where this is root, else the test
# says that it is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 safetensors==0.8.0)
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
missing=()
for program in chromium chromedriver; do
    command -v "$program" >/dev/null || missing+=("${program/chromedriver/chromium-driver}")
done
if [[ ${#missing[@]} -gt 0 ]]; then
    if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >&2 ||
            echo "SKIPPED the_report_of_the_largest_model_works_in_a_browser: apt-get cannot install ${missing[*]}" >&2
    else
        echo "SKIPPED the_report_of_the_largest_model_works_in_a_browser: needs ${missing[*]}, and this is not root on a system with apt-get" >&2
    fi
fi
echo "$python"
