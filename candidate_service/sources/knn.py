"""What visits like this one went on to: nearest-neighbour sessions.

Jannach and Ludewig, "When Recurrent Neural Networks meet the Neighborhood for Session-based
Recommendation", RecSys 2017 (session kNN); Ludewig and Jannach, UMUAI 2018 (V-SKNN: newer clicks of
the visit count more); Garg et al., "Sequence and Time Aware Neighborhood for Session-based
Recommendations", SIGIR 2019 (STAN: the age of the neighbour, the distance of an item to the match).
"""

from __future__ import annotations

from threading import local
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from numba import njit

from candidate_service.board import Board, Floats, Ints
from candidate_service.history import History
from candidate_service.source import Answer, Arrays, OnBoard, Parameters, Source, Visit
from candidate_service.tables import indptr

FAR = 64
"""Distances in a session beyond this count as this."""
SUM, RATE, COUNT, BEST, TWO, NEWEST, NEXT = range(7)
"""Columns of the signals."""


class Knn(Source):
    """score = sum over past sessions that share items with the visit of similarity * place.

    similarity = sum over shared items of exp(-steps * step_decay) * idf, over the root of the
    session's length + 1, times (exp(-age / age_days) + floor). place, by the distance to the
    newest shared item: exp(-distance / item_decay) after it, `before` times that before it,
    `match` at it.
    """

    name = "knn"
    signals = (
        "knn_sum",
        "knn_rate",
        "knn_sessions",
        "knn_best",
        "knn_two_shared",
        "knn_newest",
        "knn_next",
    )
    defaults: ClassVar[Parameters] = {
        "weight": 2.0,
        "quota": 0.0,
        "newest": 20.0,  # distinct items of the visit that are looked up
        "kept": 3000.0,  # newest sessions of an item that are kept
        "sessions": 1500.0,  # of them, newest first, that are looked at
        "step_decay": 0.5,
        "age_days": 40.0,
        "floor": 0.05,
        "item_decay": 2.5,
        "before": 0.7,
        "match": 0.35,
    }
    asked: ClassVar[dict[str, tuple[float, ...]]] = {
        "step_decay": (0.2, 0.35, 0.5, 0.8, 1.2),
        "age_days": (10.0, 20.0, 40.0, 80.0),
        "item_decay": (0.5, 1.0, 2.5, 5.0),
        "before": (0.3, 0.5, 0.7, 1.0),
        "match": (0.05, 0.15, 0.35, 0.7),
    }

    @classmethod
    def build(cls, history: History, parameters: Parameters) -> dict[str, npt.NDArray[Any]]:
        starts, ages = history.visits()
        session = np.repeat(np.arange(len(ages), dtype=np.int32), np.diff(starts))
        place = (np.arange(len(session)) - starts[session]).astype(np.int32)
        return {
            "starts": starts,
            "items": history.item,
            "ages": ages.astype(np.float32),
            "idf": _idf(history, len(ages)),
            **_inverted(history.item, session, place, ages, history.items, int(parameters["kept"])),
        }

    def __init__(self, arrays: Arrays, parameters: Parameters, items: int) -> None:
        super().__init__(arrays, parameters, items)
        lengths = np.diff(arrays["starts"])
        recent = np.exp(-arrays["ages"] / parameters["age_days"]) + parameters["floor"]
        self._factor = (recent / np.sqrt(lengths + 1)).astype(np.float32)
        near = np.exp(-np.arange(FAR) / parameters["item_decay"])
        places = np.concatenate(
            (parameters["before"] * near[:0:-1], [parameters["match"]], near[1:])
        )
        self._places = places.astype(np.float32)  # by distance + FAR - 1
        self._held = np.diff(arrays["indptr"]).astype(np.float32)
        self._own = local()

    def ask(self, visit: Visit, board: Board) -> Answer:
        newest = int(self.parameters["newest"])
        rows, steps = visit.items[:newest], visit.steps[:newest]
        arrays, scratch = self.arrays, self._scratch()
        weights = (np.exp(-steps * self.parameters["step_decay"]) * arrays["idf"][rows]).astype(
            np.float32
        )
        found = _similar(
            rows, weights, arrays["indptr"], arrays["sessions"], arrays["at"],
            int(self.parameters["sessions"]), scratch.similarity, scratch.matched, scratch.shared,
            scratch.found,
        )  # fmt: skip
        board.count = _scored(
            scratch.found, found, scratch.similarity, scratch.matched, scratch.shared,
            self._factor, arrays["ages"], arrays["starts"], arrays["items"], self._places,
            board.scores, board.touched, scratch.signals,
        )  # fmt: skip
        return _Told(board, scratch.signals, self._held)

    def _scratch(self) -> _Scratch:
        scratch: _Scratch | None = getattr(self._own, "scratch", None)
        if scratch is None:
            scratch = self._own.scratch = _Scratch(len(self._factor), self.items)
        return scratch


