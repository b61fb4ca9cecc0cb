"""The rule of a point-in-time join, as every implementation of it takes it.

Of a key, the answer at a moment is the row with the newest event time among the rows that count:

- its event time is at or before the moment; `as_known`: its created time too, and a row without
  a created time does not count, for nobody can say that it was known;
- of rows with one event time, the one created last, a row without a created time first of all;
- of rows with one created time too, the one with the greatest values, feature by feature in the
  order of `features`; null is less than any value, nan greater than any number, texts compare by
  code point, lists element by element.

The answer is no value where that row is older than `max_age` (a row that is exactly so old still
counts), where no row counts, where a key or the moment is null. Nulls are equal to nothing.
Times are in microseconds, finer parts are cut off; a time without a zone is UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP

MOMENT = EVENT_TIMESTAMP
"""The column of the asking side that holds the moment."""


@dataclass(frozen=True)
class JoinRule:
    """`keys`: column of the asking side → column of the history; none: every row is of one key.

    `features`: all columns of the view in declared order; which of them are asked for never
    changes the row that answers. `created` None: the history does not say when a row was known,
    and a row is known from its event time. `max_age` None: rows never age.
    """

    keys: Mapping[str, str]
    features: tuple[str, ...]
    event: str = EVENT_TIMESTAMP
    created: str | None = CREATED_TIMESTAMP
    max_age: timedelta | None = None
    as_known: bool = True

    @property
    def hides_unknown(self) -> bool:
        """Whether rows are hidden until they were created."""
        return self.as_known and self.created is not None
