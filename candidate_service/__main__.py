"""`python -m candidate_service CUTOFF_MS`: build the index of a cut-off from the offline store."""

from __future__ import annotations

import argparse
import sys

from contracts.errors import NextclickError
from contracts.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Prints the manifest on stdout, the steps on stderr. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m candidate_service", description=__doc__)
    parser.add_argument("cutoff_ms", type=int, help="milliseconds since 1970 UTC")
    chosen = parser.parse_args(arguments)
    from candidate_service.build import build_for

    try:
        manifest = build_for(Settings.from_environment(), chosen.cutoff_ms, _report)
    except NextclickError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(manifest.model_dump_json(indent=2) + "\n")
    return 0


def _report(step: str) -> None:
    sys.stderr.write(f"{step}\n")


if __name__ == "__main__":
    sys.exit(main())
