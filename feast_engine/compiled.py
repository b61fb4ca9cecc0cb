"""Redis's replies and the cells in them, read from bytes by compiled functions.

Of 200 replies of 18 fields hiredis makes 3,600 objects, which take longer than the answer. These
functions make none: `scan` notes where each cell lies, the decoders read one type's cells of a
table [rows, fields]. `feast_engine.decode` and `feast_engine.replies` are their only callers.

numba compiles when this module is imported (some seconds, once per checkout: it keeps the result
beside the module, or in NUMBA_CACHE_DIR where that folder is not writable), so never in a request.
Indices are not checked: all come from `scan`, or lie below an `end` that is looked at first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

MORE, WHOLE, REFUSED, STRANGE = 0, 1, 2, 3
"""What `scan` says: more bytes are needed; all is there; an error reply or something else than the
replies that were asked for begins where it stopped."""
FITS, OTHER_TAG, TOO_LONG, OTHER_SHAPE = 0, 1, 2, 3
"""What decoders say of the cells: the first that does not fit the type decides."""

_VARINT_BYTES = 10
_STAR, _DOLLAR, _MINUS, _CR, _LF, _ZERO = b"*$-\r\n0"
_FLOAT_TAG, _INT64_TAG, _SECONDS_TAG, _NANOS_TAG = 0x35, 0x20, 0x08, 0x10
_MOST_SECONDS = 1 << 50
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(signature: str) -> Callable[[_Function], _Function]:
    made = numba.njit(signature, cache=True, nogil=True)
    return cast(Callable[[_Function], _Function], made)


@_compiled("UniTuple(int64, 2)(uint8[::1], int64, int64)")
def _number(buffer: Bytes, place: int, end: int) -> tuple[Any, int]:
    """The number of the line from `place`, and where the next line begins: -1 where the line is not
    there as a whole, -2 where it is no number."""
    negative = place < end and buffer[place] == _MINUS
    first = place + 1 if negative else place
    place, value = first, np.int64(0)
    while place < end and place - first < 10 and 0 <= np.int64(buffer[place]) - _ZERO <= 9:
        value = value * 10 + np.int64(buffer[place]) - _ZERO
        place += 1
    if place == end:
        return 0, -1
    if place == first or buffer[place] != _CR:
        return 0, -2
    if place + 1 == end:
        return 0, -1
    if buffer[place + 1] != _LF:
        return 0, -2
    return (-value if negative else value), place + 2


@_compiled("UniTuple(int64, 2)(uint8[::1], int64, int64, int64)")
def _head(buffer: Bytes, place: int, end: int, kind: int) -> tuple[int, int]:
    """The same of a line that begins with `kind`."""
    if place >= end:
        return 0, -1
    if buffer[place] != kind:
        return 0, -2
    return _number(buffer, place + 1, end)


@_compiled("UniTuple(int64, 3)(uint8[::1], int64, int64)")
def _bulk(buffer: Bytes, place: int, end: int) -> tuple[int, int, int]:
    """Start and size (-1: nil) of a bulk string, and where the next reply begins; see `_number`."""
    size, start = _head(buffer, place, end, _DOLLAR)
    if start < 0 or size == -1:
        return start, size, start
    if size < 0:
        return start, size, -2
    after = start + size + 2
    if after > end:
        return start, size, -1
    if buffer[after - 2] != _CR or buffer[after - 1] != _LF:
        return start, size, -2
    return start, size, after


@_compiled(
    "UniTuple(int64, 3)(uint8[::1], int64, int64, int64, int64, int64[:, ::1], int64[:, ::1])"
)
def scan(
    buffer: Bytes, place: int, end: int, done: int, fields: int, starts: Ints, sizes: Ints
) -> tuple[int, int, int]:
    """Note where the cells of array replies (RESP2) of `fields` bulk strings each lie.

    Begins at `place`, with `done` cells known, and goes on where data ended before: gives cells
    known, where the next begins, and MORE, WHOLE, REFUSED or STRANGE. starts, sizes: [rows, fields];
    the size of a nil is -1.
    """
    cells, row, field = starts.size, done // fields, done % fields
    while done < cells:
        after = place
        if field == 0:
            if place < end and buffer[place] == _MINUS:
                return done, place, REFUSED
            count, after = _head(buffer, place, end, _STAR)
            if after >= 0 and count != fields:
                after = -2
        if after >= 0:
            start, size, after = _bulk(buffer, after, end)
        if after < 0:
            return done, place, (MORE if after == -1 else STRANGE)
        starts[row, field], sizes[row, field] = start, size
        place, done, field = after, done + 1, field + 1
        if field == fields:
            row, field = row + 1, 0
    return done, place, WHOLE


@_compiled(
    "int64(uint8[::1], int64[:, ::1], int64[:, ::1], int64[::1], uint32[:, ::1])",
)
def floats(buffer: Bytes, starts: Ints, sizes: Ints, places: Ints, out: Any) -> int:
    """The float32 of each cell as its bits, out [places, rows]; nan where there is none."""
    for column in range(len(places)):
        for row in range(len(starts)):
            start, size = starts[row, places[column]], sizes[row, places[column]]
            if size <= 0:
                out[column, row] = 0x7FC00000
                continue
            if buffer[start] != _FLOAT_TAG:
                return OTHER_TAG
            if size != 5:
                return OTHER_SHAPE
            bits = np.uint32(0)
            for byte in range(4):
                bits |= np.uint32(buffer[start + 1 + byte]) << np.uint32(8 * byte)
            out[column, row] = bits
    return FITS


@_compiled("Tuple((uint64, int64))(uint8[::1], int64, int64)")
def _varint(buffer: Bytes, place: int, end: int) -> tuple[Any, int]:
    """A varint's value (of 64 bits) and where it ends; minus what is wrong with it."""
    value, shift = np.uint64(0), np.uint64(0)
    last = min(end, place + _VARINT_BYTES)
    for at in range(place, last):
        byte = np.uint64(buffer[at])
        value |= (byte & np.uint64(0x7F)) << shift
        shift += np.uint64(7)
        if byte < np.uint64(0x80):
            return value, at + 1
    return value, -(TOO_LONG if last < end else OTHER_SHAPE)


