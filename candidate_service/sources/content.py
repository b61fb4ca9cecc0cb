"""Items like those visited by what the shop says of them: category, brand and price.

Content-based neighbours as in Lops, de Gemmis and Semeraro, "Content-based Recommender Systems",
Recommender Systems Handbook, 2011. It is the one source that knows an item without a single event.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from candidate_service.board import Ints
from candidate_service.history import Catalogue, History
from candidate_service.source import Parameters
from candidate_service.tables import Pairs, Reals, TableSource, summed


class Content(TableSource):
    """weight = exp(-|difference of log prices|) + `brand` for the same brand, among items of the
    same category (where there is none, of the same brand). `nearest` by price to each side, and as
    many of the same brand; `unseen` of those that nobody visited yet."""

    name = "content"
    defaults: ClassVar[Parameters] = {
        **TableSource.defaults,
        "weight": 0.1,
        "quota": 0.05,
        "neighbours": 100.0,
        "nearest": 15.0,
        "unseen": 5.0,
        "brand": 0.5,
    }

    @classmethod
    def pairs(cls, history: History, parameters: Parameters) -> Pairs:
        known = history.catalogue
        if known is None:
            return Pairs(_NONE, _NONE, np.empty(0))
        seen = np.bincount(history.item, minlength=history.items) > 0
        everything, nearest = np.arange(history.items, dtype=np.int32), int(parameters["nearest"])
        groups = _groups(known)
        brands = int(known.brand.max(initial=-1)) + 1
        branded = np.where(known.brand >= 0, groups.astype(np.int64) * brands + known.brand, -1)
        found = [
            _near(everything, everything, groups, known, nearest),
            _near(everything, everything, branded, known, nearest),
            _near(everything, everything[~seen], groups, known, int(parameters["unseen"])),
        ]
        row, column = (np.concatenate(parts) for parts in zip(*found, strict=True))
        pairs = summed(Pairs(row, column, np.ones(len(row))), history.items)
        return pairs.with_values(_likeness(pairs, known, parameters["brand"]))


_NONE = np.empty(0, dtype=np.int32)


def _groups(known: Catalogue) -> Ints:
    """Where alike items are looked for: the category, else the brand; -1: nowhere."""
    brand = np.where(known.brand >= 0, known.category.max(initial=-1) + 1 + known.brand, -1)
    return np.where(known.category >= 0, known.category, brand)


def _near(
    rows: Ints, columns: Ints, group: Ints, known: Catalogue, count: int
) -> tuple[Ints, Ints]:
    """For each row the `count` columns of its group to each side that are nearest by price."""
    price = np.nan_to_num(known.log_price, nan=0.0)
    columns = columns[group[columns] >= 0]
    columns = columns[np.lexsort((columns, price[columns], group[columns]))]
    # one ascending number of group and price: where a row would stand among the columns
    spread = float(np.ptp(price)) + 1 if len(price) else 1.0
    place_of = group * (2 * spread) + (price - price.min(initial=0))
    rows = rows[group[rows] >= 0]
    at = np.searchsorted(place_of[columns], place_of[rows])
    found: list[tuple[Ints, Ints]] = []
    for step in range(-count, count + 1):
        place = at + step
        inside = (place >= 0) & (place < len(columns))
        near = columns[np.where(inside, place, 0)] if len(columns) else rows
        good = inside & (group[near] == group[rows]) & (near != rows)
        found.append((rows[good], near[good]))
    row, column = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return row, column


def _likeness(pairs: Pairs, known: Catalogue, brand: float) -> Reals:
    apart = np.abs(known.log_price[pairs.row] - known.log_price[pairs.column]).astype(np.float64)
    same = (known.brand[pairs.row] == known.brand[pairs.column]) & (known.brand[pairs.row] >= 0)
    return np.asarray(np.exp(-np.nan_to_num(apart, nan=1.0)) + brand * same, dtype=np.float64)
