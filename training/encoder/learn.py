"""Learning the encoder from visits: batches, schedule, Adam."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.errors import UsageError
from training.encoder.model import LENGTH, Weights, initial_weights, loss

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Report = Callable[[int, int], None]

BUCKETS = (2, 4, 8, LENGTH)
"""Lengths that clicks are padded to: each is compiled once."""
OVERLAP = LENGTH // 2
"""Clicks that a part of a long visit shares with the part before, as context."""
LEAST_CLICKS = 200
"""Fewer clicks than this teach no vectors worth serving."""


@dataclass(frozen=True)
class Options:
    """members: encoders that differ in their seed, served as one whose score is the mean of theirs.
    dimensions: of each member's vectors. negatives: sampled a step, in proportion to count ** `power`. steps_an_epoch: batches are as
    small as that many steps need, within `batch`. least_steps: small shops get more epochs, at most
    `most_epochs`; warm: of a start from what was learned earlier. half_life_days: age at which a click counts half."""

    members: int = 2
    dimensions: int = 128
    epochs: int = 5
    warm_epochs: int = 2
    most_epochs: int = 20
    least_steps: int = 600
    least_warm_steps: int = 200
    steps_an_epoch: int = 300
    batch: tuple[int, int] = (32, 512)
    rate: float = 4e-3
    warm_rate: float = 2e-3
    warm_up: float = 0.08
    dropout: float = 0.25
    negatives: int = 3072
    power: float = 0.6
    half_life_days: float = 60.0
    seed: int = 0


@dataclass(frozen=True)
class Encoded:
    """What was learned. ids: of the items, [m]; vectors: float32 [m, members * dimensions], unit, a
    block of each member's side by side; weights: of the encoders
    (`training.encoder.model.initial_weights`), each with the members as its first axis."""

    ids: tuple[str, ...]
    vectors: Floats
    weights: Weights


@dataclass(frozen=True)
class Visits:
    """items: item numbers of all clicks, visit after visit, oldest first; starts: where each visit
    begins, and one end more; ages: days from each visit to the cut-off; ids by item number."""

    items: Ints
    starts: Longs
    ages: npt.NDArray[np.float64]
    ids: tuple[str, ...]


def learn(
    visits: Visits, options: Options, start: Encoded | None = None,
    report: Report = lambda done, of: None,  # noqa: ARG005
) -> Encoded:  # fmt: skip
    """The encoders of these visits. start: what was learned earlier, of other visits of the same shop;
    then fewer epochs are enough. UsageError where there is too little to learn from, or JAX is not
    installed."""
    if not enough(visits):
        raise UsageError(
            f"{len(visits.items)} clicks: the encoder needs at least {LEAST_CLICKS}, and a visit of two"
        )
    count = options.members
    starts = _members(start, options)
    learned = [
        _learn_one(
            visits, replace(options, seed=options.seed * count + member), starts[member],
            lambda done, of, member=member: report(member * of + done, count * of),  # type: ignore[misc]
        )
        for member in range(count)
    ]  # fmt: skip
    return Encoded(
        visits.ids,
        np.hstack([vectors for vectors, _ in learned]) / np.float32(np.sqrt(count)),
        {name: np.stack([weights[name] for _, weights in learned]) for name in learned[0][1]},
    )


def _members(start: Encoded | None, options: Options) -> list[_Start | None]:
    """Where each member starts; None where there is nothing of its shape."""
    count, wide = options.members, options.members * options.dimensions
    shape = (count, LENGTH)
    if start is None or start.vectors.shape[1] != wide or start.weights["pool_bias"].shape != shape:
        return [None] * count
    blocks = start.vectors.reshape(len(start.ids), count, -1) * np.float32(np.sqrt(count))
    rows = {name: row for row, name in enumerate(start.ids)}
    return [
        _Start(rows, blocks[:, member], {name: w[member] for name, w in start.weights.items()})
        for member in range(count)
    ]


@dataclass(frozen=True)
class _Start:
    """One member of an earlier encoder: row of each item's unit vector by id."""

    rows: Mapping[str, int]
    vectors: Floats
    weights: Weights