@_compiled("int64(uint8[::1], int64[:, ::1], int64[:, ::1], int64[::1], int64[:, ::1])")
def int64s(buffer: Bytes, starts: Ints, sizes: Ints, places: Ints, out: Ints) -> int:
    """The int64 of each cell, out [places, rows]; 0 where there is none."""
    for column in range(len(places)):
        for row in range(len(starts)):
            start, size = starts[row, places[column]], sizes[row, places[column]]
            if size <= 0:
                out[column, row] = 0
                continue
            if buffer[start] != _INT64_TAG:
                return OTHER_TAG
            value, after = _varint(buffer, start + 1, start + size)
            if after < 0:
                return -after
            if after != start + size:
                return OTHER_SHAPE
            out[column, row] = np.int64(value)
    return FITS


@_compiled("UniTuple(int64, 2)(uint8[::1], int64, int64)")
def _timestamp(buffer: Bytes, place: int, end: int) -> tuple[Any, int]:
    """Milliseconds, and what is wrong with the bytes."""
    seconds = nanos = np.int64(0)
    while place < end:
        tag = buffer[place]
        value, place = _varint(buffer, place + 1, end)
        if place < 0:
            return 0, -place
        if tag == _SECONDS_TAG:
            seconds = np.int64(value)
        elif tag == _NANOS_TAG:
            nanos = np.int64(value)
    if not -_MOST_SECONDS < seconds < _MOST_SECONDS:
        return 0, OTHER_SHAPE
    return seconds * 1000 + nanos // 1_000_000, FITS


@_compiled("int64(uint8[::1], int64[:, ::1], int64[:, ::1], int64, int64[::1])")
def timestamps(buffer: Bytes, starts: Ints, sizes: Ints, place: int, out: Ints) -> int:
    """Milliseconds of the protobuf Timestamps of a field, out [rows]; -1 where there is none."""
    for row in range(len(starts)):
        start, size = starts[row, place], sizes[row, place]
        out[row] = -1
        if size >= 0:
            out[row], wrong = _timestamp(buffer, start, start + size)
            if wrong != FITS:
                return wrong
    return FITS
