"""An index on disk: arrays and a manifest with their checksums, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from contracts.errors import ReleaseError, shown

FORMAT = 2
MANIFEST = "manifest.json"
ARRAYS = Mapping[str, npt.NDArray[Any]]
_BUILD = "build it again (./nextclick train)"


class FileEntry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str


class Facts(BaseModel):
    """What an index was built from and how. Equal facts and equal files are the same version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    cutoff_ms: int  # only events before it are known to the index
    rows: int  # events of interest
    visits: int
    items: int
    vectors: int  # items that have one; 0: the vector source answers nothing
    dimensions: int  # of a vector; 0 without
    sources: tuple[str, ...]
    parameters: dict[str, dict[str, float]]  # by source, and of the "merge"


class Manifest(Facts):
    version: str  # cut-off and digest of facts and files
    files: dict[str, FileEntry]


def write(facts: Facts, arrays: ARRAYS, folder: Path) -> Manifest:
    """Write the index as `<folder>/<version>/` and give its manifest.

    Everything goes to a temporary folder, the manifest last, and is then renamed; a whole index
    of this version stays as it is, a damaged one is replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=folder))
    try:
        files = {name: _write_array(building / f"{name}.npy", arrays[name]) for name in arrays}
        manifest = Manifest(**facts.model_dump(), version=_version(facts, files), files=files)
        _write_synced(building / MANIFEST, manifest.model_dump_json(indent=2).encode())
        building.chmod(0o755)
        _publish(building, folder / manifest.version)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return manifest


def read(folder: Path, verify: bool) -> tuple[Manifest, dict[str, npt.NDArray[Any]]]:
    """The manifest and the memory-mapped arrays; ReleaseError says what is wrong with the folder.

    verify: whether to read every file and compare its checksum (sizes always are).
    """
    manifest = read_manifest(folder)
    for name, entry in manifest.files.items():
        _check(folder / f"{name}.npy", entry, verify)
    try:
        # asarray: a plain view of the mapping, for np.memmap costs at every slice
        arrays = {
            name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
            for name in manifest.files
        }
    except (OSError, ValueError) as error:
        raise ReleaseError(
            f"candidate index {folder}: an array cannot be read ({error}): {_BUILD}"
        ) from None
    return manifest, arrays


def read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        what = "is not whole: it has no" if folder.is_dir() else "does not exist: no"
        raise ReleaseError(f"candidate index {folder} {what} {MANIFEST}; {_BUILD}") from None
    except (OSError, ValidationError) as error:
        raise ReleaseError(
            f"{path} is no manifest of an index ({_first(error)}): {_BUILD}"
        ) from None
    if manifest.format != FORMAT:
        raise ReleaseError(
            f"candidate index {folder} has format {manifest.format}, expected {FORMAT}: {_BUILD}"
        )
    if manifest.version != _version(_facts(manifest), manifest.files):
        raise ReleaseError(f"{path} was changed: its version is not that of its content; {_BUILD}")
    return manifest


def _facts(manifest: Manifest) -> Facts:
    return Facts(**manifest.model_dump(include=set(Facts.model_fields)))


def _first(error: OSError | ValidationError) -> str:
    return error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)


def _version(facts: Facts, files: Mapping[str, FileEntry]) -> str:
    content = {
        "facts": facts.model_dump(mode="json"),
        "files": {name: entry.sha256 for name, entry in files.items()},
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{_moment(facts.cutoff_ms)}-{digest[:12]}"


def _moment(milliseconds: int) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    except (OverflowError, ValueError, OSError):
        raise ReleaseError(
            f"cut-off: got {shown(milliseconds)}, expected milliseconds since 1970"
        ) from None


def _check(path: Path, entry: FileEntry, verify: bool) -> None:
    if not path.is_file():
        raise ReleaseError(f"candidate index {path.parent}: {path.name} is missing; {_BUILD}")
    size = path.stat().st_size
    if size != entry.bytes:
        raise ReleaseError(
            f"{path} has {size} bytes, its manifest says {entry.bytes}: it is damaged; {_BUILD}"
        )
    if verify and _sha256(path) != entry.sha256:
        raise ReleaseError(f"{path} does not match its checksum: it is damaged; {_BUILD}")


def _write_array(path: Path, array: npt.NDArray[Any]) -> FileEntry:
    with path.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return FileEntry(bytes=path.stat().st_size, sha256=_sha256(path))


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _publish(building: Path, target: Path) -> None:
    if target.exists():
        try:
            read(target, verify=True)
        except ReleaseError:
            shutil.rmtree(target)
        else:
            return
    try:
        building.rename(target)
    except OSError:
        read(target, verify=True)  # another builder was first, with the same content
