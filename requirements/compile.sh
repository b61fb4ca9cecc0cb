#!/usr/bin/env bash
# Compile the hash-pinned requirements from pyproject.toml and the .in files beside this script.
# No index address gets into them. Needs uv: the launcher has put one into .tools/.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$(command -v uv || find .tools -path '*/bin/uv' -type f | head -n 1)
[ -n "$uv" ] || { echo "no uv: run ./nextclick --help once, it brings one" >&2; exit 1; }
compile() { "$uv" pip compile --quiet --generate-hashes --python-version 3.11 --no-emit-index-url --no-header "$@"; }
compile requirements/bootstrap.in -o requirements/bootstrap.txt
compile requirements/triton.in -o requirements/triton.txt
compile pyproject.toml --extra cpu --extra encoder -o requirements/product.txt
compile pyproject.toml --extra cpu --extra encoder --group dev -c requirements/product.txt -o requirements/development.txt
compile pyproject.toml --extra gpu --extra encoder -o requirements/gpu.txt
