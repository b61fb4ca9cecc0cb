"""All columns that a ranker may ask for, of one request: from its visit, moment, context and items.

Serving and the parity proof both call this; what differs is where they read from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.candidates import CandidateSet
from contracts.moment import moment_features
from contracts.pair import CatalogueColumns, pair_features
from contracts.session import SessionEvent, items_of, session_features


def items_to_read(visited: Sequence[str], candidates: CandidateSet) -> dict[str, int]:
    """Row of each item whose features a request needs: the candidates, in order, then what was
    visited besides."""
    rows = {item: row for row, item in enumerate(candidates.items)}
    for item in visited:
        rows.setdefault(item, len(rows))
    return rows


def request_columns(
    events: Sequence[SessionEvent],
    moment: int,
    context: Mapping[str, int],
    candidates: CandidateSet,
    items: Mapping[str, npt.NDArray[Any]],
) -> dict[str, Any]:
    """Columns by name: arrays of one value a candidate, or one value for all.

    events: of the visit under way at `moment` (milliseconds; `contracts.session.visit`); context:
    what the request itself says, over what the visit says; items: features of `items_to_read`,
    in its order, `contracts.pair.KNOWN` among them.
    """
    visited = items_of(events)
    rows = items_to_read(visited, candidates)
    count = len(candidates)
    catalogue = CatalogueColumns.of(items)
    return {
        **session_features(events),
        **context,
        **moment_features(moment),
        **{name: values[:count] for name, values in items.items()},
        **pair_features(
            visited,
            catalogue.take([rows[item] for item in visited]),
            candidates,
            catalogue.take(np.arange(count)),
        ),
    }
