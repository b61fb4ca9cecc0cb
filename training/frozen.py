"""Item features as they stood at one moment, computed in memory from a table of events.

For an evaluation on a file: the functions are those of the offline table
(`contracts.item_features`), and so are the rules of days, of age and of what was known; a test holds
the numbers equal to Spark's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from contracts.events import CLICK_TYPES, EventType
from contracts.features import VIEWS, of_view
from contracts.item_features import ITEM_FEATURES, check_measure
from contracts.known import LATENESS_MS
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

DAY_MS = timedelta(days=1) // timedelta(milliseconds=1)
Floats = npt.NDArray[np.float64]
_KINDS = {
    "views": [int(kind) for kind in CLICK_TYPES],
    "carts": [int(EventType.add_to_cart)],
    "purchases": [int(EventType.checkout)],
}


class FrozenDays:
    """`contracts.item_features.ItemDays` as arrays [items], as of `end` [items], milliseconds."""

    def __init__(
        self,
        occurred: Mapping[str, tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]],
        end: npt.NDArray[np.int64],
    ) -> None:
        self._occurred, self._end = occurred, end

    def total(self, measure: str, days: int) -> Floats:
        check_measure(measure, days)
        return self._count(measure, days * DAY_MS)

    def total_ever(self, measure: str) -> Floats:
        check_measure(measure)
        return self._count(measure, None)

    def days_since_last(self, measure: str) -> Floats:
        return self._since(measure, np.maximum, -np.inf)

    def days_since_first(self, measure: str) -> Floats:
        return self._since(measure, np.minimum, np.inf)

    def at_most(self, value: Floats, most: float) -> Floats:
        return np.minimum(value, most)

    def _count(self, measure: str, span: int | None) -> Floats:
        items, times = self._before(measure)
        inside = slice(None) if span is None else times >= self._end[items] - span
        counts: Floats = np.bincount(items[inside], minlength=len(self._end)).astype(np.float64)
        return counts

    def _since(self, measure: str, choose: Any, none: float) -> Floats:
        check_measure(measure)
        items, times = self._before(measure)
        chosen = np.full(len(self._end), none)
        choose.at(chosen, items, times)
        return np.where(np.isinf(chosen), np.nan, (self._end - chosen) / DAY_MS)

    def _before(self, measure: str) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
        items, times = self._occurred[measure]
        before = times < self._end[items]
        return items[before], times[before]


class _Longest:
    """Notes the longest window that the features ask for."""

    def __init__(self) -> None:
        self.days = 1

    def total(self, measure: str, days: int) -> float:  # noqa: ARG002
        self.days = max(self.days, days)
        return 1.0

    def total_ever(self, measure: str) -> float:  # noqa: ARG002
        return 1.0

    days_since_last = days_since_first = total_ever

    def at_most(self, value: float, most: float) -> float:  # noqa: ARG002
        return value


def activity(
    item: npt.NDArray[np.intp], time: npt.NDArray[np.int64], kind: npt.NDArray[np.int64],
    items: int, moment: int,
) -> dict[str, npt.NDArray[np.float32]]:  # fmt: skip
    """The features of the view `item_activity` [items] that hold at `moment` (milliseconds), of
    events (item number, time at which it counts, type): of the newest row by day (UTC); nan where
    there is none, or one too old. The row of a day holds from its end: the minutes until it is made
    (`ACTIVITY_DELAY`) are nothing beside what is evaluated as of a moment."""
    occurred = _occurred(item, time, kind)
    midnight = moment // DAY_MS * DAY_MS
    end, known = _row_ends(occurred, items, midnight, moment)
    days = FrozenDays(occurred, end)
    values = {}
    for feature in of_view("item_activity"):
        value = np.asarray(ITEM_FEATURES[feature.name](days), dtype=np.float64)
        values[feature.name] = np.where(known, value, np.nan).astype(np.float32)
    return values


def _occurred(
    item: npt.NDArray[np.intp], time: npt.NDArray[np.int64], kind: npt.NDArray[np.int64]
) -> dict[str, tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]]:
    """Items and times by measure; a file tells nothing of lists that were served."""
    nothing = np.empty(0, np.intp), np.empty(0, np.int64)
    found = {"list_views": nothing, "impressions": nothing}
    for measure, kinds in _KINDS.items():
        rows = np.isin(kind, kinds)
        found[measure] = item[rows], time[rows]
    return found


def _row_ends(
    occurred: Mapping[str, tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]],
    items: int, midnight: int, moment: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:  # fmt: skip
    """The end of the newest day that each item has a row for, and whether it is young enough: rows
    are written while a window can hold something (`spark_jobs.item_days`)."""
    longest = _Longest()
    for feature in ITEM_FEATURES.values():
        feature(longest)
    last = np.full(items, -1, np.int64)
    for found, times in occurred.values():
        before = times < midnight
        np.maximum.at(last, found[before], times[before] // DAY_MS)
    final = (last + 1 + longest.days) * DAY_MS
    end = np.minimum(final, midnight)
    age = VIEWS["item_activity"].max_age
    most = np.inf if age is None else age // timedelta(milliseconds=1)
    return end, (last >= 0) & (moment - end <= most)


@dataclass(frozen=True)
class FrozenItems:
    """What is known of the items of a shop at a moment. columns: [items + 1] each, the last entry
    for an item that is not known."""

    index: pd.Index
    columns: Mapping[str, npt.NDArray[Any]]

    @classmethod
    def of(cls, events: pa.Table, catalogue: pa.Table | None, moment: int) -> FrozenItems:
        """events: `Offline.events_clean`; catalogue: `Offline.item_catalogue`."""
        import pandas as pd
        import pyarrow.compute as pc

        known = events.filter(
            pc.and_(pc.less(events["time"], moment), pc.less(events["received"], moment))
        )
        # as `contracts.known.counted_at`: what came late counts when it became known
        happened, told = known["time"].to_numpy(), known["received"].to_numpy()
        time = np.minimum(np.maximum(happened, told - LATENESS_MS), told)
        codes, names = pd.factorize(known["item_id"].to_numpy(zero_copy_only=False))
        said = None if catalogue is None else _newest(catalogue, moment)
        index = pd.Index(names)
        if said is not None:
            index = index.append(said.index.difference(index))
        kind = known["type"].to_numpy()
        good = codes >= 0
        columns: dict[str, npt.NDArray[Any]] = {
            name: np.append(values, np.float32(np.nan))
            for name, values in activity(
                codes[good], time[good], kind[good], len(index), moment
            ).items()
        }
        return cls(index, columns | _catalogue_columns(said, index))

    def knows(self, item: str) -> bool:
        return item in self.index

    def take(self, items: Any) -> dict[str, npt.NDArray[Any]]:
        """Columns of these items, in their order."""
        rows = self.index.get_indexer(items)  # -1, the last entry, for what is not known
        return {name: values[rows] for name, values in self.columns.items()}


def _newest(catalogue: pa.Table, moment: int) -> pd.DataFrame:
    import pandas as pd

    frame = catalogue.to_pandas()
    at = pd.Timestamp(moment, unit="ms", tz="UTC")
    frame = frame[(frame[EVENT_TIMESTAMP] < at) & (frame[CREATED_TIMESTAMP] < at)]
    in_order = frame.sort_values([EVENT_TIMESTAMP, CREATED_TIMESTAMP], kind="stable")
    newest: pd.DataFrame = in_order.drop_duplicates("item_id", keep="last").set_index("item_id")
    return newest


def _catalogue_columns(said: pd.DataFrame | None, index: pd.Index) -> dict[str, npt.NDArray[Any]]:
    count = len(index) + 1
    columns: dict[str, npt.NDArray[Any]] = {
        "category_id": np.zeros(count, np.int64), "brand_id": np.zeros(count, np.int64),
        "available": np.ones(count, np.int64), "price": np.full(count, np.nan, np.float32),
    }  # fmt: skip
    if said is not None:
        rows = index.get_indexer(said.index)
        for name, values in columns.items():
            told = said[name].to_numpy(dtype=np.float64, na_value=np.nan)
            values[rows] = np.where(np.isnan(told), values[rows], told)
    return columns


def frozen_reader(
    items: FrozenItems, sessions: Mapping[tuple[str, int], Mapping[str, float]]
) -> Any:
    """A `training.dataset.FeatureReader`: item views as frozen, whatever moment is asked for;
    session views from `sessions`, features by (session id, moment in milliseconds)."""
    import pandas as pd

    def read(entities: pd.DataFrame, views: Sequence[str]) -> pd.DataFrame:
        if "item_id" in entities:
            return pd.DataFrame(items.take(entities["item_id"].to_numpy()))
        moments = entities[EVENT_TIMESTAMP].astype("int64").to_numpy()
        moments = moments // {"ns": 10**6, "us": 10**3, "ms": 1}[entities[EVENT_TIMESTAMP].dt.unit]
        keys = zip(entities["session_id"], moments.tolist(), strict=True)
        frame = pd.DataFrame([sessions[key] for key in keys])
        names = [feature.name for view in views for feature in of_view(view) if feature.ranked]
        return frame.reindex(columns=names)

    return read
