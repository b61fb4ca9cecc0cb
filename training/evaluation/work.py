"""The folder of a run: finished stages, as plain arrays and JSON, so that a run can be resumed."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from contracts.errors import UsageError
from training.evaluation.run import Ranked

_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
RANKED_FILE, LEARNED_FILE, PEER_FILE = "ranked.npz", "learned.json", "wsknn.npz"


class Work:
    """Files appear whole: written beside, then renamed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--work: {folder} cannot be made: {error.strerror}") from None

    def keep_ranked(self, ranked: Ranked, learned: dict[str, Any]) -> None:
        arrays: dict[str, npt.NDArray[Any]] = {
            **{f"rank.{name}": values for name, values in ranked.ranks.items()},
            **{f"recalled.{name}": values for name, values in ranked.recalled.items()},
            "lists": ranked.lists,
            "items": np.array(ranked.items, dtype=str),
        }
        self._write(RANKED_FILE, arrays)
        # last: with it the stage is finished
        self._put(
            LEARNED_FILE, lambda file: file.write(json.dumps(learned, default=float).encode())
        )

    def ranked(self) -> tuple[Ranked, dict[str, Any]] | None:
        """None where the stage was not finished, or a file is damaged."""
        try:
            arrays = _read(self._folder / RANKED_FILE)
            learned = json.loads((self._folder / LEARNED_FILE).read_bytes())
            ranks, recalled = _under("rank.", arrays), _under("recalled.", arrays)
            found = Ranked(ranks, recalled, arrays["lists"], tuple(arrays["items"].tolist()))
        except _UNREADABLE:
            return None
        whole = "ranker" in ranks and "merged" in recalled and isinstance(learned, dict)
        return (found, learned) if whole else None

    def keep_peer(self, ranks: npt.NDArray[np.float64], seconds: dict[str, float]) -> None:
        self._write(
            PEER_FILE,
            {"ranks": ranks, **{name: np.array(value) for name, value in seconds.items()}},
        )

    def peer(self, queries: int) -> tuple[npt.NDArray[np.float64], dict[str, float]] | None:
        try:
            arrays = _read(self._folder / PEER_FILE)
            ranks = arrays.pop("ranks")
            seconds = {name: float(value) for name, value in arrays.items()}
        except _UNREADABLE:
            return None
        return (ranks, seconds) if len(ranks) == queries else None

    def _write(self, name: str, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self._put(name, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]

    def _put(self, name: str, write: Callable[[IO[bytes]], Any]) -> None:
        building, place = self._folder / f".{name}", self._folder / name
        try:
            with building.open("wb") as file:
                write(file)
            building.replace(place)
        except OSError as error:
            raise UsageError(
                f"--work: {place} cannot be written: {error.strerror}; see what lies there"
            ) from None


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _under(prefix: str, arrays: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    return {
        name.removeprefix(prefix): values
        for name, values in arrays.items()
        if name.startswith(prefix)
    }
