#!/usr/bin/env bash
# Runs every fuzz target of `fuzz/` from its seeds, one after the other, and fails where one has a finding. What is found
# lies in fuzz/artifacts, and what the fuzzer has learnt in fuzz/corpus; neither is committed.
#   scripts/fuzz.sh [SECONDS [TARGET..]]   seconds for each target (60), all of them unless some are named
# Needs a nightly toolchain, its name in PHOTONC_NIGHTLY (nightly). cargo-fuzz comes into the ignored folder .deps.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds="${1:-60}"
shift || true
nightly="${PHOTONC_NIGHTLY:-nightly}"
deps="$(realpath -m "${PHOTONC_DEPS:-.deps}")"
version=0.13.2
if ! cargo "+$nightly" --version >/dev/null 2>&1; then
    echo "there is no toolchain \`$nightly\`: rustup toolchain install nightly" >&2
    exit 2
fi
if [[ "$("$deps/fuzz/bin/cargo-fuzz" --version 2>/dev/null)" != *" $version" ]]; then
    cargo install --quiet --locked --root "$deps/fuzz" --version "$version" cargo-fuzz
fi
export PATH="$deps/fuzz/bin:$PATH"
# Inputs become files, which need no disk.
scratch="${TMPDIR:-/tmp}"
if [[ -d /dev/shm && -w /dev/shm ]]; then scratch=/dev/shm; fi

if (($# == 0)); then
    mapfile -t targets < <(cd fuzz/fuzz_targets && ls ./*.rs | sed 's|^./||; s|\.rs$||')
else
    targets=("$@")
fi
cargo "+$nightly" fuzz build
failed=()
for target in "${targets[@]}"; do
    echo "== $target ($seconds s)"
    mkdir -p "fuzz/corpus/$target"
    # The first folder is the fuzzer's own, the second is only read.
    if ! TMPDIR="$scratch" cargo "+$nightly" fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=$((4 << 20)) -rss_limit_mb=2048 -timeout=5 -print_final_stats=1; then
        failed+=("$target")
    fi
done
if ((${#failed[@]})); then
    echo "findings in ${failed[*]}: fuzz/artifacts holds the inputs; cargo +$nightly fuzz run TARGET FILE repeats one" >&2
    exit 1
fi
echo "no findings in ${#targets[@]} targets of $seconds s"
