"""The candidate index: built from history, loaded from its folder, asked for candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from itertools import pairwise
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
import numpy.typing as npt

from candidate_service import merge
from candidate_service.board import Board, Floats, Ints
from candidate_service.files import Facts, Manifest, read, write
from candidate_service.history import History, Tabular, read_history
from candidate_service.merge import Proposals
from candidate_service.source import Answer, Muted, Source, Visit, among
from candidate_service.sources import source_classes
from contracts.candidates import OF_ANSWER, SHARED, SOURCES, CandidateSet
from contracts.errors import ReleaseError, UsageError
from contracts.session import KEPT_EVENTS

Report = Callable[[str], None]
"""Told the name of each step as it begins."""
Parameters = Mapping[str, Mapping[str, float]]

PER_SOURCE = 2
"""Candidates that each source is asked for, times the number wanted."""


def build_index(
    events: Tabular,
    vectors: Tabular | None,
    cutoff_ms: int,
    folder: Path,
    report: Report = lambda step: None,  # noqa: ARG005
    parameters: Parameters | None = None,
    catalogue: Tabular | None = None,
) -> Manifest:
    """Build `<folder>/<version>/` from events strictly before `cutoff_ms`.

    events, vectors, catalogue: tables `events_clean`, `item_vectors` and `item_catalogue`, or where
    they lie; without vectors the vector source answers nothing and the manifest says 0; without a
    catalogue those that need categories are silent. The same input gives the same version.
    parameters: by source (and "merge"), what differs from the defaults.
    UsageError: wrong columns, no event before the cut-off, unknown parameters.
    """
    chosen = all_parameters(parameters or {})
    report("read events")
    history = read_history(events, vectors, cutoff_ms, catalogue)
    if not len(history.item):
        raise UsageError(
            f"no event of interest before the cut-off {cutoff_ms}: import events, or cut later"
        )
    arrays = dict(_id_arrays(history.ids))
    for name, cls in source_classes().items():
        report(f"build {name}")
        built = cls.build(history, chosen[name])
        arrays |= {f"{name}.{array}": values for array, values in built.items()}
    report("write index")
    return write(_facts(history, chosen), arrays, Path(folder))


def all_parameters(given: Parameters) -> dict[str, dict[str, float]]:
    """The defaults with what is given put in; UsageError for a name that does not exist."""
    defaults: dict[str, Mapping[str, float]] = {
        name: cls.defaults for name, cls in source_classes().items()
    }
    defaults["merge"] = merge.DEFAULTS
    wanted = {(group, name) for group, values in given.items() for name in values}
    unknown = sorted(
        f"{group}.{name}" for group, name in wanted if name not in defaults.get(group, {})
    )
    if unknown:
        raise UsageError(f"unknown index parameters {unknown}; there are: {_names(defaults)}")
    chosen = {group: {**values, **given.get(group, {})} for group, values in defaults.items()}
    if sum(chosen[name]["quota"] for name in SOURCES) > 1:
        raise UsageError("the quotas of the candidate sources add up to over 1: lower one")
    return {group: {key: float(value) for key, value in chosen[group].items()} for group in chosen}


def _names(parameters: Parameters) -> str:
    return ", ".join(f"{group}.{name}" for group in parameters for name in parameters[group])


def _facts(history: History, parameters: dict[str, dict[str, float]]) -> Facts:
    vectors = history.vectors
    return Facts(
        cutoff_ms=history.cutoff_ms,
        rows=len(history.item),
        visits=len(np.unique(history.visit)),
        items=len(history.ids),
        vectors=0 if vectors is None else len(vectors.items),
        dimensions=0 if vectors is None else vectors.values.shape[1],
        sources=SOURCES,
        parameters=parameters,
    )


def _id_arrays(ids: Sequence[str]) -> Iterable[tuple[str, npt.NDArray[Any]]]:
    """Ids as one run of UTF-8 bytes and where each ends: any text survives."""
    encoded = [text.encode() for text in ids]
    yield "items.ends", np.cumsum([len(text) for text in encoded], dtype=np.int64)
    yield "items.text", np.frombuffer(b"".join(encoded), dtype=np.uint8)


def _ids(ends: npt.NDArray[np.int64], text: npt.NDArray[np.uint8]) -> tuple[str, ...]:
    whole = text.tobytes()
    places = [0, *ends.tolist()]
    return tuple(whole[start:end].decode() for start, end in pairwise(places))


class CandidateIndex:
    """An index in this process: `contracts.candidates.Candidates`. Immutable, safe in threads."""

    def __init__(self, manifest: Manifest, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self.manifest = manifest
        self._arrays = arrays
        self._ids = _ids(arrays["items.ends"], arrays["items.text"])
        self._numbers = {text: number for number, text in enumerate(self._ids)}
        self._sources: list[Source] = [Muted(cls) for cls in source_classes().values()]
        self._muted: frozenset[str] = frozenset()
        self._take(SOURCES)

    @classmethod
    def load(cls, folder: Path, verify: bool = True) -> CandidateIndex:
        """Open `<indexes>/<version>`; ReleaseError says what is wrong with it and what to do.

        verify: compare checksums; without, only that all files are there in their size.
        """
        manifest, arrays = read(Path(folder), verify)
        if manifest.sources != SOURCES:
            raise ReleaseError(
                f"candidate index {folder} has the sources {manifest.sources}, the code has"
                f" {SOURCES}: build it again (./nextclick train)"
            )
        expected = all_parameters({})
        for group, values in expected.items():
            if set(manifest.parameters.get(group, ())) != set(values):
                raise ReleaseError(
                    f"candidate index {folder} has other parameters of {group!r} than the code:"
                    " build it again (./nextclick train)"
                )
        return cls(manifest, arrays)

    def asked_with(self, parameters: Parameters) -> CandidateIndex:
        """The same tables, asked with other parameters: UsageError for one that tables depend on."""
        classes = source_classes()
        for name, values in parameters.items():
            asked = classes[name].asked if name in classes else merge.ASKED
            kept = {"weight", "quota", *asked}
            if fixed := sorted(set(values) - kept):
                raise UsageError(f"{name}: {fixed} are parameters of the tables: build them anew")
        chosen = {name: dict(values) for name, values in self.manifest.parameters.items()}
        for name, values in parameters.items():
            chosen[name] |= values
        other = copy(self)  # ids and the sources that stay the same are shared
        other.manifest = self.manifest.model_copy(update={"parameters": chosen})
        other._take(parameters)
        return other

    def without(self, sources: Iterable[str]) -> CandidateIndex:
        """The same index, of which these sources answer nothing: what each adds is measured so."""
        other = copy(self)
        other._muted = frozenset(sources)
        other._take(other._muted)
        return other

    def _take(self, changed: Iterable[str]) -> None:
        """Sources and merge with the parameters of the manifest, of those that `changed` names."""
        parameters, classes = self.manifest.parameters, source_classes()
        taken = list(self._sources)
        for place, (name, cls) in enumerate(classes.items()):
            if name in self._muted:
                taken[place] = Muted(cls)
            elif name in changed:
                arrays = _of_source(self._arrays, name)
                taken[place] = cls(arrays, parameters[name], len(self._ids))
        self._sources = taken
        self._weights = np.array([parameters[name]["weight"] for name in SOURCES])
        self._quotas = np.array([parameters[name]["quota"] for name in SOURCES])
        self._constant = parameters["merge"]["constant"]
        self._own = local()

    @property
    def version(self) -> str:
        return self.manifest.version

    @property
    def ids(self) -> tuple[str, ...]:
        """Item ids by number."""
        return self._ids

    def __len__(self) -> int:
        """Items that the index knows."""
        return len(self._ids)

    def __contains__(self, item: object) -> bool:
        return item in self._numbers

    def candidates(
        self, items: Sequence[str], count: int, exclude: Sequence[str] = ()
    ) -> CandidateSet:
        """At most `count` candidates for a visit, best first: see `Candidates.candidates`.

        The items of `exclude` are left out. Scores are those of every
        source, also of one that did not propose the item; they are nan where it cannot tell.
        """
        count = min(count, len(self._ids))
        if count <= 0:
            return CandidateSet.empty()
        answers = self._ask(items)
        out = self._left_out(exclude)
        found = [answer.top(PER_SOURCE * count + len(out)) for answer in answers]
        best = np.array([of[0] if len(of) else np.nan for _, of in found], dtype=np.float32)
        numbers, ranks = merge.merge(
            Proposals([proposed for proposed, _ in found]),
            self._weights, self._quotas, self._constant, count, out, self._own.merging,
        )  # fmt: skip
        scores = np.column_stack([answer.of(numbers) for answer in answers])
        told = _of_answer(scores, self._weights, self._constant, ranks, best)
        signals = np.column_stack([told, *(answer.signals_of(numbers) for answer in answers)])
        return CandidateSet(self._texts(numbers), scores, ranks, signals)

    def propose(
        self, source: str, items: Sequence[str], count: int, exclude: Sequence[str] = ()
    ) -> tuple[tuple[str, ...], Floats]:
        """What one source alone proposes, best first, and its scores."""
        place = SOURCES.index(source)
        board = self._boards()[place]
        board.clear()
        answer = self._sources[place].ask(self._visit(items), board)
        numbers, scores = _proposal(answer, count, self._left_out(exclude))
        return self._texts(numbers), scores

    def proposals(self, items: Sequence[str], depth: int, exclude: Sequence[str] = ()) -> Proposals:
        """What every source proposes, in the order of SOURCES: what the merge is made from."""
        out = self._left_out(exclude)
        found = [_proposal(answer, depth, out)[0] for answer in self._ask(items)]
        return Proposals(found)

    def number(self, item: str) -> int | None:
        """The item's number in proposals; None for one that the index does not know."""
        return self._numbers.get(item)

    def _ask(self, items: Sequence[str]) -> list[Answer]:
        visit = self._visit(items)
        boards = self._boards()
        for board in boards:
            board.clear()
        return [
            source.ask(visit, board) for source, board in zip(self._sources, boards, strict=True)
        ]

    def _boards(self) -> list[Board]:
        """This thread's, one a source."""
        boards: list[Board] | None = getattr(self._own, "boards", None)
        if boards is None:
            size = len(self._ids)
            boards = self._own.boards = [Board(size) for _ in self._sources]
            self._own.merging = Board(size), Board(size)
        return boards

    def _visit(self, items: Sequence[str]) -> Visit:
        """The newest known items, each once at its latest step, latest first."""
        known = [number for item in items if (number := self._numbers.get(item)) is not None]
        newest = known[: -KEPT_EVENTS - 1 : -1]
        steps: dict[int, int] = {}
        for step, number in enumerate(newest):
            steps.setdefault(number, step)
        return Visit(
            np.fromiter(steps, np.int32, len(steps)),
            np.fromiter(steps.values(), np.float64, len(steps)),
            np.array(newest[::-1], dtype=np.int32),
        )

    def _left_out(self, exclude: Sequence[str]) -> Ints:
        """Numbers of the items that the answer may not hold."""
        numbers = {self._numbers.get(item) for item in exclude}
        return np.array(sorted(number for number in numbers if number is not None), dtype=np.int32)

    def _texts(self, numbers: Ints) -> tuple[str, ...]:
        return tuple([self._ids[number] for number in numbers.tolist()])


