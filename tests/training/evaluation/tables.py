"""A made-up session table with a rule that can be learned: item n is mostly followed by n + 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.evaluation.run import Evaluation, Options

ITEMS, TRAIN, TEST = 60, 700, 120
Session = list[str]
SMALL = Options(queries=2000, embedding=False, count=30)


def sessions(count: int, seed: int, rule: float = 0.8) -> list[Session]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        item = int(rng.integers(ITEMS))
        walk = [item]
        for _ in range(int(rng.integers(1, 5))):
            item = (item + 1) % ITEMS if rng.random() < rule else int(rng.integers(ITEMS))
            walk.append(item)
        found.append([f"i{number:02d}" for number in walk])
    return found


def shuffled(given: list[Session], seed: int = 0) -> list[Session]:
    """The same clicks, but which item each is of is drawn anew from all of them."""
    flat = [item for session in given for item in session]
    drawn = iter(np.random.default_rng(seed).permutation(flat).tolist())
    return [[next(drawn) for _ in session] for session in given]


def write(path: Path, train: list[Session], test: list[Session]) -> Path:
    rows = [
        (number, place, item, "train" if number < len(train) else "test")
        for number, session in enumerate([*train, *test])
        for place, item in enumerate(session)
    ]
    columns = zip(*rows, strict=True)
    names = ("session_idx", "position", "item_id", "split")
    pq.write_table(pa.table(dict(zip(names, map(list, columns), strict=True))), path)
    return path


def evaluation(path: Path, folder: Path, options: Options = SMALL) -> Evaluation:
    from training.evaluation.files import session_table

    return Evaluation(session_table(path), options, folder, lambda *step: None)
