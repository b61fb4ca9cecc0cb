"""How Feast lays features out in Redis, encoded a column at a time (`feast_engine.decode` reads it).

A row of a view lies in the hash of its entity, under
`entity key (serialisation version 3) + project`. Its fields: for each feature the murmur3 hash of
`view:feature` as 4 bytes, holding a `feast.types.Value`; and `_ts:view`, holding the event time as
a `google.protobuf.Timestamp`. Views of the same entity share the hash. An empty value is a missing
one. Source: Feast's docs/specs/online_store_format.md and infra/online_stores/redis.py; the tests
hold every function here equal to Feast's own.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from operator import index
from typing import Any

import mmh3
import numpy as np
import numpy.typing as npt

from contracts.errors import UsageError, shown
from contracts.features import VIEWS, DType, View, of_view

VERSION = "session_version"
_STRING = 2  # feast.types.ValueType.STRING
_SIZE = struct.Struct("<I").pack
_VARINT_BYTES = 10
_MASK = (1 << 64) - 1
_SMALL = tuple(bytes([number]) for number in range(0x80))
# what stands before the varints of a list, by how many bytes those are: most lists are short
_SHORT_LISTS = tuple(b"\x72" + _SMALL[size + 2] + b"\x0a" + _SMALL[size] for size in range(0x7E))
_SHIFTS = np.arange(0, 7 * _VARINT_BYTES, 7, dtype=np.uint64)


@dataclass(frozen=True)
class ViewLayout:
    """Names and types of a stored view's fields. `suffix` is what follows the id in a key;
    `version`: of views of a session the field that tells of which state the hash is
    (`contracts.session.SessionState.version`), of others nothing."""

    view: View
    prefix: bytes
    suffix: bytes
    timestamp: bytes
    fields: dict[str, bytes]
    types: dict[str, DType]
    version: bytes

    def key(self, entity_id: str) -> bytes:
        """The hash of an entity."""
        raw = entity_id.encode()
        return self.head(len(raw)) + raw + self.suffix

    def head(self, size: int) -> bytes:
        """What stands before an id of so many bytes."""
        return self.prefix + _SIZE(size)

    def keys(self, entity_ids: Sequence[str]) -> list[bytes]:
        """The hashes of many."""
        raws = list(map(str.encode, entity_ids))
        heads = {size: self.head(size) for size in set(map(len, raws))}
        return [heads[len(raw)] + raw + self.suffix for raw in raws]


@lru_cache(maxsize=64)
def layout_of(name: str, project: str) -> ViewLayout:
    """Layout of a stored view. UsageError for a name that is none."""
    view = VIEWS.get(name)
    if view is None or view.on_demand:
        stored = ", ".join(each.name for each in VIEWS.values() if not each.on_demand)
        raise UsageError(f"{name!r} is no stored view; there are {stored}")
    (join_key,) = view.join_keys
    raw = join_key.encode()
    return ViewLayout(
        view=view,
        prefix=struct.pack("<III", 1, _STRING, len(raw)) + raw + struct.pack("<I", _STRING),
        suffix=project.encode(),
        timestamp=f"_ts:{name}".encode(),
        fields={feature.name: _field(name, feature.name) for feature in of_view(name)},
        types={feature.name: feature.dtype for feature in of_view(name)},
        version=_field("session", VERSION) if view.entities == ("session",) else b"",
    )


def _field(view: str, feature: str) -> bytes:
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


# --- encoding ---


def encode_column(dtype: DType, values: Sequence[Any]) -> list[bytes]:
    """Values as Feast stores them; None, and nan in a float column, are stored as missing.

    UsageError for a value that is not of the type.
    """
    try:
        if dtype is DType.float32:
            return _encode_floats(values)
        if dtype is DType.list_int64:
            return _encode_int64_lists(values)
        encode = _ENCODERS[dtype]
        return [b"" if value is None else encode(value) for value in values]
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UsageError(f"expected values of {dtype}, got {shown(values)}: {error}") from None


@lru_cache(maxsize=16_384)  # the views of an entity share it
def encode_timestamp(milliseconds: int) -> bytes:
    """An event time as a protobuf Timestamp: seconds and nanoseconds, each left out where 0."""
    seconds, rest = divmod(milliseconds, 1000)
    parts = [b"\x08" + _varint(seconds)] if seconds else []
    return b"".join([*parts, b"\x10" + _varint(rest * 1_000_000)] if rest else parts)


def _encode_floats(values: Sequence[Any]) -> list[bytes]:
    array = np.asarray(values, dtype=np.float32)
    raw = array.astype("<f4").tobytes()
    missing = np.isnan(array).tolist()
    return [
        b"" if missing[row] else b"\x35" + raw[4 * row : 4 * row + 4] for row in range(len(array))
    ]


def _varint(value: int) -> bytes:
    number = index(value)
    if 0 <= number < len(_SMALL):
        return _SMALL[number]
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"{number} does not fit into 64 bits")
    rest = number & _MASK
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _sized(tag: bytes, body: bytes) -> bytes:
    return tag + _varint(len(body)) + body


def _encode_text(value: str) -> bytes:
    return _sized(b"\x12", value.encode())


def _encode_int64_lists(lists: Sequence[Sequence[int] | None]) -> list[bytes]:
    """All numbers of all lists become varints at once; each list takes its part of the bytes."""
    sizes = [len(each) if each is not None else 0 for each in lists]
    numbers = chain.from_iterable(each for each in lists if each is not None)
    digits, used = varint_digits(np.fromiter(map(index, numbers), np.int64, sum(sizes)))
    raw = digits[np.arange(_VARINT_BYTES) < used[:, None]].tobytes()
    number_ends = np.concatenate([[0], np.cumsum(used)])
    ends = number_ends[np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)].tolist()
    bodies = [raw[start:end] for start, end in pairwise(ends)]
    return [
        b"" if each is None else _numbers(body) for each, body in zip(lists, bodies, strict=True)
    ]


def _numbers(body: bytes) -> bytes:
    """A list of numbers around its varints."""
    if 0 < len(body) < len(_SHORT_LISTS):
        return _SHORT_LISTS[len(body)] + body
    return _sized(b"\x72", _sized(b"\x0a", body) if body else b"")


def varint_digits(
    numbers: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The bytes of each number's varint [n, 10], and how many of them count [n]."""
    digits: npt.NDArray[np.uint8] = (numbers.view(np.uint64)[:, None] >> _SHIFTS).astype(np.uint8)
    digits &= 0x7F
    used = _VARINT_BYTES - (digits[:, ::-1] != 0).argmax(axis=1)
    used[~digits.any(axis=1)] = 1
    place = np.arange(_VARINT_BYTES)
    digits |= np.where(place < used[:, None] - 1, 0x80, 0).astype(np.uint8)
    return digits, used.astype(np.int64)


def _encode_texts(values: Sequence[str]) -> bytes:
    return _sized(b"\x62", b"".join(_sized(b"\x0a", value.encode()) for value in values))


_ENCODERS: dict[DType, Any] = {
    DType.int64: lambda value: b"\x20" + _varint(value),
    DType.string: _encode_text,
    DType.list_string: _encode_texts,
}
