#!/usr/bin/env bash
# Builds the wheel of the Python package, installs it into a clean environment and runs its tests there.
#   scripts/test-python.sh [ARGUMENTS OF PYTEST..]
# What is missing here, torch or a GPU, is skipped, and said to be. Python packages come into the ignored folder .deps.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup-test-deps.sh --wheel >/dev/null
deps="$(realpath "${PHOTONC_DEPS:-.deps}")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
wheels="$CARGO_TARGET_DIR/wheels"
rm -rf "$wheels"
# The development profile and the features of the tests: everything but the package itself is built already.
"$deps/wheel/bin/maturin" build --quiet --locked --profile dev --manifest-path crates/photonc-python/Cargo.toml \
    --interpreter "$deps/wheel/bin/python" --out "$wheels" --features "$(scripts/features.sh)"

# Clean: nothing of an earlier wheel is left, and nothing of the repository is on the path.
rm -rf "$deps/installed"
python3 -m venv "$deps/installed"
# The versions that setup-test-deps.sh has installed, so that nothing is looked up here.
tools="$("$deps/wheel/bin/python" -m pip freeze | grep -iE '^(pytest|mypy|numpy)==')"
# shellcheck disable=SC2086
"$deps/installed/bin/python" -m pip install --quiet --disable-pip-version-check $tools "$wheels"/photonc-*.whl
PHOTONC_ROOT="$PWD" PYTHONDONTWRITEBYTECODE=1 "$deps/installed/bin/python" -m pytest -q -rs -p no:cacheprovider \
    crates/photonc-python/tests "$@"
