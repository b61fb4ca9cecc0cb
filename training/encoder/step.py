"""The step of a training, or of an evaluation, that learns the encoder of every cut-off.

The first starts from yesterday's vectors where there are any, each following one from the one before:
what a shop's items mean changes slowly, and a start near the end needs fewer epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from candidate_service.history import History, read_history
from contracts.errors import UsageError
from contracts.settings import Settings
from contracts.tables import Offline
from training.encoder import artefact
from training.encoder.learn import Encoded, Options, Visits, available, enough, learn

Report = Callable[[int, int], None]


def learn_all(
    history: Callable[[int], History],
    folder: Callable[[int], Path],
    cutoffs: Sequence[int],
    options: Options,
    start: Encoded | None = None,
    report: Report = lambda done, of: None,  # noqa: ARG005
    *,
    reuse: bool = False,
    repeats: bool = False,
    warm: bool = True,
) -> dict[int, Path]:
    """Learn and write the artefact of each cut-off, ascending; where they lie. A cut-off before which
    there is too little to learn from has none. reuse: whether an artefact that is there is taken.
    repeats: whether the same item in a row of a visit counts as often. warm: whether each starts from
    the one before."""
    found: dict[int, Path] = {}
    ascending = sorted(set(cutoffs))
    for place, cutoff in enumerate(ascending):
        if reuse and (kept := _kept(folder(cutoff))) is not None:
            start = kept if warm else None
            found[cutoff] = folder(cutoff)
            continue
        visits = _visits(history(cutoff), repeats)
        if not enough(visits):
            continue
        learned = learn(visits, options, start, _part(report, place, len(ascending)))
        artefact.write(folder(cutoff), learned)
        start = learned if warm else None
        found[cutoff] = folder(cutoff)
    return found


def _visits(known: History, repeats: bool) -> Visits:
    if not repeats:
        rows = known.without_repeats()
        known = replace(
            known, visit=known.visit[rows], item=known.item[rows], time=known.time[rows],
            click=known.click[rows],
        )  # fmt: skip
    starts, ages = known.visits()
    return Visits(known.item, starts, ages, known.ids)


def learn_vectors(
    settings: Settings, cutoffs: Sequence[int], options: Options | None = None,
    report: Report = lambda done, of: None,  # noqa: ARG005
) -> dict[int, Path]:  # fmt: skip
    """The encoders of a training, in the table `item_vectors` of the offline store, which has to be a
    folder; none where JAX is not installed. What was learned of earlier cut-offs goes away."""
    root = Path(f"{settings.offline}/{Offline.item_vectors}")
    if "://" in settings.offline or not available():
        return {}
    earlier = _newest(root, min(cutoffs))
    events = f"{settings.offline}/{Offline.events_clean}"
    found = learn_all(
        lambda cutoff: read_history(events, None, cutoff), lambda cutoff: _folder(root, cutoff),
        cutoffs, options or Options(), earlier, report,
    )  # fmt: skip
    for folder in root.glob("cutoff=*"):
        if folder not in found.values():
            artefact.remove(folder)
    return found


def _folder(root: Path, cutoff: int) -> Path:
    return root / f"cutoff={cutoff}"


def _newest(root: Path, before: int) -> Encoded | None:
    """The newest artefact of an earlier cut-off, which knows nothing that came later."""
    found = sorted(
        (int(folder.name.removeprefix("cutoff=")), folder)
        for folder in root.glob("cutoff=*")
        if folder.name.removeprefix("cutoff=").isdigit()
    )
    usable = [folder for cutoff, folder in found if cutoff < before]
    return _kept(usable[-1]) if usable else None


def _kept(folder: Path) -> Encoded | None:
    """The artefact in a folder; None for one that is not there, damaged, or of another kind."""
    try:
        return artefact.read(folder)
    except (OSError, ValueError, KeyError, UsageError):
        return None


def _part(report: Report, place: int, parts: int) -> Report:
    return lambda done, of: report(place * of + done, parts * of)
