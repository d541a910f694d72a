#!/usr/bin/env bash
# Builds the C library, compares its header with the committed one and both with the interface of the last release, and runs the examples of C and C++: compiled with warnings as
# errors, against the shared and the static library, under AddressSanitizer and under valgrind where they are installed.
#   scripts/test-c.sh
set -euo pipefail
cd "$(dirname "$0")/.."

crate="$PWD/crates/photonc-c"
target="${CARGO_TARGET_DIR:-$PWD/target}"
# As scripts/test.sh builds, so that nothing is compiled again.
features="$(scripts/features.sh)"
cargo test --quiet --locked --workspace --features "$features" --test header
cargo build --quiet --locked --workspace --features "$features"
interface=(python3 tests/c/interface.py "$crate/include/photonc.h" "$crate/released.txt")
"${interface[@]}" --self-test
"${interface[@]}" --library "$target/debug/libphotonc.so"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# Installed as a package would be, and found by its description.
prefix="$work/prefix"
mkdir -p "$prefix/lib/pkgconfig" "$prefix/include"
cp "$target/debug/libphotonc.so" "$target/debug/libphotonc.a" "$prefix/lib"
cp "$crate/include/photonc.h" "$prefix/include"
version="$(sed -n 's/^version = "\(.*\)"/\1/p' "$crate/Cargo.toml" | head -1)"
sed "s|@PREFIX@|$prefix|; s|@VERSION@|$version|" "$crate/photonc.pc.in" >"$prefix/lib/pkgconfig/photonc.pc"
# flags KIND: how pkg-config says to build, with a fallback that reads the file by itself.
flags() {
    if command -v pkg-config >/dev/null; then
        PKG_CONFIG_PATH="$prefix/lib/pkgconfig" pkg-config "$@" photonc
    else
        echo "SKIPPED pkg-config: not installed, its file was not read" >&2
        echo "-I$prefix/include -L$prefix/lib -lphotonc"
    fi
}

echo "a bundle of random weights"
"$target/debug/photonc" synth --preset tiny -q -o "$work/checkpoint"
"$target/debug/photonc" export "$work/checkpoint" -q -o "$work/bundle" >/dev/null

# build OUT FLAGS..: the example of C and that of C++.
build() {
    local out="$1"
    shift
    # shellcheck disable=SC2046
    cc -std=c11 -Wall -Wextra -Werror -g "$crate/examples/generate.c" -o "$out-c" "$@" $(flags --cflags --libs)
    # shellcheck disable=SC2046
    c++ -std=c++17 -Wall -Wextra -Werror -g "$crate/examples/generate.cpp" -o "$out-cpp" "$@" $(flags --cflags --libs)
}
run() {
    echo "== $*"
    LD_LIBRARY_PATH="$prefix/lib" "$@"
}

build "$work/shared"
run "$work/shared-c" "$work/bundle" cpu
run "$work/shared-cpp" "$work/bundle" cpu

# The features of the tests hold C++, which the library's own do not.
cc -std=c11 -Wall -Wextra -Werror -I"$prefix/include" "$crate/examples/generate.c" "$prefix/lib/libphotonc.a" \
    -lgcc_s -lutil -lrt -lpthread -lm -ldl -lstdc++ -o "$work/static-c"
run "$work/static-c" "$work/bundle" reference

if build "$work/asan" -fsanitize=address -fno-omit-frame-pointer 2>"$work/asan.log"; then
    for language in c cpp; do
        run env ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 "$work/asan-$language" "$work/bundle" reference
    done
else
    cat "$work/asan.log" >&2
    echo "SKIPPED AddressSanitizer: the compiler has none" >&2
fi
if command -v valgrind >/dev/null; then
    for language in c cpp; do
        run valgrind --quiet --error-exitcode=9 --leak-check=full \
            --errors-for-leak-kinds=definite --show-leak-kinds=definite \
            --suppressions="$crate/examples/valgrind.supp" \
            "$work/shared-$language" "$work/bundle" reference
    done
else
    echo "SKIPPED valgrind: not installed" >&2
fi
