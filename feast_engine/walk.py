"""One walk over the rows of a history and the moments that are asked for, sorted together.

A row counts from the time it was known. Rows of a key pass by in that order, and one whose event
time is older than the newest passed already never answers anybody: known too late. So the row that
answers a moment is simply the last one before it that is not such a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pandas as pd

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

NEVER = -(2**62)
"""Stands for a created time that is null: before all others."""


@dataclass(frozen=True)
class Rows:
    """Sorted by `code`, then `time`.

    `time` of a row of the history: twice the microsecond from which it counts; of a moment that is
    asked for: twice the moment and one more, so that rows of the same microsecond come first.
    `number`: the history's row number, or the asking row's place. `event` and `created`: the
    history's, microseconds. `tied`: the row before, of an earlier chunk, agrees in all of these.
    """

    code: Integers
    time: Integers
    event: Integers
    created: Integers
    number: Integers
    tied: Flags

    @classmethod
    def of(cls, columns: Sequence[Integers]) -> Rows:
        """Rows that nothing is known of yet. columns: the first five."""
        code, time, event, created, number = columns
        return cls(code, time, event, created, number, np.zeros(len(code), bool))

    def __len__(self) -> int:
        return len(self.code)

    def __getitem__(self, which: slice | Integers) -> Rows:
        return Rows(*(getattr(self, field.name)[which] for field in fields(self)))

    def __add__(self, other: Rows) -> Rows:
        return Rows(
            *(
                np.concatenate([getattr(self, field.name), getattr(other, field.name)])
                for field in fields(self)
            )
        )

    @property
    def asking(self) -> Flags:
        return (self.time & 1).astype(bool)

    def same_key(self) -> Flags:
        """Whether a row is of the key of the row before it."""
        return np.concatenate([[False], self.code[1:] == self.code[:-1]])[: len(self)]


@dataclass
class Answers:
    """`rows`: for each asking row the number of the row that answers it, -1 none. `tied`: asking
    places and the code, event and created time of the answer, where several rows have these."""

    rows: Integers
    tied: list[tuple[Integers, Integers, Integers, Integers]]

    @classmethod
    def none(cls, count: int) -> Answers:
        return cls(np.full(count, -1, np.int64), [])


def walk(chunks: Iterable[Rows], answers: Answers, max_age: int | None) -> None:
    """Fill in the answers. chunks: sorted rows, in any cut. max_age: microseconds."""
    held = Rows.of([np.empty(0, np.int64)] * 5)
    for chunk in chunks:
        rows = held + chunk if len(held) else chunk
        # rows of one moment stay together: their order is settled when all are there
        changes = ~rows.same_key() | np.concatenate([[True], rows.time[1:] != rows.time[:-1]])
        cut = int(np.flatnonzero(changes)[-1]) if len(rows) else 0
        held = _answer(rows[:cut], answers, max_age) + rows[cut:]
    _answer(held, answers, max_age)


def _answer(rows: Rows, answers: Answers, max_age: int | None) -> Rows:
    """Answer the moments among the rows. Returns the row that may answer those that follow."""
    rows = _in_order(rows)
    asking = rows.asking
    past = np.flatnonzero(~asking)  # places: numpy gathers by them faster than by a mask
    best = rows[past]
    tied, newest = best.tied | _agree(best), _newest(best)
    if newest is not None:
        best, past, tied = best[newest], past[newest], tied[newest]
    moments = np.flatnonzero(asking)
    place = np.searchsorted(past, moments) - 1
    first = int(np.searchsorted(place, 0))
    asked, place = rows[moments[first:]], place[first:]
    found = best.code[place] == asked.code
    if max_age is not None:
        found &= (asked.time >> 1) - best.event[place] <= max_age
    hits = np.flatnonzero(found)
    places, place = asked.number[hits], place[hits]
    answers.rows[places] = best.number[place]
    unsettled = np.flatnonzero(tied[place])
    if len(unsettled):
        of = best[place[unsettled]]
        answers.tied.append((places[unsettled], of.code, of.event, of.created))
    last = best[-1:]
    return Rows(last.code, last.time, last.event, last.created, last.number, tied[-1:])


def _in_order(rows: Rows) -> Rows:
    """Rows of a key that count from the same microsecond on, by event time, then created time:
    the one that wins becomes the last."""
    same = rows.same_key()[1:] & (rows.time[1:] == rows.time[:-1]) & ~rows.asking[1:]
    if not same.any():
        return rows
    return rows[np.lexsort((rows.created, rows.event, rows.time, rows.code))]


def _agree(rows: Rows) -> Flags:
    """Whether a row has the key and both times of the row before it."""
    agree = rows.same_key()
    agree[1:] &= (rows.event[1:] == rows.event[:-1]) & (rows.created[1:] == rows.created[:-1])
    return agree


def _newest(rows: Rows) -> Integers | None:
    """Places of the rows before which no row of their key has a newer event time; None: all."""
    falls = rows.same_key()[1:] & (rows.event[1:] < rows.event[:-1])
    if not falls.any():
        return None
    newest = pd.Series(rows.event).groupby(rows.code).cummax().to_numpy()
    return np.flatnonzero(rows.event == newest)
