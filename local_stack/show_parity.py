"""The proof and a replayed answer as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from contracts.parity import ParityResult
from local_stack.show import table

if TYPE_CHECKING:
    from monitoring.parity import Example, ParityReport
    from monitoring.replay import Replay, ReplayedItem

SHOWN_CONTRIBUTIONS = 5


def parity_text(report: ParityReport) -> str:
    """One line of verdict, the features that differ with examples, and what was left out."""
    lines = [
        f"{report.verdict}: {report.differing:,} of {report.cells:,} cells and"
        f" {report.scores_differing:,} of {report.scores:,} scores differ, in {report.rows:,} rows"
        f" of {report.answers:,} answers"
    ]
    if report.first:
        lines.append(f"from {report.first} to {report.last}")
    different = {name: each for name, each in report.features.items() if each.differing}
    if different:
        head = ("  feature", "differing", "of", "reasons")
        rows = [
            (f"  {name}", f"{each.differing:,}", f"{each.cells:,}", _counts(each.reasons))
            for name, each in different.items()
        ]
        lines.append(table([head, *rows], frozenset({1, 2})))
        lines += [_example(each) for each in report.examples]
    if report.scores:
        gap = report.largest_score_difference
        lines.append(f"served beside native scores: at most {gap:.1e} apart")
    lines.append(
        f"made from a session that lagged behind Kafka: {report.answers_behind:,} answers, at most"
        f" {report.most_behind_ms:,} ms ({report.lag_ms:,} allowed)"
    )
    lines.append(f"answers by what was missing: {_counts(report.degraded) or 'none'}")
    for what, counts in (
        ("answers", report.answers_not_compared),
        ("cells", report.cells_not_compared),
        ("scores", report.scores_not_compared),
    ):
        lines += [f"not compared: {number:,} {what}: {why}" for why, number in counts.items()]
    return "\n".join(lines)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.items())


def _example(each: Example) -> str:
    return (
        f"  {each.feature} of {each.item_id} in {each.request_id}: served {each.served},"
        f" recomputed {each.recomputed} ({each.reason})"
    )


def parity_line(found: ParityResult | None) -> str:
    """The last proof in one line, for `status`."""
    if found is None:
        return "parity: never proved (./nextclick parity)"
    at = datetime.fromtimestamp(found.finished_ms / 1000, UTC)
    return (
        f"parity: {found.verdict}, {found.differing:,} of {found.cells:,} cells differ"
        f" ({at:%Y-%m-%d %H:%M} UTC)"
    )


def replay_text(found: Replay, whole: bool) -> str:
    """The answer again, item by item. whole: all features of each, not only the weightiest."""
    at = datetime.fromtimestamp(found.time / 1000, UTC)
    head = [
        f"{found.request_id}: {'the same answer' if found.same else 'ANOTHER ANSWER'}; release"
        f" {found.release}, ranker {found.ranker_version}, candidates {found.index}",
        f"asked {at.isoformat(timespec='milliseconds')} for session {found.session_id or '(none)'};"
        f" visited: {', '.join(found.visited) or 'nothing'};"
        f" degraded: {', '.join(found.degraded) or 'nothing'}",
        f"scores at most {found.largest_score_difference:.1e} apart ({found.tolerance:.0e} allowed);"
        f" order {'the same' if found.same_order else 'another'}",
        f"rules {found.rules_version}: {_effects(found) or 'changed nothing here'}",
    ]
    return "\n".join([*head, *(_item_text(item, whole) for item in found.items)])


def _item_text(item: ReplayedItem, whole: bool) -> str:
    moved = "" if item.replayed_place == item.place else f" (now {item.replayed_place})"
    sources = ", ".join(
        f"{name} #{of['rank']:.0f}" for name, of in item.sources.items() if of["rank"] is not None
    )
    parts = list(item.contributions.items())
    shown = parts if whole else parts[:SHOWN_CONTRIBUTIONS]
    rest = sum(value for _, value in parts[len(shown) :])
    rows = [(f"      {name}", _value(item.values[name]), f"{added:+.4f}") for name, added in shown]
    others = "      the mean of all" if whole else "      all others, and the mean of all"
    rows.append((others, "", f"{rest + item.base:+.4f}"))
    head = f"  {item.place}.{moved} {item.item_id}  score {item.replayed:.6f} (served {item.served:.6f})"
    return f"{head}  from {sources or 'nowhere'}\n{table(rows, frozenset({1, 2}))}"


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _effects(found: Replay) -> str:
    """What the business rules did, an item each."""
    return "; ".join(
        f"{effect['rule']} {effect['item']}: {_place(effect['before'])} to {_place(effect['after'])}"
        for effect in found.effects
    )


def _place(place: int | None) -> str:
    return "out of the list" if place is None else f"place {place}"
