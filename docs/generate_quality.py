"""Write the tables of docs/quality.md and README.md, and charts, from benchmarks/results/evaluate-*.json.

python docs/generate_quality.py           writes them
python docs/generate_quality.py --check   exit code 3 when a page's tables differ

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; the text around it is a person's.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
PAGE, IMAGES = FOLDER / "quality.md", FOLDER / "images"
PAGES = (PAGE, FOLDER.parent / "README.md")
RESULTS = FOLDER.parent / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- table: ([a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
MEASURES = ("hit_rate@20", "mrr@20", "ndcg@20")
HEAD = ("HR@20", "MRR@20", "NDCG@20")
NAMES = {
    "popularity": "popularity",
    "last_item_covisitation": "last-item co-visitation",
    "sequential_rules": "sequential rules",
    "session_knn": "session kNN",
    "merged_without_ranker": "our candidates, merged, no ranker",
    "wsknn": "`wsknn` (PyPI)",
}
Document = Mapping[str, Any]


def main(arguments: Sequence[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)  # noqa: T201
        return 2
    found = documents(RESULTS)
    texts = {path: page(path.read_text(), found) for path in PAGES}
    if arguments:
        old = [path.name for path, text in texts.items() if text != path.read_text()]
        if old:
            print(f"{', '.join(old)}: out of date: python docs/generate_quality.py", file=sys.stderr)  # noqa: T201  # fmt: skip
        return 3 if old else 0
    for path, text in texts.items():
        path.write_text(text)
    charts(found)
    return 0


def documents(folder: Path) -> dict[str, Document]:
    """Evaluations by name: `diginetica`, `rees46-without-knn` and so on."""
    return {
        path.stem.removeprefix("evaluate-"): json.loads(path.read_text())
        for path in sorted(folder.glob("evaluate-*.json"))
    }


def page(text: str, found: Mapping[str, Document]) -> str:
    """A page with its tables made anew. ValueError for a table that nobody makes."""

    def made(match: re.Match[str]) -> str:
        kind, _, dataset = match[2].partition("-")
        if kind not in TABLES or (kind != "overview" and dataset not in found):
            raise ValueError(f"no table {match[2]!r}, or no evaluation {dataset!r}")
        return f"{match[1]}{TABLES[kind](dataset, found)}\n{match[3]}"

    return BLOCK.sub(made, text)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _value(of: Mapping[str, float]) -> str:
    return f"{of['value']:.4f}"


def _interval(of: Mapping[str, float]) -> str:
    return f"{of['value']:.4f} ({of['low']:.4f} to {of['high']:.4f})"


def methods(dataset: str, found: Mapping[str, Document]) -> str:
    """Ours beside the baselines of the same run."""
    own = found[dataset]
    rows = [["**Nextclick**", *(f"**{_value(own[name])}**" for name in MEASURES)]]
    rows.append(
        ["95 % interval", *(f"{own[n]['low']:.4f} to {own[n]['high']:.4f}" for n in MEASURES)]
    )
    without = found.get(f"{dataset}-no-embedding")
    if without is not None:
        rows.append(["Nextclick without the encoder", *(_value(without[n]) for n in MEASURES)])
    for name, of in own["baselines"].items():
        some = f", on {of['prefixes']:,} of the prefixes" if "prefixes" in of else ""
        rows.append([f"{NAMES[name]}{some}", *(_value(of[n]) for n in MEASURES)])
        if "ours_on_the_same" in of:
            same = of["ours_on_the_same"]
            rows.append(["Nextclick on the same", *(_value(same[n]) for n in MEASURES)])
    return _table(["", *HEAD], rows)


PUBLISHED = {"diginetica": ".542 / .190", "rees46": ".630 / .181"}
"""The best that we have seen, measured by others (docs/quality.md names them)."""


def overview(_: str, found: Mapping[str, Document]) -> str:
    """A few rows of `methods` of every data set side by side."""
    own = {name: found[name] for name in PUBLISHED}
    served = {name: found[f"{name}-as-served"] for name in PUBLISHED}
    rows = [
        ["**Nextclick**", *(f"**{_both(of)}**" for of in own.values())],
        ["without the session encoder", *(_both(found[f"{name}-no-embedding"]) for name in own)],
        ["*as served*", *(f"*{_both(of)}*" for of in served.values())],
        ["*session kNN as served*", *(f"*{_both(of['baselines']['session_knn'])}*" for of in served.values())],
    ]  # fmt: skip
    for name in ("session_knn", "sequential_rules", "wsknn"):
        rows.append([NAMES[name], *(_both(of["baselines"][name]) for of in own.values())])
    rows[-1][0] += f", {own['rees46']['baselines']['wsknn']['prefixes']:,} prefixes"
    rows.append(["best published that we have seen", *PUBLISHED.values()])
    titles = {"diginetica": "Diginetica", "rees46": "REES46"}
    heads = [f"{titles[name]}, {of['prefixes']:,} prefixes" for name, of in own.items()]
    return _table(["HR@20 / MRR@20", *heads], rows)


def _both(of: Document) -> str:
    return " / ".join(f"{of[measure]['value']:.4f}".lstrip("0") for measure in MEASURES[:2])


def recall(dataset: str, found: Mapping[str, Document]) -> str:
    rows = sorted(found[dataset]["recall@100"].items(), key=lambda row: -row[1]["value"])
    return _table(
        ["source", "the next item is among its first 100"],
        [[f"**{name}**" if name == "merged" else f"`{name}`", _interval(of)] for name, of in rows],
    )


def segments(dataset: str, found: Mapping[str, Document]) -> str:
    rows = [
        [name, f"{of['prefixes']:,}", *(_value(of[measure]) for measure in MEASURES)]
        for name, of in found[dataset]["segments"].items()
        if of["prefixes"]
    ]
    return _table(["test prefixes", "how many", *HEAD], rows)


def ablations(dataset: str, found: Mapping[str, Document]) -> str:
    """What each source and group of features adds: runs that went without it."""
    own = found[dataset]
    rows = []
    for name, other in found.items():
        part = name.removeprefix(f"{dataset}-")
        if name == part or not (part.startswith("without-") or part == "no-embedding"):
            continue
        lost = [other[measure]["value"] - own[measure]["value"] for measure in MEASURES]
        lost.append(other["recall@100"]["merged"]["value"] - own["recall@100"]["merged"]["value"])
        what = part.removeprefix("without-").replace("no-embedding", "vector (no encoder)")
        rows.append((lost[0], [f"`{what}`", *(f"{each:+.4f}" for each in lost)]))
    return _table(["without", *HEAD, "recall@100"], [row for _, row in sorted(rows)])


def costs(dataset: str, found: Mapping[str, Document]) -> str:
    own = found[dataset]
    rows = [
        [stage, f"{taken:,.0f}", f"{own['memory_mb'][stage]:,.0f}"]
        for stage, taken in own["seconds"].items()
    ]
    whole = ["**in all**", f"**{own['seconds_in_all']:,.0f}**", f"**{own['peak_memory_mb']:,.0f}**"]
    return _table(["stage", "seconds", "MB after it"], [*rows, whole])


def lists(dataset: str, found: Mapping[str, Document]) -> str:
    of = found[dataset]["lists"]
    return _table(
        ["lists of 20", ""],
        [[name, _interval(each)] for name, each in of.items()],
    )


def rules(dataset: str, found: Mapping[str, Document]) -> str:
    of = found[dataset]["rules"]
    rows = [[name, *(_value(of[which][m]) for m in MEASURES)] for name, which in (("by score", "without"), ("with the default rules", "default"), ("with the example's", "with"))]  # fmt: skip
    return _table([f"{of['prefixes']:,} prefixes", *HEAD], rows)


def code(dataset: str, found: Mapping[str, Document]) -> str:
    """Which code made which figures: those of other code are others."""
    runs: dict[str, list[str]] = {}
    for name, of in found.items():
        if name == dataset or name.startswith(f"{dataset}-"):
            part = name.removeprefix(dataset).removeprefix("-") or "the main run"
            runs.setdefault(of["versions"].get("code", "not noted"), []).append(part)
    return _table(["code", "runs"], [[f"`{of}`", ", ".join(names)] for of, names in runs.items()])


TABLES = {
    "methods": methods, "recall": recall, "segments": segments, "ablations": ablations,
    "code": code, "costs": costs, "lists": lists, "overview": overview, "rules": rules,
}  # fmt: skip


def charts(found: Mapping[str, Document]) -> None:
    """docs/images/quality-DATASET.png: methods side by side, and segments by session length."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    IMAGES.mkdir(exist_ok=True)
    for name, own in found.items():
        if f"quality-{name}.png" not in PAGE.read_text():
            continue
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
        _bars(left, own, "hit_rate@20", "HR@20")
        _lengths(right, own)
        figure.suptitle(f"{name}, {own['prefixes']:,} test prefixes")
        figure.savefig(IMAGES / f"quality-{name}.png", dpi=110, metadata={"Software": None})
        plt.close(figure)


