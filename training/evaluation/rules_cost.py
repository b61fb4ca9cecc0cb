"""What business rules cost: NDCG@20 of the lists with and without them, on the same queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.candidates import with_items
from contracts.rules import DEFAULT, Effect, Rules, applying, arrange, known_of
from training import dataset, parity
from training.dataset import Listed
from training.evaluation.figures import Bootstrap, figures
from training.evaluation.run import LISTED, Evaluation, Fitted, Prefix
from training.frozen import FrozenItems, frozen_reader

Floats = npt.NDArray[np.float32]
SAMPLE = 2000
"""Prefixes that are looked at."""


def cost(
    run: Evaluation, fitted: Fitted, prefixes: Sequence[Prefix], rules: Rules
) -> dict[str, Any]:
    """Figures by score alone, with the default rules and with these; what these cost beside the
    default; and how many items each rule moved or left out."""
    shop = run.shop
    chosen = np.random.default_rng(0).permutation(len(prefixes))[:SAMPLE]
    sample = [prefixes[row] for row in np.sort(chosen)]
    items = FrozenItems.of(shop.events, shop.catalogue, shop.cutoff)
    queries = [shop.query(prefix) for prefix in sample]
    listed = dataset.propose(queries, fitted.index, run.options.count, current=shop.current)
    rows = run.hidden(dataset.rows_of(listed, frozen_reader(items, shop.session_columns(sample))))
    scores = parity.native_scores(fitted.ranker.booster, rows.features)
    ranks = {name: np.full(len(listed), np.inf) for name in ("without", "default", "with")}
    changed: Counter[str] = Counter()
    start = 0
    for row, entry in enumerate(listed):
        own = scores[start : start + len(entry.candidates)].astype(np.float32)
        start += len(own)
        standard, _ = _ruled(DEFAULT, entry, own, items)
        names, found = _ruled(rules, entry, own, items)
        if entry.label is not None:
            place = np.flatnonzero(np.argsort(-own, kind="stable") == entry.label)[0]
            ranks["without"][row] = 1 + place
        for which, order in (("default", standard), ("with", names)):
            if entry.query.label in order:
                ranks[which][row] = 1 + order.index(entry.query.label)
        changed.update(effect.rule for effect in found)
    bootstrap = Bootstrap(np.array([first for first, _ in sample], dtype=np.int64))
    told = {name: figures(of, bootstrap) for name, of in ranks.items()}
    cost = told["default"]["ndcg@20"]["value"] - told["with"]["ndcg@20"]["value"]
    return {
        "version": rules.name,
        "prefixes": len(sample),
        **told,
        "cost_in_ndcg@20": round(cost, 5),
        "effects": dict(changed),
    }


def _ruled(
    rules: Rules, entry: Listed, own: Floats, items: FrozenItems
) -> tuple[list[str], Sequence[Effect]]:
    """The list with the rules, as `orchestrator.pipeline` makes it, and what they did to it."""
    visited = entry.query.visited
    last = items.take(np.array(visited[-1:], dtype=object))["category_id"]
    category = int(last[0]) if len(last) else 0
    out = set(rules.left_out(visited, ()))
    gone = _left_out(rules, entry, own, out)
    kept = [row for row, name in enumerate(entry.candidates.items) if name not in out]
    pins = [
        pin.item
        for pin in applying(rules, category)
        if pin.item not in out and items.knows(pin.item)
    ]
    shown = with_items(entry.candidates.take(kept), pins)
    # what no source proposes has no score here: a pin's place does not depend on it, and the mean
    # hardly moves the spread that shifts are measured by
    filled = np.full(len(shown) - len(kept), own.mean() if len(own) else 0, dtype=np.float32)
    known = known_of(items.take(np.array(shown.items, dtype=object)), shown)
    found = arrange(rules, shown.items, np.append(own[kept], filled), known, LISTED, category)
    return [shown.items[row] for row in found.order], [*gone, *found.effects]


def _left_out(rules: Rules, entry: Listed, own: Floats, out: set[str]) -> list[Effect]:
    """What would have been listed, but is not even a candidate."""
    name = "exclude_seen" if rules.exclude_seen else "exclude_current"
    best = np.argsort(-own, kind="stable")[:LISTED].tolist()
    items = [entry.candidates.items[row] for row in best]
    return [
        Effect(name, item, place, None) for place, item in enumerate(items, start=1) if item in out
    ]
