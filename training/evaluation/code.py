"""Which code made a figure: figures of other code are others."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import candidate_service
import contracts
import training
from training import encoder


@cache
def code_version() -> str:
    """Of all that an evaluation's figures depend on: 12 hex digits over its files."""
    return _hash(contracts.__file__, candidate_service.__file__, training.__file__)


@cache
def encoder_version() -> str:
    """Of what learns the session encoder, as `code_version`."""
    return _hash(encoder.__file__)


def _hash(*packages: str | None) -> str:
    text = hashlib.sha256()
    for package in packages:
        folder = Path(str(package)).parent
        for file in sorted(folder.rglob("*.py")):
            text.update(f"{file.relative_to(folder)}\n".encode())
            text.update(file.read_bytes())
    return text.hexdigest()[:12]