def _of_source(arrays: Mapping[str, npt.NDArray[Any]], source: str) -> dict[str, npt.NDArray[Any]]:
    prefix = f"{source}."
    return {
        name.removeprefix(prefix): values
        for name, values in arrays.items()
        if name.startswith(prefix)
    }


_SHARED = [SOURCES.index(name) for name in SHARED]
_VECTOR = SOURCES.index("vector")


def _of_answer(
    scores: Floats, weights: npt.NDArray[np.float64], constant: float, ranks: Floats, best: Floats
) -> Floats:
    """The signals `OF_ANSWER`. scores, ranks: [n, sources]; best: the best score of each source."""
    told = np.empty((len(scores), len(OF_ANSWER)), dtype=np.float32)
    told[:, 0] = np.nansum(weights / (constant + ranks), axis=1)
    told[:, 1:-1] = scores[:, _SHARED] / best[_SHARED]
    told[:, -1] = scores[:, _VECTOR] - best[_VECTOR]
    return told


def _proposal(answer: Answer, count: int, out: Ints) -> tuple[Ints, Floats]:
    """The answer's best `count` items that are not left out."""
    numbers, scores = answer.top(count + len(out))
    if len(out):
        allowed = ~among(numbers, out)
        numbers, scores = numbers[allowed], scores[allowed]
    return numbers[:count], scores[:count]
