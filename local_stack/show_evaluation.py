"""An evaluation as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local_stack.show import table

MEASURES = ("hit_rate@10", "hit_rate@20", "mrr@10", "mrr@20", "ndcg@10", "ndcg@20")
RIGHT = frozenset(range(1, 10))


def evaluation_text(document: Mapping[str, Any]) -> str:
    """Figures beside the baselines, recall by source, segments, time and memory."""
    parts = [
        f"{document['dataset']}: {document['prefixes']:,} prefixes of {document['sessions']:,} test sessions",
        *_days(document["days"]),
        *_left_out(document["rows_left_out"]),
        _protocol(document),
        _methods(document),
        "The next item is among the first 100 of a source, or of the merged candidates (95 % interval)",
        table([(name, *_interval(of)) for name, of in document["recall@100"].items()], RIGHT),
        "Lists",
        table([(name, *_interval(of)) for name, of in document["lists"].items()], RIGHT),
        "Segments",
        _segments(document),
    ]
    if "rules" in document:
        parts.append(_rules(document["rules"]))
    seconds = ", ".join(
        f"{name} {taken:.0f} s" for name, taken in document["seconds"].items() if taken >= 1
    )
    parts.append(
        f"{document['seconds_in_all']:.0f} s in all ({seconds}); at most {document['peak_memory_mb']:,.0f} MB"
    )
    return "\n\n".join(parts)


def _days(days: Mapping[str, str]) -> list[str]:
    if not days:
        return []
    return [
        f"History from {days['first']} to {days['last']} (UTC), the test part from {days['test_from']}"
    ]


def _left_out(rows: Mapping[str, int]) -> list[str]:
    told = ", ".join(f"{reason} {count:,}" for reason, count in rows.items())
    return [f"Rows of the file left out, or amiss: {told}"] if told else []


def _protocol(document: Mapping[str, Any]) -> str:
    if not document["current_item_listed"]:
        return "As the default rules serve: the item that is looked at is neither listed nor asked for."
    again = document["labels_that_are_the_current_item"] / document["prefixes"]
    return (
        "As in published evaluations the item that is looked at may be listed, and is the next click"
        f" of {again:.1%} of the prefixes. By default it is never served: see --as-served."
    )


def _methods(document: Mapping[str, Any]) -> str:
    rows = [
        ("", *MEASURES),
        ("nextclick", *_values(document)),
        ("  low", *_bounds(document, "low")),
        ("  high", *_bounds(document, "high")),
    ]
    for name, figures in document["baselines"].items():
        note = f" ({figures['prefixes']:,} prefixes)" if "prefixes" in figures else ""
        rows.append((f"{name}{note}", *_values(figures)))
        if "ours_on_the_same" in figures:
            rows.append(("  nextclick on the same", *_values(figures["ours_on_the_same"])))
    return table(rows, RIGHT)


def _rules(rules: Mapping[str, Any]) -> str:
    by_score, default, own = (
        rules[which]["ndcg@20"]["value"] for which in ("without", "default", "with")
    )
    return (
        f"Rules {rules['version']}, {rules['prefixes']:,} prefixes: NDCG@20 {own:.4f}, by score alone"
        f" {by_score:.4f}, with the default rules {default:.4f}: these rules cost"
        f" {rules['cost_in_ndcg@20']:+.4f} beside the default; items moved or left out by each:"
        f" {rules['effects'] or 'none'}"
    )


def _segments(document: Mapping[str, Any]) -> str:
    rows = [("", "prefixes", "hit_rate@20", "mrr@20", "ndcg@20")]
    for name, figures in document["segments"].items():
        if figures["prefixes"]:
            values = (
                f"{figures[key]['value']:.4f}" for key in ("hit_rate@20", "mrr@20", "ndcg@20")
            )
            rows.append((name, f"{figures['prefixes']:,}", *values))
    return table(rows, RIGHT)


def _values(figures: Mapping[str, Any]) -> list[str]:
    return [f"{figures[name]['value']:.4f}" for name in MEASURES]


def _bounds(figures: Mapping[str, Any], which: str) -> list[str]:
    return [f"{figures[name][which]:.4f}" for name in MEASURES]


def _interval(of: Mapping[str, float]) -> tuple[str, str]:
    return f"{of['value']:.4f}", f"{of['low']:.4f} to {of['high']:.4f}"
