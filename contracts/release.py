"""A release: what is live, named as one thing and checked as one thing.

A release is a folder `<releases>/<version>/` with `release.json` (the manifest), `rules.json`
(business rules) and `reference.parquet` (the feature rows and scores that drift is measured
against). The file `<releases>/ACTIVE` names the live one; it is replaced in one step, and every
API process follows it.
"""

from __future__ import annotations

import os
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from contracts.errors import ReleaseError, UsageError
from contracts.features import fingerprint
from contracts.rules import DEFAULT, NO_RULES, RULES_FILE, Rules, read_rules

MODEL_NAME = "ranker"
"""The ranker's name in Triton's model repository and in MLflow's registry."""
"""`rules_version` of releases that have no file of rules: the usual ones hold."""
MODEL_TEXT = "model.txt"
"""LightGBM's own file in a ranker's folder: for the embedded backend, and for every proof."""
SCORE_TOLERANCE = 2e-5
"""How far a served score may lie from LightGBM's own: FIL computes in single precision."""


def ranker_folder(models: Path, version: int) -> Path:
    """Where Triton's model repository holds a version of the ranker."""
    return models / MODEL_NAME / str(version)


class Release(BaseModel):
    """The manifest. Frozen once written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    created: datetime
    ranker_version: int  # of MLflow's registry and of Triton's model repository
    mlflow_run: str
    index_version: str
    features: tuple[str, ...]  # the ranker's columns, in order
    fingerprint: str
    feature_service: str
    rules_version: str
    metrics: dict[str, Any]  # offline quality, beside the baselines
    parity: float  # largest difference of served and native scores at export

    def check_features(self) -> None:
        """ReleaseError when the features no longer mean what the ranker was trained on."""
        missing = fingerprint(self.features)
        if missing != self.fingerprint:
            raise ReleaseError(
                f"release {self.version} was trained on features {self.fingerprint}, the code has"
                f" {missing}: train a new release (./nextclick train)"
            )


class ReleaseStore:
    """The releases below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, version: str) -> Path:
        return self.folder / version

    def versions(self) -> list[str]:
        """All releases, oldest first."""
        found = self.folder.glob("*/release.json")
        return sorted(manifest.parent.name for manifest in found)

    def get(self, version: str) -> Release:
        """ReleaseError when there is no such release or its manifest does not parse."""
        if version not in self.versions():
            known = ", ".join(self.versions()) or "none"
            raise ReleaseError(f"no release {version!r}; there are: {known}")
        manifest = self.path(version) / "release.json"
        try:
            return Release.model_validate_json(manifest.read_bytes())
        except ValidationError as error:
            raise ReleaseError(
                f"{manifest} is no release manifest: {error.errors()[0]['msg']}"
            ) from None

    def rules(self, release: Release) -> Rules:
        """The business rules of a release; ReleaseError where they are damaged or others."""
        if release.rules_version == NO_RULES:
            return DEFAULT
        try:
            rules = read_rules(self.path(release.version) / RULES_FILE)
        except UsageError as error:
            raise ReleaseError(f"release {release.version}: {error}") from None
        if rules.name != release.rules_version:
            raise ReleaseError(
                f"release {release.version} names the rules {release.rules_version}, its file holds"
                f" {rules.name}: it was changed; ./nextclick rules apply makes a new release"
            )
        return rules

    def add(self, release: Release) -> Path:
        """Write the manifest: last, when everything the release names is in place."""
        folder = self.path(release.version)
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / "release.json", release.model_dump_json(indent=2))
        return folder

    def active_version(self) -> str | None:
        try:
            return (self.folder / "ACTIVE").read_text().strip() or None
        except FileNotFoundError:
            return None

    def active(self) -> Release | None:
        version = self.active_version()
        return None if version is None else self.get(version)

    def activate(self, version: str) -> None:
        """Name the live release. Check it first; the API checks it again before it takes traffic."""
        self.get(version)
        _replace(self.folder / "ACTIVE", version + "\n")


def _replace(path: Path, text: str) -> None:
    """Write a file in one step: a reader sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    written = Path(file.name)
    written.chmod(0o644)
    written.replace(path)
