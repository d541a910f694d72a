#!/bin/sh
# Installs photonc from what scripts/dist.sh made: fetches the archive of this machine, compares it with SHA256SUMS, and puts the
# program into a folder. Nothing is installed that does not have its sum.
#
#   install.sh [--version V] [--from PLACE] [--target TARGET] [--to FOLDER]
#
# --from     folder, or address, with the archives and SHA256SUMS; by default the release of the version
# --target   by default the static program; `x86_64-unknown-linux-gnu` or `aarch64-unknown-linux-gnu` for GPUs and ONNX Runtime
# --to       by default $XDG_BIN_HOME, else ~/.local/bin
#
# The sums come from the same place as the archive: they find damage, and do not say who made it.
set -eu

fail() {
    echo "install.sh: $1" >&2
    exit 1
}
version="@VERSION@"
from=
target=
to="${XDG_BIN_HOME:-$HOME/.local/bin}"
while [ $# -gt 0 ]; do
    case "$1" in
        --version | --from | --target | --to)
            [ $# -ge 2 ] || fail "$1 needs a value"
            case "$1" in
                --version) version="$2" ;;
                --from) from="${2%/}" ;;
                --target) target="$2" ;;
                --to) to="${2%/}" ;;
            esac
            shift 2
            ;;
        -h | --help)
            sed -n '2,13s/^# \{0,1\}//p' "$0"
            exit 0
            ;;
        *) fail "$1 is no option; --help lists them" ;;
    esac
done
case "$version" in
    @*) fail "which version? this copy is of no release: give --version" ;;
esac
if [ -z "$target" ]; then
    [ "$(uname -s)" = Linux ] || fail "there is no program for $(uname -s); build it with cargo (docs/start.md)"
    case "$(uname -m)" in
        x86_64 | amd64) target=x86_64-unknown-linux-musl ;;
        aarch64 | arm64) target=aarch64-unknown-linux-musl ;;
        *) fail "there is no program for $(uname -m); build it with cargo (docs/start.md)" ;;
    esac
fi
[ -n "$from" ] || from="https://github.com/photonc/photonc/releases/download/v$version"
name="photonc-$version-$target"

# fetch FILE: into the folder of this run.
fetch() {
    case "$from" in
        https://*)
            if command -v curl >/dev/null; then
                curl --proto '=https' --fail --silent --show-error --location --output "$work/$1" "$from/$1"
            elif command -v wget >/dev/null; then
                wget --quiet --output-document "$work/$1" "$from/$1"
            else
                fail "needs curl or wget"
            fi
            ;;
        *://*) fail "$from: only https addresses and folders are read" ;;
        *) cp -- "$from/$1" "$work/$1" ;;
    esac || fail "cannot get $from/$1"
}
sum() {
    if command -v sha256sum >/dev/null; then
        sha256sum "$1"
    elif command -v shasum >/dev/null; then
        shasum -a 256 "$1"
    else
        fail "needs sha256sum or shasum"
    fi | cut -d ' ' -f 1
}
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
fetch SHA256SUMS
fetch "$name.tar.gz"
expected="$(awk -v file="$name.tar.gz" '$2 == file || $2 == "*" file { print $1 }' "$work/SHA256SUMS")"
[ -n "$expected" ] || fail "SHA256SUMS has no $name.tar.gz"
found="$(sum "$work/$name.tar.gz")"
[ "$found" = "$expected" ] || fail "$name.tar.gz is damaged: SHA-256 $found, expected $expected; nothing was installed"
tar -xzf "$work/$name.tar.gz" -C "$work" "$name/photonc"
mkdir -p "$to"
# Beside its place first, so that a program that runs is replaced whole.
cp "$work/$name/photonc" "$to/.photonc.new"
chmod 755 "$to/.photonc.new"
mv -f "$to/.photonc.new" "$to/photonc"
echo "$to/photonc"
case ":$PATH:" in
    *":$to:"*) ;;
    *) echo "install.sh: $to is not in PATH" >&2 ;;
esac
