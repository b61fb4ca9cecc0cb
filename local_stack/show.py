"""Answers, qualities and the demo's end, as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contracts.release import Release

Described = Mapping[str, Mapping[str, Any]]
MEASURES = ("hit_rate_10", "hit_rate_20", "mrr_10", "mrr_20", "ndcg_10", "ndcg_20")


def table(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> str:
    """Columns as wide as they need; the columns `right` are aligned to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def quality_text(metrics: Mapping[str, Any]) -> str:
    """The ranker beside the baselines, on the same queries."""
    head = (
        "test window",
        *(measure.replace("_1", "@1").replace("_2", "@2") for measure in MEASURES),
    )
    rows = [head] + [
        (name, *(f"{values[measure]:.4f}" for measure in MEASURES))
        for name, values in metrics["quality"].items()
    ]
    recall = ", ".join(f"{name} {share:.3f}" for name, share in metrics["candidate_recall"].items())
    return (
        f"{table(rows, frozenset(range(1, len(head))))}\n"
        f"{metrics['queries']:,} of {metrics['queries_of_window']:,} queries; the next item is among"
        f" the {metrics['candidates']} candidates: {recall}"
    )


def quality_table(release: Release) -> str:
    return f"{quality_text(release.metrics)}\nserved beside native scores: at most {release.parity:.1e} apart"


def item_text(item: str, described: Described) -> str:
    """`brand category price` of an item, as far as they are known."""
    known = described.get(item, {})
    price = known.get("price")
    texts = [
        known.get("brand"),
        known.get("category"),
        None if not _is_number(price) else f"{price:.2f}",
    ]
    return " · ".join(str(text) for text in texts if text) or "-"


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) and value == value  # noqa: PLR0124 (nan)


def answer_text(answer: Mapping[str, Any], described: Described, visited: Sequence[str]) -> str:
    """What was clicked, what is recommended and where each came from, who answered, how long."""
    parts: list[str] = []
    if visited:
        past = [
            (f"  {place}.", item, item_text(item, described))
            for place, item in enumerate(visited, 1)
        ]
        parts += ["visited", table(past)]
    rows = [("", "item", "brand · category · price", "score", "from")] + [
        (
            f"  {place}.",
            row["item_id"],
            item_text(row["item_id"], described),
            f"{row['score']:.3f}",
            ", ".join(row["sources"]),
        )
        for place, row in enumerate(answer["items"], 1)
    ]
    timings = ", ".join(f"{stage} {ms:.1f}" for stage, ms in answer["timings_ms"].items())
    parts += [
        "recommended",
        table(rows, frozenset({3})) if answer["items"] else "  nothing: no release is live",
        f"release {answer['release'] or 'none'}; degraded: {', '.join(answer['degraded']) or 'nothing'}",
        f"milliseconds: {timings}",
    ]
    return "\n".join(parts)


def demo_text(result: Mapping[str, Any]) -> str:
    """The demo's last page."""
    answer, expected = result["answer"], result["next"]
    listed = [row["item_id"] for row in answer["items"]]
    place = (
        f"place {listed.index(expected) + 1} of the list"
        if expected in listed
        else "not in the list"
    )
    drift = result["drift"]
    return "\n".join(
        [
            "",
            "A past visit, happening now",
            answer_text(answer, result["items"], result["visited"]),
            f"really clicked next: {expected} ({item_text(expected, result['items'])}): {place}",
            "",
            "Offline quality (the newest window, not trained on)",
            quality_text(result["metrics"]),
            "",
            f"Drift: {drift['verdict']} ({', '.join(drift['drifted_columns']) or 'no column'})",
            f"  {drift['html'] or 'no report'}",
            "",
            "Look at next",
            table([(f"  {name}", address) for name, address in result["addresses"].items()]),
            "  ./nextclick status, ./nextclick recommend --item ID, ./nextclick --help",
            "  ./nextclick parity: is what was served what the lake says?",
            f"  ./nextclick replay {result['answer']['request_id']}: why this answer",
            "  stop it: make down",
        ]
    )
