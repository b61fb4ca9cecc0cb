"""Settings, the deadline and the windows of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.deadline import Deadline
from contracts.errors import InvalidEvent, UsageError, shown
from contracts.settings import PREFIX, Settings
from contracts.windows import LEAST_PAST, MOST_WINDOWS, WEEK_MS, Windows, bounds, label_windows

SECRET = {"REDIS_PASSWORD": "sesame"}


def read(**variables: str) -> Settings:
    return Settings.from_environment({PREFIX + name: value for name, value in variables.items()})


def test_the_environment_of_settings_makes_the_same_settings() -> None:
    for settings in (
        read(),
        read(HOME="/x", API_PORT="14000", LAKE="s3a://b/l", **SECRET),
    ):
        assert Settings.from_environment(settings.environment()) == settings


def test_defaults_follow_from_other_settings() -> None:
    settings = read(HOME="/x", REDIS_PORT="7000", MLFLOW_PORT="7001")
    assert settings.lake == "/x/lake"
    assert settings.releases == Path("/x/releases")
    assert settings.redis == "127.0.0.1:7000"
    assert settings.mlflow == "http://127.0.0.1:7001"
    assert read(HOME="/x", LAKE="/y", REDIS="elsewhere:1").redis == "elsewhere:1"
    assert read(HOME="relative").home.is_absolute()


def test_an_empty_variable_is_an_unset_one() -> None:
    assert read(LAKE="", API_PORT="") == read()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("API_PROT", "1", "NEXTCLICK_API_PROT is no setting; did you mean NEXTCLICK_API_PORT?"),
        ("XYZZY_PLUGH", "1", r"NEXTCLICK_XYZZY_PLUGH is no setting \(docs"),
        ("API_PORT", "many", "NEXTCLICK_API_PORT: got 'many'"),
        ("API_PORT", "0", "NEXTCLICK_API_PORT: got '0'.*greater than or equal to 1"),
        ("REDIS_TYPE", "cluster", "NEXTCLICK_REDIS_TYPE: got 'cluster'"),
        ("DRIFT_PSI", "-1", "NEXTCLICK_DRIFT_PSI: got '-1'"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read(**{name: value})


def test_other_variables_are_none_of_ours() -> None:
    assert Settings.from_environment({"PATH": "/bin", "nextclick_api_port": "1"}) == read()


def test_a_password_is_not_shown() -> None:
    assert "sesame" not in repr(read(**SECRET))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_deadline_runs_out_and_stays_out() -> None:
    clock = Clock()
    deadline = Deadline(2.0, clock)
    assert deadline.remaining() == 2.0
    assert deadline.remaining(at_most=0.5) == 0.5
    clock.now = 101.75
    assert deadline.remaining(at_most=0.5) == 0.25
    assert not deadline.expired()
    clock.now = 105.0
    assert deadline.remaining() == deadline.remaining(at_most=1.0) == 0.0
    assert deadline.expired()


times = st.integers(0, 2 * 10**12)


@given(times, st.integers(0, 400 * 24 * 3600 * 1000), st.integers(0, 5))
def test_windows_cover_the_end_of_the_history(first: int, length: int, wanted: int) -> None:
    last = first + length
    windows = Windows.of(first, last, lambda start, end: 1, wanted)
    assert windows.end == last + 1
    size = windows.end - windows.test_start
    end = windows.test_start
    for window in windows.labels:
        assert window == (end - size, end)  # one behind the other, each as long as the test window
        end = window[0]
    # what is learned from has a share of what was before the test window as its past
    least = LEAST_PAST * (windows.test_start - first)
    assert len(windows.labels) == 1 or end - first >= least
    assert windows.cutoffs == tuple(sorted(windows.cutoffs))


def test_a_long_history_has_windows_of_a_week() -> None:
    windows = Windows.of(0, 10 * WEEK_MS - 1, lambda start, end: 100, 100)
    assert windows == Windows(((8 * WEEK_MS, 9 * WEEK_MS),), 9 * WEEK_MS, 10 * WEEK_MS)
    more = Windows.of(0, 10 * WEEK_MS - 1, lambda start, end: 100, 250)
    assert [start // WEEK_MS for start, _ in more.labels] == [8, 7, 6]
    assert more.cutoffs == tuple(week * WEEK_MS for week in (6, 7, 8, 9, 10))
    all_of_them = Windows.of(0, 10 * WEEK_MS - 1, lambda start, end: 0, 250)
    assert [start // WEEK_MS for start, _ in all_of_them.labels] == [8]  # none of them holds any
    short = Windows.of(0, 2 * WEEK_MS - 1, lambda start, end: 9, 9)
    assert short.labels == ((WEEK_MS, 3 * WEEK_MS // 2),)


def test_weeks_without_a_query_are_no_label_windows() -> None:
    held = {4: 90, 6: 80}
    windows = Windows.of(0, 10 * WEEK_MS - 1, lambda start, _: held.get(start // WEEK_MS, 0), 250)
    assert [start // WEEK_MS for start, _ in windows.labels] == [6, 4]


def test_short_windows_that_hold_little_are_made_longer_and_stay_few() -> None:
    """As for a test part of one session among hundreds: 336 windows would take as many encoders."""
    found = label_windows(0, 1024, 1, lambda start, end: end - start, 2000)
    assert found[0] == (992, 1024)
    assert len(found) == MOST_WINDOWS
    plenty = label_windows(0, 1024, 1, lambda start, end: 100 * (end - start), 2000)
    assert plenty == tuple((end - 1, end) for end in range(1024, 1024 - MOST_WINDOWS, -1))


def test_a_history_begins_and_ends_without_its_strays() -> None:
    month = np.arange(3000, 6000, 10, dtype=np.int64)
    assert bounds(month) == (3000, 5990)
    assert bounds(np.append(month, [100])) == (100, 5990)  # near: no stray
    assert bounds(np.append(month, [-4000, 90_000, 90_001])) == (3000, 5990)
    assert bounds(month[:50]) == (3000, 3490)  # of few events each counts
    assert bounds(np.append(month[:50], [90_000])) == (3000, 90_000)
    assert bounds(np.append(np.arange(10**6, 10**6 + 2000), [10**6 - 500])) == (
        10**6 + 1,
        10**6 + 1999,
    )
    assert bounds(np.array([7])) == (7, 7)


@given(st.recursive(st.none() | st.integers() | st.text() | st.binary(), st.lists))
def test_any_value_can_be_shown_shortly(value: object) -> None:
    assert len(shown(value)) <= 83
    loop: list[object] = [value]
    loop.append(loop)
    assert shown(10**5000).startswith("a int")
    assert len(str(InvalidEvent("bad_id", "x", loop, "a text"))) < 150
