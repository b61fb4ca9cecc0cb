"""The README's walk *Add an item feature in five minutes*, taken as it is written there.

It runs in a copy of the checkout, with a stack of its own, over the lake of the trained stack.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from contracts.settings import ROOT, Settings
from tests.stack.conftest import free_settings

NAME = "views_3d"
SECONDS = 560


class Walker:
    """A feature engineer in a checkout of their own."""

    def __init__(self, checkout: Path, settings: Settings) -> None:
        self.checkout, self.settings = checkout, settings
        self.environment = {
            **os.environ,
            **settings.environment(),
            "PYTHONPATH": str(checkout),
            "NEXTCLICK_FEAST_YAML": str(checkout / "feature_repo/environments/embedded.yaml"),
        }

    def run(self, *command: str, codes: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(
            command, cwd=self.checkout, env=self.environment, timeout=SECONDS,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode in codes, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def nextclick(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> Any:
        text = self.run(sys.executable, "-m", "local_stack", *arguments, "--json", codes=codes)
        return json.loads(text)

    def feast(self, command: str) -> str:
        yaml = str(self.settings.feast_yaml.relative_to(ROOT / "feature_repo"))
        program = str(Path(sys.executable).parent / "feast")
        return self.run(program, "-c", "feature_repo", "-f", f"feature_repo/{yaml}", command)


def copy_checkout(folder: Path) -> Path:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in files.split():
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    return folder


def follow_readme(checkout: Path) -> None:
    """The two edits of the README's walk, nothing else."""
    walk = (ROOT / "README.md").read_text().split("## Add an item feature")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", walk, flags=re.DOTALL)
    declaration, function = (textwrap.dedent(block).strip() for block in blocks)
    features = checkout / "contracts/features.py"
    anchor = '"views_1d":'
    text = features.read_text()
    assert text.count(anchor) == 1
    features.write_text(text.replace(anchor, f"{declaration}\n        {anchor}"))
    jobs = checkout / "contracts/item_features.py"
    jobs.write_text(f"{jobs.read_text()}\n\n{function}\n")


@pytest.fixture
def walker(tmp_path: Path, trained: Settings) -> Iterator[Walker]:
    checkout = copy_checkout(tmp_path / "checkout")
    own = free_settings(tmp_path)
    shutil.copytree(trained.lake, own.lake)
    walker = Walker(checkout, own)
    walker.feast("apply")
    follow_readme(checkout)
    walker.nextclick("up")
    try:
        yield walker
    finally:
        walker.nextclick("down")


def columns_of(folder: str) -> set[str]:
    return set(ds.dataset(folder, format="parquet").schema.names)


@pytest.mark.timeout(900)  # it trains
def test_a_declared_feature_arrives_everywhere(walker: Walker) -> None:
    plan = walker.feast("plan")
    assert NAME in plan
    assert "Created" not in plan
    walker.feast("apply")
    assert NAME not in walker.feast("plan")
    release = walker.nextclick("train")
    assert NAME in release["features"]
    assert NAME in columns_of(f"{walker.settings.offline}/item_activity")
    assert NAME in columns_of(
        str(walker.settings.releases / release["version"] / "reference.parquet")
    )
    answer = walker.nextclick("recommend", "--session", "walk", "-k", "20")
    assert answer["release"] == release["version"]
    assert answer["degraded"] == []
