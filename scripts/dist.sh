#!/usr/bin/env bash
# What a release hands out, of the commit that is checked out, in target/dist: for each target an archive with the program and a
# bill of its materials (CycloneDX), install.sh, and SHA256SUMS over all of them.
#   scripts/dist.sh [TARGETS..]            by default all four below
#   scripts/dist.sh --check [TARGETS..]    builds everything twice, in folders of different names, and compares the sums
#
# x86_64-unknown-linux-musl, aarch64-unknown-linux-musl   static: start on any Linux, backends `cpu` and `reference`. A static
#                                                         program cannot load libraries, so no GPU and no ONNX Runtime
# x86_64-unknown-linux-gnu, aarch64-unknown-linux-gnu     with `cuda` and `ort`; need a glibc as new as that of this machine
#
# A target that cannot be built here is skipped by name; exit code 1 if none is left. The program of this machine is started.
set -euo pipefail
cd "$(dirname "$0")/.."

check=
[[ "${1:-}" == --check ]] && check=1 && shift
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=(x86_64-unknown-linux-musl aarch64-unknown-linux-musl
    x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu)
if [[ -n "$(git status --porcelain)" ]]; then
    echo "there are changes that no commit has; a release is built from a commit" >&2
    exit 1
fi
version="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)"
host="$(rustc -vV | sed -n 's/^host: //p')"
# Nothing in an archive is younger than the commit.
SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)"
export SOURCE_DATE_EPOCH CARGO_INCREMENTAL=0 LC_ALL=C TZ=UTC

# c_compiler TARGET: the variable of the `cc` crate and its value, for ring and blake3, which bring C and assembler.
c_compiler() {
    local target="$1" arch="${1%%-*}" known
    case "$target" in
        "$host") known=cc ;;
        "${host%%-*}"-*-musl) known="$arch-linux-musl-gcc musl-gcc" ;;
        # Of a C library they take what any has, so that the headers of another will do.
        *-musl) known="$arch-linux-musl-gcc $arch-linux-gnu-gcc" ;;
        *) known="$arch-linux-gnu-gcc" ;;
    esac
    for compiler in $known; do
        if command -v "$compiler" >/dev/null; then
            echo "CC_${target//-/_}=$compiler"
            return
        fi
    done
    echo "SKIPPED $target: needs a C compiler, one of: $known" >&2
    return 1
}
# can_build TARGET
can_build() {
    case "$1" in
        x86_64-unknown-linux-musl | aarch64-unknown-linux-musl | x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu) ;;
        *)
            echo "$1 is not a target of releases; \`head -14 scripts/dist.sh\` lists them" >&2
            exit 2
            ;;
    esac
    if ! compgen -G "$(rustc --print sysroot)/lib/rustlib/$1/lib/libstd-*" >/dev/null; then
        echo "SKIPPED $1: its standard library is not installed; rustup target add $1" >&2
        return 1
    fi
    c_compiler "$1" >/dev/null
}
features() {
    case "$1" in
        *-musl) echo serve ;;
        *) echo serve,cuda,ort ;;
    esac
}
# holds TARGET PROGRAM FOLDER: whether a program, built in a folder, is what is promised of it.
holds() {
    local interpreter
    if grep -aqF -e "${CARGO_HOME:-$HOME/.cargo}/" -e "$3/" "$2"; then
        echo "$1: the program names folders of this machine" >&2
        return 1
    fi
    interpreter="$(readelf -lW "$2" | sed -n 's/.*interpreter: \(.*\)\]/\1/p')"
    case "$1" in
        *-musl)
            if [[ -n $interpreter ]] || readelf -dW "$2" | grep -q "(NEEDED)"; then
                echo "$1: the program is not static" >&2
                return 1
            fi
            ;;
        *) echo "$1: needs glibc $(grep -aoE 'GLIBC_[0-9.]+' "$2" | sort -uV | tail -1 | cut -d_ -f2)" ;;
    esac
    if [[ "${1%%-*}" == "${host%%-*}" ]]; then
        [[ "$("$2" --version)" == "photonc $version" ]] && "$2" doctor >/dev/null
    else
        echo "NOT STARTED $1: this machine is $host" >&2
    fi
}
# build FOLDER OUT TARGETS..: archives in OUT, from a copy of the commit in FOLDER.
build() {
    local folder="$1" out="$2" target name compiler
    shift 2
    mkdir -p "$folder" "$out"
    git archive --format=tar HEAD | tar -xf - -C "$folder"
    for target in "$@"; do
        echo "== $target ($((SECONDS / 60)) min)"
        local linker=()
        compiler="$(c_compiler "$target")"
        name="photonc-$version-$target"
        [[ $target == *-gnu && $target != "$host" ]] &&
            linker=("CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$target")_LINKER=${compiler#*=}")
        env "$compiler" "${linker[@]}" CARGO_TARGET_DIR="$folder/target" "$folder/scripts/build-release.sh" --quiet \
            --bin photonc --target "$target" --no-default-features --features "$(features "$target")"
        (cd "$folder" && cargo metadata --locked --format-version 1 --filter-platform "$target" --no-default-features \
            --features "$(features "$target")") |
            python3 scripts/sbom.py --package photonc --target "$target" --lock "$folder/Cargo.lock" >"$out/$name.cdx.json"
        rm -rf "${folder:?}/$name"
        mkdir "$folder/$name"
        cp "$folder/target/$target/release/photonc" "$folder"/{README.md,CHANGELOG.md,SECURITY.md,LICENSE-APACHE,LICENSE-MIT} \
            "$out/$name.cdx.json" "$folder/$name"
        holds "$target" "$folder/$name/photonc" "$folder"
        tar --sort=name --owner=0 --group=0 --numeric-owner --mode=go=u,go-w --mtime="@$SOURCE_DATE_EPOCH" \
            -C "$folder" -cf - "$name" | gzip -9n >"$out/$name.tar.gz"
    done
    sed "s/@VERSION@/$version/" "$folder/scripts/install.sh" >"$out/install.sh"
    chmod 755 "$out/install.sh"
    (cd "$out" && sha256sum -- * >"$work/sums" && mv "$work/sums" SHA256SUMS)
}

able=()
for target in "${targets[@]}"; do
    if can_build "$target"; then able+=("$target"); fi
done
if [[ ${#able[@]} -eq 0 ]]; then
    echo "no target can be built here" >&2
    exit 1
fi
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
rm -rf target/dist
build "$work/first" "$PWD/target/dist" "${able[@]}"
if [[ -n $check ]]; then
    rm -rf "$work/first"
    build "$work/another-place/second" "$work/again" "${able[@]}"
    if ! diff "target/dist/SHA256SUMS" "$work/again/SHA256SUMS"; then
        echo "the second build differs from the first; both sums of what differs are above" >&2
        exit 1
    fi
    echo "built twice with the same bytes"
fi
cat target/dist/SHA256SUMS