def _learn_one(
    visits: Visits, options: Options, start: _Start | None, report: Report
) -> tuple[Floats, Weights]:
    """(unit vectors [m, dimensions], weights) of one member."""
    jax = _jax()
    rng = np.random.default_rng(options.seed)
    parts = _parts(visits, options.half_life_days)
    batch = int(np.clip(len(parts.first) // options.steps_an_epoch, *options.batch))
    a_epoch = sum(1 for _ in _batches(parts, batch, np.random.default_rng(0)))
    usual, least = (
        (options.epochs, options.least_steps)
        if start is None
        else (options.warm_epochs, options.least_warm_steps)
    )
    epochs = int(np.clip(-(-least // a_epoch), usual, options.most_epochs))
    rate = options.rate if start is None else options.warm_rate
    parameters = _initial(visits.ids, options, start, rng)
    sampler = _Sampler(visits.items, len(visits.ids), options)
    step = _step(options.dropout)
    state = (
        parameters,
        jax.tree.map(np.zeros_like, parameters),
        jax.tree.map(np.zeros_like, parameters),
    )
    done, total = 0, epochs * a_epoch
    for _ in range(epochs):
        for rows, length in _batches(parts, batch, rng):
            inputs = _padded(visits, parts, rows, length, batch)
            now = _rate(done, total, rate, options.warm_up)
            key = jax.random.key(options.seed * 1_000_003 + done)
            state = step(*state, *inputs, sampler.draw(rng), sampler.log_odds, key, now, done + 1.0)
            done += 1
            report(done, total)
    learned = jax.tree.map(np.asarray, state[0])
    norms = np.linalg.norm(learned["items"], axis=1, keepdims=True)
    return learned["items"] / np.maximum(norms, 1e-12), dict(learned["weights"])


def enough(visits: Visits) -> bool:
    """Whether there is something to learn from."""
    return len(visits.items) >= LEAST_CLICKS and bool((np.diff(visits.starts) > 1).any())


def available() -> bool:
    """Whether JAX is installed."""
    from importlib.util import find_spec

    return find_spec("jax") is not None


def _jax() -> Any:
    if not available():
        raise UsageError(
            "the session encoder needs JAX, the extra `encoder`: install it, or go without (--no-embedding)"
        )
    import jax

    return jax


@dataclass(frozen=True)
class _Parts:
    """Stretches of visits: first click, clicks, first click whose next one is a label, weight."""

    first: Longs
    clicks: Longs
    labelled: Longs
    weight: Floats


def _parts(visits: Visits, half_life: float) -> _Parts:
    """Visits as stretches of at most LENGTH clicks and a label behind: every next click is a label
    once, with at least OVERLAP clicks before it where there are as many."""
    found: list[tuple[int, int, int, float]] = []
    weights = np.exp2(-visits.ages / half_life)
    for begin, end, weight in zip(
        visits.starts[:-1].tolist(), visits.starts[1:].tolist(), weights.tolist(), strict=True
    ):
        first, labelled = begin, begin
        while end - labelled > 1:
            clicks = min(LENGTH, end - 1 - first)
            found.append((first, clicks, labelled, weight))
            labelled = first + clicks
            first = labelled - OVERLAP
    columns = list(zip(*found, strict=True)) or [(), (), (), ()]
    first, clicks, labelled = (np.array(column, dtype=np.int64) for column in columns[:3])
    return _Parts(first, clicks, labelled, np.array(columns[3], dtype=np.float32))


def _batches(parts: _Parts, size: int, rng: np.random.Generator) -> Iterator[tuple[Longs, int]]:
    """Stretches of like length together, in random order."""
    found: list[tuple[Longs, int]] = []
    shortest = 0
    for length in BUCKETS:
        rows = np.flatnonzero((parts.clicks > shortest) & (parts.clicks <= length))
        shortest = length
        rng.shuffle(rows)
        wide = max(8, size * 4 // length)  # a batch holds about as many clicks at any length
        found += [(rows[begin : begin + wide], length) for begin in range(0, len(rows), wide)]
    order = rng.permutation(len(found))
    yield from (found[place] for place in order)


def _padded(
    visits: Visits, parts: _Parts, rows: Longs, length: int, size: int
) -> tuple[Ints, Ints, Floats]:
    """(clicks, labels, weight of each label), [sessions, length] each, of one shape for a length."""
    wide = max(8, size * 4 // length)
    clicks, labels = np.zeros((wide, length), np.int32), np.zeros((wide, length), np.int32)
    weight = np.zeros((wide, length), np.float32)
    place = parts.first[rows, None] + np.arange(length)
    inside = np.arange(length) < parts.clicks[rows, None]
    clicks[: len(rows)] = np.where(inside, visits.items[np.where(inside, place, 0)], 0)
    labels[: len(rows)] = np.where(inside, visits.items[np.where(inside, place + 1, 0)], 0)
    weight[: len(rows)] = np.where(
        inside & (place >= parts.labelled[rows, None]), parts.weight[rows, None], 0
    )
    return clicks, labels, weight


def _initial(
    ids: tuple[str, ...], options: Options, start: _Start | None, rng: np.random.Generator
) -> dict[str, Any]:
    items = rng.normal(size=(len(ids), options.dimensions)).astype(np.float32)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    weights = initial_weights(options.dimensions, rng)
    if start is not None:
        known = np.array([start.rows.get(name, -1) for name in ids])
        items[known >= 0] = start.vectors[known[known >= 0]]
        weights = dict(start.weights)
    return {"items": items, "weights": weights}


class _Sampler:
    """Draws negatives in proportion to count ** power. log_odds: float32 [items]."""

    def __init__(self, items: Ints, count: int, options: Options) -> None:
        share = (np.bincount(items, minlength=count) + 0.1) ** options.power
        share /= share.sum()
        self._sums, self._size = np.cumsum(share), min(options.negatives, max(16, count))
        self.log_odds = np.log(share * self._size).astype(np.float32)

    def draw(self, rng: np.random.Generator) -> Ints:
        drawn = np.searchsorted(self._sums, rng.random(self._size) * self._sums[-1])
        return np.asarray(np.minimum(drawn, len(self._sums) - 1), dtype=np.int32)


def _rate(done: int, total: int, rate: float, warm_up: float) -> float:
    """Rises linearly over the first share `warm_up` of all steps, then falls as a cosine."""
    warm = max(1.0, warm_up * total)
    if done < warm:
        return float(rate * (done + 1) / warm)
    return float(rate * 0.5 * (1 + np.cos(np.pi * (done - warm) / max(1.0, total - warm))))


def _step(dropout: float) -> Callable[..., Any]:
    """One step of Adam (Kingma and Ba, ICLR 2015), compiled once for each length."""
    import jax
    import jax.numpy as jnp

    def step(parameters: Any, mean: Any, square: Any, clicks: Any, labels: Any, weight: Any,
             negatives: Any, log_odds: Any, key: Any, rate: Any, number: Any) -> Any:  # fmt: skip
        gradient = jax.grad(loss)(
            parameters, clicks, labels, weight, negatives, log_odds, key, dropout
        )
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
        square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, square, gradient)
        fast, slow = 1 - 0.9**number, 1 - 0.999**number
        moved = jax.tree.map(
            lambda p, m, v: p - rate * (m / fast) / (jnp.sqrt(v / slow) + 1e-8),
            parameters,
            mean,
            square,
        )
        return moved, mean, square

    compiled: Callable[..., Any] = jax.jit(step, donate_argnums=(0, 1, 2))
    return compiled
