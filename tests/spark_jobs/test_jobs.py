"""What can be told without Spark: wrong use, rows at the door, declared features, code for workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import UsageError
from contracts.events import Device, EventType, Reason, parse_event
from contracts.features import of_view
from contracts.item_features import ITEM_FEATURES, check_declared
from spark_jobs.clean import parse_row
from spark_jobs.item_days import ItemDays
from spark_jobs.jobs import JOBS, in_order
from spark_jobs.main import main
from spark_jobs.session import write_code_archive
from spark_jobs.tables import hadoop_path

ROW = {
    "event_id": "e1", "session_id": "s", "type": "click", "time": 1_000, "item_id": "a",
    "position": 3, "device": "mobile", "source": None, "price": None, "received": 1_500,
}  # fmt: skip
KNOWN = ("event_id", "session_id", "type", "time", "item_id")


def test_a_row_becomes_codes_and_the_key_of_its_event() -> None:
    row = parse_row(ROW)
    assert row["key"] == parse_event({k: ROW[k] for k in KNOWN}, now_ms=1_500).key
    assert (row["type"], row["device"], row["source"]) == (EventType.click, Device.mobile, 0)
    assert row["position"] == 3
    assert "reason" not in row
    assert parse_row({**ROW, "position": None})["position"] == -1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"session_id": None}, Reason.no_session),
        ({"item_id": None}, Reason.no_item),
        ({"time": None}, Reason.no_time),
        ({"time": -1}, Reason.bad_time),
        ({"time": 1_500 + 300_001}, Reason.time_in_future),
        ({"type": "stare"}, Reason.unknown_type),
        ({"event_id": "x" * 257}, Reason.bad_id),
        ({"price": -0.01}, Reason.negative_price),
        ({"device": "fridge"}, Reason.bad_value),
    ],
)
def test_a_wrong_row_is_refused_with_its_reason(change: dict[str, object], reason: Reason) -> None:
    assert parse_row({**ROW, **change}) == {"received": 1_500, "reason": reason}


def test_every_declared_item_feature_has_its_function() -> None:
    check_declared([feature.name for feature in of_view("item_activity")], ITEM_FEATURES)


def test_a_feature_without_function_or_declaration_is_an_error_that_names_both_files() -> None:
    with pytest.raises(
        UsageError, match=r"features\.py declares b .*item_features\.py has no func"
    ):
        check_declared(["a", "b"], ["a"])
    with pytest.raises(UsageError, match=r"item_features\.py has b, which contracts/features\.py"):
        check_declared(["a"], ["a", "b"])


def test_an_unknown_measure_and_an_empty_window_are_refused() -> None:
    with pytest.raises(UsageError, match="'vews' is not counted of items; counted are views"):
        ItemDays().total("vews", 7)
    with pytest.raises(UsageError, match="a window of 0 days"):
        ItemDays().total("views", 0)


def test_jobs_run_in_their_order_whatever_the_order_asked_for() -> None:
    assert in_order(["queries", "clean"]) == ["clean", "queries"]
    assert in_order(list(JOBS)) == list(JOBS)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--jobs", "clean,dance"], "no job is called 'dance'"),
        (["run", "--now", "yesterday"], "--now: got 'yesterday'"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def test_the_code_for_remote_workers_can_be_imported_from_its_archive(tmp_path: Path) -> None:
    archive = tmp_path / "code.zip"
    write_code_archive(archive)
    program = f"import sys; sys.path.insert(0, {str(archive)!r}); import contracts.session as s; print(s.__file__)"
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert found.startswith(str(archive))


def test_hadoop_gets_its_own_name_for_s3() -> None:
    assert hadoop_path("s3://bucket/offline/") == "s3a://bucket/offline"
    assert hadoop_path("s3a://bucket/lake") == "s3a://bucket/lake"
    assert hadoop_path("/var/lake") == "/var/lake"