def _bars(axes: Any, own: Document, measure: str, title: str) -> None:
    shown = {NAMES[name].strip("`"): of[measure]["value"] for name, of in own["baselines"].items()}
    shown["Nextclick"] = own[measure]["value"]
    ordered = sorted(shown.items(), key=lambda row: row[1])
    colours = ["#c0504d" if name == "Nextclick" else "#8aa4c8" for name, _ in ordered]
    bars = axes.barh([name for name, _ in ordered], [value for _, value in ordered], color=colours)
    axes.bar_label(bars, fmt="%.3f", padding=3)
    axes.set(title=title, xlim=(0, 1.18 * ordered[-1][1]))
    axes.spines[["top", "right"]].set_visible(False)


def _lengths(axes: Any, own: Document) -> None:
    parts = {
        name.removeprefix("length "): of
        for name, of in own["segments"].items()
        if name.startswith("length ") and of["prefixes"]
    }
    for measure, title, colour in (("hit_rate@20", "HR@20", "#c0504d"), ("mrr@20", "MRR@20", "#4f6d9c")):  # fmt: skip
        axes.plot(list(parts), [of[measure]["value"] for of in parts.values()], "o-", label=title, color=colour)  # fmt: skip
    axes.set(title="by clicks so far in the visit", ylim=(0, None), xlabel="clicks")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
