#!/usr/bin/env bash
# Finds a Python 3.11 on a bare machine and lets it make the environment: bootstrap.sh [--dev] [--tools FOLDER]
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
for python in python3.11 python3; do
  if "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    exec "$python" -I "$here/bootstrap.py" "$@"
  fi
done
echo "nextclick: needs Python 3.11 as python3.11 or python3; on Debian: apt-get install python3.11 python3.11-venv" >&2
exit 1
