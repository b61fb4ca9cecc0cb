"""How long a hash of the online store outlives its last write.

Two rules. Where all values of an entity age (sessions), the hash goes a day after its last write:
an outage of the consumer loses no state, and yesterday's sessions fill no memory. Where some never
age (items), it goes after `key_ttl_seconds` of the feature_store.yaml: materialisation writes the
newest row of each item again and so renews those that are alive; an item that is gone is left out
(`gone`) and leaves.
"""

from __future__ import annotations

from datetime import timedelta

from contracts.features import VIEWS, View

KEPT = timedelta(days=1)
"""How long a hash all of whose values age outlives its last write."""
GONE = timedelta(days=30)
"""An item that has not been for sale for so long is gone. Until then its row is written at each
materialisation, so that a sold-out item is known as such."""
FOR_SALE = "available"
"""The feature that is 0 while an item is not for sale."""


def life_seconds(view: View, key_seconds: int | None) -> int | None:
    """Seconds from its last write until the hash leaves Redis; None: never."""
    ages = [each.max_age for each in VIEWS.values() if each.entities == view.entities]
    aging = [age for age in ages if age is not None]
    if len(aging) < len(ages):
        return key_seconds
    kept = int(max(KEPT, *aging).total_seconds())
    return kept if key_seconds is None else min(kept, key_seconds)
