"""Which code made a figure: figures of other code are others."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import candidate_service
import contracts
import training


@cache
def code_version() -> str:
    """Of all that an evaluation's figures depend on: 12 hex digits over its files."""
    text = hashlib.sha256()
    for package in (contracts, candidate_service, training):
        folder = Path(str(package.__file__)).parent
        for file in sorted(folder.rglob("*.py")):
            text.update(f"{package.__name__}/{file.relative_to(folder)}\n".encode())
            text.update(file.read_bytes())
    return text.hexdigest()[:12]
