#!/usr/bin/env bash
# Whether libclang is where a build of the feature `tensorrt-rtx` looks for it.
set -euo pipefail
[[ -z "${LIBCLANG_PATH:-}" ]] || exit 0
# libclang-cpp is another library.
for folder in /usr/lib/llvm-*/lib /usr/lib64 /usr/lib /usr/lib/*-linux-gnu; do
    compgen -G "$folder/libclang.so*" >/dev/null && exit 0
    compgen -G "$folder/libclang-[0-9]*.so*" >/dev/null && exit 0
done
exit 1
