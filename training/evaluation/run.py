"""The stages of an evaluation, from a file to the ranks of every test prefix."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from candidate_service.history import read_history
from candidate_service.index import CandidateIndex, build_index
from contracts.candidates import SIGNALS, SOURCES
from contracts.errors import UsageError
from contracts.features import BY_NAME, RANKED
from contracts.windows import WANTED_QUERIES, label_windows
from training import dataset, evaluate, parity, ranker
from training.dataset import FeatureReader, Rows
from training.encoder.learn import Options as EncoderOptions
from training.encoder.step import learn_all
from training.evaluation.shop import Shop
from training.frozen import FrozenItems, frozen_reader
from training.history import Query
from training.metrics import mid_rank
from training.tuning import tune

Prefix = tuple[int, int]
Parameters = dict[str, dict[str, float]]
Report = Callable[[str, int, int], None]
LISTED = 20
"""Places of a list that is looked at."""
END = 1 << 62
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Options:
    """count: candidates kept. queries: prefixes that the ranker learns from. without: features that
    it may not see (ablation), by name. embedding: whether the session encoder is learned."""

    count: int = 100
    queries: int = WANTED_QUERIES
    seed: int = 0
    embedding: bool = True
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    tune: bool = True
    without: frozenset[str] = frozenset()
    without_sources: tuple[str, ...] = ()
    ranker: Mapping[str, Any] = field(default_factory=dict)
    label_weights: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Stages:
    """Times stages and notes the memory of the process after each."""

    report: Report
    seconds: dict[str, float] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[int, int], None]]:
        begun = time.monotonic()
        self.report(name, 0, 1)
        yield lambda done, of: self.report(name, done, of)
        self.seconds[name] = round(self.seconds.get(name, 0) + time.monotonic() - begun, 2)
        used = psutil.Process().memory_info().rss / MEGABYTE
        self.megabytes[name] = round(max(used, self.megabytes.get(name, 0)), 1)
        self.report(name, 1, 1)


@dataclass(frozen=True)
class Ranked:
    """q test queries. ranks: by method [q], from 1, inf where the label is not listed; recalled: by
    source and "merged", whether the label is among its best `count` [q]; lists: int32 [q, LISTED],
    places in `items`, -1 beyond the end."""

    ranks: Mapping[str, npt.NDArray[np.float64]]
    recalled: Mapping[str, npt.NDArray[np.bool_]]
    lists: npt.NDArray[np.int32]
    items: tuple[str, ...]


@dataclass(frozen=True)
class Fitted:
    """All that an evaluation learned from the train part."""

    ranker: ranker.Fitted
    index: CandidateIndex
    parameters: Mapping[str, Mapping[str, float]]
    windows: tuple[tuple[int, int], ...]
    learned: int


@dataclass(frozen=True)
class LabelRows:
    """Rows of the label windows, the newest first, what became of each query's label, and what they
    were made with."""

    rows: tuple[Rows, ...]
    kinds: tuple[list[str], ...]
    windows: tuple[tuple[int, int], ...]
    parameters: Parameters
    vectors: Mapping[int, Path]


class Evaluation:
    """One run over a shop. `folder`: where indexes are kept; `vectors`: the encoders, there too if
    nothing else is said."""

    def __init__(
        self, shop: Shop, options: Options, folder: Path, report: Report,
        vectors: Path | None = None,
    ) -> None:  # fmt: skip
        self.shop, self.options, self.folder = shop, options, folder
        self._encoders = vectors or folder / "vectors"
        self.stages = Stages(report)
        hidden = shop.unknown | options.without
        self._hidden = [place for place, name in enumerate(RANKED) if name in hidden]

    # --- learning ------------------------------------------------------------------------------

    def learn(self) -> LabelRows:
        """Rows of the label windows. Everything here sees events before the cut-off only."""
        shop, options = self.shop, self.options
        with self.stages.stage("windows"):
            windows = label_windows(
                shop.first, shop.cutoff, shop.length,
                lambda start, end: len(self._labelled((start, end))), options.queries,
            )  # fmt: skip
            chosen = self._sampled([self._labelled(window) for window in windows])
        with self.stages.stage("encoder") as progress:
            vectors = self._vectors([*(start for start, _ in windows), shop.cutoff], progress)
        with self.stages.stage("indexes"):
            newest = self._index(windows[0][0], vectors, {})
        with self.stages.stage("tune the sources") as progress:
            parameters = self._tuned(newest, chosen[0], progress)
        rows, kinds = [], []
        for (start, _), prefixes in zip(windows, chosen, strict=True):
            with self.stages.stage("indexes"):
                first = start == windows[0][0]
                index = (
                    newest.asked_with(parameters)
                    if first
                    else self._index(start, vectors, parameters)
                )
            with self.stages.stage("rows of the label windows") as progress:
                if found := self._rows(index, start, prefixes):
                    rows.append(found[0])
                    kinds.append(found[1])
                progress(1, 1)
        if not rows:
            raise UsageError(
                "no label of a label window is among its candidates: the train part is too short,"
                " or nothing in it repeats"
            )
        return LabelRows(tuple(rows), tuple(kinds), windows, parameters, vectors)

    def fit(self) -> Fitted:
        learned = self.learn()
        with self.stages.stage("fit the ranker"):
            fitted = ranker.fit(learned.rows, self.options.seed, self.options.ranker)
        with self.stages.stage("indexes"):
            index = self._index(self.shop.cutoff, learned.vectors, learned.parameters)
        queries = sum(len(part.sizes) for part in learned.rows)
        return Fitted(fitted, index, learned.parameters, learned.windows, queries)

    def _labelled(self, window: tuple[int, int]) -> list[Prefix]:
        """Prefixes of a window whose label lies before the cut-off too."""
        found = self.shop.prefixes(*window)
        return [prefix for prefix in found if self.shop.times[prefix[1]] < self.shop.cutoff]

    def _sampled(self, windows: Sequence[list[Prefix]]) -> list[list[Prefix]]:
        """At most `queries` in all, drawn evenly."""
        total = sum(map(len, windows))
        if total <= self.options.queries:
            return list(windows)
        rng = np.random.default_rng(self.options.seed)
        share = self.options.queries / total
        return [
            [
                part[row]
                for row in np.sort(rng.choice(len(part), int(len(part) * share), replace=False))
            ]
            for part in windows
        ]

    def _vectors(
        self, cutoffs: Sequence[int], progress: Callable[[int, int], None]
    ) -> dict[int, Path]:
        if not self.options.embedding:
            return {}
        return learn_all(
            lambda cutoff: read_history(self.shop.before(cutoff), None, cutoff),
            lambda cutoff: self._encoders / f"cutoff={cutoff}",
            cutoffs, self.options.encoder, None, progress, reuse=True,
            repeats=self.shop.current, warm=False,
        )  # fmt: skip

    def _index(self, cutoff: int, vectors: Mapping[int, Any], parameters: Any) -> CandidateIndex:
        manifest = build_index(
            self.shop.before(cutoff), vectors.get(cutoff), cutoff, self.folder / "indexes",
            parameters=parameters, catalogue=self.shop.catalogue,
        )  # fmt: skip
        index = CandidateIndex.load(self.folder / "indexes" / manifest.version, verify=False)
        return index.without(self.options.without_sources)

    def _tuned(
        self, index: CandidateIndex, prefixes: list[Prefix], progress: Callable[[int, int], None]
    ) -> Parameters:
        """Of the newest label window."""
        if not self.options.tune:
            return {}
        return tune(
            index, [self.shop.query(prefix) for prefix in prefixes], self.options.count,
            current=self.shop.current, report=progress,
        )  # fmt: skip

    def _rows(
        self, index: CandidateIndex, cutoff: int, prefixes: list[Prefix]
    ) -> tuple[Rows, list[str]] | None:
        """None where no label is among its candidates, as in a week in which the shop was closed."""
        queries = [
            query
            for query in map(self.shop.query, prefixes)
            if index.number(query.label) is not None
        ]
        listed = dataset.propose(queries, index, self.options.count, current=self.shop.current)
        kept = dataset.with_negatives(listed, self.options.seed)
        if not kept:
            return None
        rows = dataset.rows_of(kept, self.reader(cutoff, prefixes), self.options.label_weights)
        return self.hidden(rows), [entry.query.kind for entry in kept]

    def reader(self, cutoff: int, prefixes: Sequence[Prefix]) -> FeatureReader:
        items = FrozenItems.of(self.shop.events, self.shop.catalogue, cutoff)
        read: FeatureReader = frozen_reader(items, self.shop.session_columns(prefixes))
        return read

    def hidden(self, rows: Rows) -> Rows:
        rows.features[:, self._hidden] = np.nan
        return rows

    # --- the test part -------------------------------------------------------------------------

    def rank(self, fitted: Fitted, prefixes: Sequence[Prefix]) -> Ranked:
        """The ranks of the labels, block by block."""
        with self.stages.stage("rank the test part") as progress:
            items = FrozenItems.of(self.shop.events, self.shop.catalogue, self.shop.cutoff)
            blocks = []
            for start in range(0, len(prefixes), evaluate.BLOCK):
                block = prefixes[start : start + evaluate.BLOCK]
                read = frozen_reader(items, self.shop.session_columns(block))
                blocks.append(self._block(fitted, [self.shop.query(p) for p in block], read))
                progress(start + len(block), len(prefixes))
        return Ranked(
            {
                name: np.concatenate([block.ranks[name] for block in blocks])
                for name in blocks[0].ranks
            },
            {
                name: np.concatenate([block.recalled[name] for block in blocks])
                for name in blocks[0].recalled
            },
            np.concatenate([block.lists for block in blocks]),
            fitted.index.ids,
        )

    def _block(self, fitted: Fitted, queries: list[Query], read: FeatureReader) -> Ranked:
        index, count = fitted.index, self.options.count
        listed = dataset.propose(queries, index, count, current=self.shop.current)
        rows = self.hidden(dataset.rows_of(listed, read))
        scores = parity.native_scores(fitted.ranker.booster, rows.features)
        ranks, lists, start = [], np.full((len(listed), LISTED), -1, dtype=np.int32), 0
        for row, entry in enumerate(listed):
            own = scores[start : start + len(entry.candidates)]
            start += len(own)
            ranks.append(mid_rank(own, entry.label))
            best = np.argsort(-own, kind="stable")[:LISTED]
            names = [entry.candidates.items[place] for place in best]
            numbers = [number for name in names if (number := index.number(name)) is not None]
            lists[row, : len(best)] = numbers
        by_source = self._by_source(index, queries)
        return Ranked(
            {"ranker": np.array(ranks), "merged": evaluate.merged_ranks(listed), **by_source},
            {"merged": np.array([entry.label is not None for entry in listed]),
             **{name: ranks <= count for name, ranks in by_source.items()}},
            lists, (),
        )  # fmt: skip

    def _by_source(
        self, index: CandidateIndex, queries: list[Query]
    ) -> dict[str, npt.NDArray[np.float64]]:
        """The rank of each label in what every source alone proposes, of those that are asked."""
        ranks = np.full((len(queries), len(SOURCES)), np.inf)
        for row, query in enumerate(queries):
            label = index.number(query.label)
            if label is not None:
                out = () if self.shop.current else query.visited[-1:]
                found = index.proposals(query.visited, self.options.count, out)
                source, place = np.nonzero(found.items == label)
                listed = place < found.counts[source]
                ranks[row, source[listed]] = place[listed] + 1
        return {
            name: ranks[:, column]
            for column, name in enumerate(SOURCES)
            if name not in self.options.without_sources
        }


def left_out(names: Sequence[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Candidate sources, and ranked features, that these names leave out: a source with all that it
    says, else a feature, a view or a group of `contracts.features`. UsageError for what is none."""
    sources: list[str] = []
    features: set[str] = set()
    for name in names:
        found = _of_source(name) if name in SOURCES else _of_group(name)
        if not found:
            raise UsageError(
                f"--without {name}: neither a source ({', '.join(SOURCES)}) nor a feature, view or"
                " group (group:session where a source has the same name)"
            )
        sources += [name] if name in SOURCES else []
        features |= found
    if len(set(sources)) == len(SOURCES):
        raise UsageError("--without: nothing would propose a candidate; leave a source")
    return tuple(name for name in SOURCES if name in sources), frozenset(features)


def _of_source(name: str) -> set[str]:
    """What is said of a candidate by the source alone."""
    said = {f"{name}_score", f"{name}_rank", *SIGNALS}
    return {feature for feature in RANKED if feature in said and feature.startswith(f"{name}_")}


def _of_group(name: str) -> set[str]:
    name = name.removeprefix("group:")
    return {
        feature for feature in RANKED
        if name in (feature, BY_NAME[feature].view, BY_NAME[feature].group.value)
    }  # fmt: skip
