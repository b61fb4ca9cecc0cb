"""What was made visible online, and when: a record of each materialisation of a view.

A record is a small JSON object at `<offline>/publications/<view>/<started>-<until>.json`. It is
there before the first row is written and is replaced when the last one is: a record without an
end tells that rows of that view may have become visible from its start on. Records are written
whole or not at all, on a disk (a renamed file) as on S3 (one object, put at once).
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from contracts.errors import ServiceError

FOLDER = "publications"


@dataclass(frozen=True)
class Publication:
    """Rows of `view` that hold by `until_ms`, written between `started_ms` and `finished_ms`
    (None: not known to be finished). Times are milliseconds since 1970 UTC; started and finished
    are of this machine's clock. `rows`: what was sent to the online store."""

    view: str
    until_ms: int
    started_ms: int
    finished_ms: int | None
    rows: int


_RECORD = TypeAdapter(Publication)


def begin(offline: str, view: str, until_ms: int) -> Publication:
    """Record that rows of the view are about to become visible. ServiceError where it cannot."""
    started = _now()
    with _Told(offline, view) as (system, folder):
        while _exists(system, _path(folder, started, until_ms)):  # another one, this millisecond
            started += 1
        publication = Publication(view, until_ms, started, None, 0)
        _put(system, folder, publication)
    return publication


def finish(offline: str, publication: Publication, rows: int) -> Publication:
    """Record that all rows are visible. ServiceError where it cannot."""
    finished = replace(publication, finished_ms=max(_now(), publication.started_ms), rows=int(rows))
    with _Told(offline, publication.view) as (system, folder):
        _put(system, folder, finished)
    return finished


def read(offline: str, view: str) -> list[Publication]:
    """All records of the view, by when they started. ServiceError where one cannot be read."""
    from pyarrow import fs

    with _Told(offline, view) as (system, folder):
        selector = fs.FileSelector(folder, allow_not_found=True)
        names = [
            info.path
            for info in system.get_file_info(selector)
            if info.type == fs.FileType.File and info.base_name.endswith(".json")
        ]
        found = [_parse(name, _get(system, name)) for name in names]
    return sorted(found, key=lambda each: (each.started_ms, each.until_ms))


class _Told:
    """The file system and folder of a view's records; what fails there is told as ServiceError."""

    def __init__(self, offline: str, view: str) -> None:
        self._offline, self._view = offline, view

    def __enter__(self) -> tuple[Any, str]:
        from pyarrow import fs

        if "://" in self._offline:
            system, root = fs.FileSystem.from_uri(self._offline.replace("s3a://", "s3://", 1))
        else:
            system, root = fs.LocalFileSystem(), self._offline
        return system, f"{root.rstrip('/')}/{FOLDER}/{self._view}"

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise ServiceError(
                f"{self._offline}/{FOLDER}/{self._view}: {error}: the record of what was made "
                "visible has to be readable and writable there (NEXTCLICK_OFFLINE)"
            ) from error


def _put(system: Any, folder: str, publication: Publication) -> None:
    """On a disk by a renamed file; S3 shows an object when it is whole."""
    from pyarrow import fs

    path = _path(folder, publication.started_ms, publication.until_ms)
    body = json.dumps(asdict(publication)).encode() + b"\n"
    if not isinstance(system, fs.LocalFileSystem):
        _write(system, path, body)
        return
    system.create_dir(folder)
    building = f"{folder}/.{uuid4().hex}"
    _write(system, building, body)
    system.move(building, path)


def _write(system: Any, path: str, body: bytes) -> None:
    with system.open_output_stream(path) as stream:
        stream.write(body)


def _get(system: Any, path: str) -> bytes:
    with system.open_input_stream(path) as stream:
        raw: bytes = stream.read()
    return raw


def _exists(system: Any, path: str) -> bool:
    from pyarrow import fs

    found: bool = system.get_file_info(path).type != fs.FileType.NotFound
    return found


def _path(folder: str, started_ms: int, until_ms: int) -> str:
    return f"{folder}/{started_ms}-{until_ms}.json"


def _parse(path: str, raw: bytes) -> Publication:
    try:
        return _RECORD.validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ServiceError(
            f"{path} is no record of a publication ({place}: {first['msg']}): "
            "remove it if nothing is to be proved about that time"
        ) from None


def _now() -> int:
    return time.time_ns() // 1_000_000