class _Scratch:
    """Of one thread: similarity [sessions], 0 where not found; where the newest shared item lies and
    how many are shared; signals [items, 7], good for items that were touched."""

    def __init__(self, sessions: int, items: int) -> None:
        self.similarity = np.zeros(sessions, dtype=np.float32)
        self.matched = np.empty(sessions, dtype=np.int32)
        self.shared = np.empty(sessions, dtype=np.int32)
        self.found = np.empty(sessions, dtype=np.int32)
        self.signals = np.empty((items, len(Knn.signals)), dtype=np.float32)


class _Told(OnBoard):
    def __init__(self, board: Board, signals: Floats, held: Floats) -> None:
        super().__init__(board)
        self._signals, self._held = signals, held

    def signals_of(self, items: Ints) -> Floats:
        """0 for what no neighbour holds; of `knn_newest` nan."""
        told = self._signals[items]
        unknown = self.board.scores[items] == 0
        told[unknown] = 0
        told[unknown, NEWEST] = np.nan
        told[:, RATE] = told[:, SUM] / (self._held[items] + 5)
        return told


def _idf(history: History, sessions: int) -> Floats:
    """log(sessions / sessions that hold the item), as V-SKNN weighs rare items."""
    pairs = np.unique(history.visit.astype(np.int64) * history.items + history.item)
    held = np.bincount(pairs % max(history.items, 1), minlength=history.items)
    return (np.log(max(sessions, 1) / np.maximum(held, 1)) + 1e-3).astype(np.float32)


def _inverted(
    item: Ints, session: Ints, place: Ints, ages: npt.NDArray[np.float64], items: int, kept: int
) -> dict[str, npt.NDArray[Any]]:
    """Sessions of each item, newest first, each once with the item's last place in it."""
    order = np.lexsort((-place, session, ages[session], item))
    item, session, place = item[order], session[order], place[order]
    again = (item[1:] == item[:-1]) & (session[1:] == session[:-1])
    first = np.concatenate(([True], ~again)) if len(item) else np.empty(0, bool)
    item, session, place = item[first], session[first], place[first]
    few = np.arange(len(item)) - indptr(item, items)[item] < kept
    return {
        "indptr": indptr(item[few], items),
        "sessions": session[few],
        "at": place[few],
    }


@njit(cache=True, nogil=True)
def _similar(rows, weights, indptr, sessions, at, most, similarity, matched, shared, found):  # type: ignore[no-untyped-def]
    """Adds up similarities; the number of sessions found. Rows come latest first."""
    count = 0
    for place in range(len(rows)):
        if not weights[place] > 0:  # float32 ends: it would count as not found for ever
            continue
        start = indptr[rows[place]]
        for pair in range(start, min(indptr[rows[place] + 1], start + most)):
            session = sessions[pair]
            if similarity[session] == 0:
                found[count] = session
                count += 1
                # the sign tells whether the match is the visit's last item
                matched[session] = at[pair] if place == 0 else -1 - at[pair]
                shared[session] = 0
            similarity[session] += weights[place]
            shared[session] += 1
    return count


@njit(cache=True, nogil=True)
def _scored(  # type: ignore[no-untyped-def]
    found, sessions, similarity, matched, shared, factor, ages, starts, items, places,
    scores, touched, signals,
):  # fmt: skip
    count = 0
    far = (len(places) - 1) // 2
    for number in range(sessions):
        session = found[number]
        plain = similarity[session]
        similarity[session] = 0
        alike = plain * factor[session]
        match = matched[session]
        is_last = match >= 0
        if not is_last:
            match = -1 - match
        two = shared[session] >= 2
        age = ages[session]
        start = starts[session]
        for place in range(start, starts[session + 1]):
            item = items[place]
            distance = place - start - match
            score = alike * places[max(-far, min(far, distance)) + far]
            if not score > 0:
                continue
            if scores[item] == 0:
                touched[count] = item
                count += 1
                signals[item, :] = 0
                signals[item, NEWEST] = age
            scores[item] += score
            told = signals[item]
            told[SUM] += alike
            told[COUNT] += 1
            told[BEST] = max(told[BEST], alike)
            told[TWO] += two
            told[NEWEST] = min(told[NEWEST], age)
            if is_last and distance == 1:
                told[NEXT] += alike
    return count
