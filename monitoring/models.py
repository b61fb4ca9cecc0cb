"""The rankers of releases as LightGBM itself runs them: what served scores are held against."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from contracts.errors import ReleaseError
from contracts.release import MODEL_TEXT, Release, ReleaseStore, ranker_folder
from contracts.settings import Settings

if TYPE_CHECKING:
    import lightgbm

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
THREADS = 2


class Rankers:
    """Releases and their models by the release's version, each read once."""

    def __init__(self, settings: Settings) -> None:
        self._releases, self._models = ReleaseStore(settings.releases), settings.models
        self._known: dict[str, Release | None] = {}
        self._boosters: dict[Path, lightgbm.Booster | None] = {}

    def release(self, version: str) -> Release | None:
        """None where it was deleted."""
        if version not in self._known:
            try:
                self._known[version] = self._releases.get(version)
            except ReleaseError:
                self._known[version] = None
        return self._known[version]

    def path(self, release: Release) -> Path:
        return ranker_folder(self._models, release.ranker_version) / MODEL_TEXT

    def scores(self, release: Release, rows: Floats) -> Doubles | None:
        """Scores [n] of rows [n, features]; None where the model was deleted."""
        booster = self._booster(release)
        if booster is None:
            return None
        return np.asarray(booster.predict(rows, num_threads=THREADS), dtype=np.float64)

    def contributions(self, release: Release, rows: Floats) -> Doubles | None:
        """What each feature adds to each score, and last what every row begins with:
        [n, features + 1], of which each row adds up to its score (Lundberg et al., "Consistent
        Individualized Feature Attribution for Tree Ensembles", 2018, as LightGBM has it)."""
        booster = self._booster(release)
        if booster is None:
            return None
        found = booster.predict(rows, pred_contrib=True, num_threads=THREADS)
        return np.asarray(found, dtype=np.float64)

    def _booster(self, release: Release) -> lightgbm.Booster | None:
        import lightgbm

        path = self.path(release)
        if path not in self._boosters:
            there = path.is_file()
            self._boosters[path] = lightgbm.Booster(model_file=str(path)) if there else None
        return self._boosters[path]
