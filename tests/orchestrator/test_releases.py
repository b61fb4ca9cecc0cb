"""Following the active release: what goes live, what is refused, what is tried again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ReleaseError
from contracts.release import Release
from orchestrator.ports import CandidateFinder
from orchestrator.releases import RETRY_SECONDS, ReleaseFollower
from tests.orchestrator.fakes import FakeFinder, FakeWorld, settings_in


@pytest.fixture
def world(tmp_path: Path) -> FakeWorld:
    return FakeWorld(settings_in(tmp_path))


def check(follower: ReleaseFollower) -> dict[str, Any]:
    asyncio.run(follower.check())
    live, refusal = follower.current(), follower.refusal
    return {
        "live": None if live is None else live.release.version,
        "refused": None if refusal is None else refusal.version,
    }


def test_nothing_is_active(world: FakeWorld) -> None:
    assert check(world.parts.follower) == {"live": None, "refused": None}


def test_a_release_goes_live_warm(world: FakeWorld) -> None:
    """Ranker loaded and asked, index asked for popular items and for visits, before it is live."""
    world.activate("r1")
    assert check(world.parts.follower) == {"live": "r1", "refused": None}
    assert world.ranker.versions == {1}
    assert len(world.ranker.calls) == 1
    assert world.finder.asked[0] == []
    assert len(world.finder.asked) > 10
    assert b'nextclick_release_info{release="r1"} 1.0' in world.parts.metrics.page()


def test_it_switches_and_goes_back(world: FakeWorld) -> None:
    for version, ranker in (("r1", 1), ("r2", 2), ("r1", 1)):
        world.activate(version, ranker)
        assert check(world.parts.follower)["live"] == version
    page = world.parts.metrics.page()
    assert b'release="r1"' in page
    assert b'release="r2"' not in page


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"ranker": 9}, "no version 9"),
    ({"index_version": "index-9"}, "index-9"),
    ({"fingerprint": "0123456789abcdef"}, "was trained on features"),
    ({"features": ("no_such_feature",)}, "does not declare"),
]


@pytest.mark.parametrize(("wrong", "reason"), WRONG)
def test_a_release_that_is_not_whole_is_refused(
    world: FakeWorld, wrong: dict[str, Any], reason: str
) -> None:
    world.activate("r1")
    check(world.parts.follower)
    world.activate("r2", **wrong)
    assert check(world.parts.follower) == {"live": "r1", "refused": "r2"}
    state = world.parts.release_state()
    assert state["release"] == "r1"
    assert state["refused"]["version"] == "r2"
    assert reason in state["refused"]["reason"]
    assert b"nextclick_release_refusals_total 1.0" in world.parts.metrics.page()
    world.activate("r1")
    assert check(world.parts.follower) == {"live": "r1", "refused": None}


def test_a_broken_manifest_is_refused(world: FakeWorld) -> None:
    world.activate("r1")
    check(world.parts.follower)
    world.activate("r2")
    (world.settings.releases / "r2" / "release.json").write_text("{")
    assert check(world.parts.follower) == {"live": "r1", "refused": "r2"}


def test_a_broken_index_is_refused_and_tried_again(tmp_path: Path) -> None:
    """Not at every look, but after a while; when it is mended it goes live."""
    world, clock, whole = FakeWorld(settings_in(tmp_path)), [0.0], [False]
    tries = []

    def find(release: Release) -> CandidateFinder:
        tries.append(release.version)
        if not whole[0]:
            raise ReleaseError("checksum of popular.npy differs")
        return FakeFinder()

    follower = ReleaseFollower(
        store=world.parts.follower._store,
        find=find,
        ranker=world.ranker,
        metrics=world.parts.metrics,
        candidate_count=10,
        clock=lambda: clock[0],
    )
    world.activate("r1")
    for _ in range(3):
        assert check(follower) == {"live": None, "refused": "r1"}
    assert tries == ["r1"]
    whole[0] = True
    clock[0] += RETRY_SECONDS
    assert check(follower) == {"live": "r1", "refused": None}


def test_without_ranker_the_first_release_answers_and_the_ranker_follows(world: FakeWorld) -> None:
    world.ranker.trouble.down = True
    world.activate("r1")
    assert check(world.parts.follower) == {"live": "r1", "refused": None}
    assert world.parts.degraded() == ["ranking"]
    world.ranker.trouble.down = False
    check(world.parts.follower)
    assert world.ranker.versions == {1}
    assert world.parts.degraded() == []


def test_without_ranker_no_switch(world: FakeWorld) -> None:
    world.activate("r1")
    check(world.parts.follower)
    world.ranker.trouble.down = True
    world.activate("r2", ranker=2)
    assert check(world.parts.follower) == {"live": "r1", "refused": "r2"}


def test_the_switch_is_told(world: FakeWorld) -> None:
    told: list[int] = []
    world.parts.follower._switched = lambda: told.append(1)
    world.activate("r1")
    check(world.parts.follower)
    check(world.parts.follower)
    assert told == [1]
