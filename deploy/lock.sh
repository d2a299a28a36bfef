#!/bin/sh
# Writes requirements.txt and requirements-build.txt: the exact versions, with checksums, that the image is made of.
# Run it after a change of pyproject.toml's dependencies, or to take in new releases; needs uv (pip install uv).
# UPGRADE=1 takes the newest of everything; otherwise what is locked stays where it can.
set -eu
cd "$(dirname "$0")/.."
lock() {
    file=deploy/$1
    shift
    uv pip compile "$@" --output-file "$file" --universal --python-version 3.11 --generate-hashes \
        --only-binary :all: --no-emit-index-url --no-annotate --custom-compile-command deploy/lock.sh --quiet \
        ${UPGRADE:+--upgrade}
}
lock requirements.txt pyproject.toml
lock requirements-build.txt --group build
