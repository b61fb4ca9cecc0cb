"""The Spark join is what the plain loop says: many cases in each table, for a call of Spark's costs
a second whatever it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from contracts.errors import UsageError
from contracts.features import of_view
from contracts.tables import Offline
from feast_engine.join_rule import MOMENT, JoinRule
from spark_jobs import join
from spark_jobs.asof import asof_join
from spark_jobs.main import main
from tests.feast_engine import oracle
from tests.feast_engine.oracle import ROW, Case, check
from tests.feast_engine.worked_cases import CASES
from tests.spark_jobs import spark_join
from tests.stack.feast_shop import HOUR, activity_rows, catalogue_rows, write_table
from tests.stack.feast_shop import NOON as SHOP_NOON

# Py4J and PySpark leave sockets to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    yield spark_join.spark()
    spark_join.spark().stop()
    spark_join.spark.cache_clear()


CASE = "case"
TOGETHER = 12
"""Of each table, told apart by one more key."""


@st.composite
def tables(draw: st.DrawFn) -> Case:
    """As `oracle.cases`, of `TOGETHER` cases with one rule."""
    step = draw(st.sampled_from([oracle.MICROSECOND, timedelta(seconds=1), timedelta(days=1)]))
    keys = draw(st.permutations(list(oracle.KEYS)))[: draw(st.integers(0, 2))]
    age = draw(st.none() | st.integers(1, oracle.SPAN))
    rule = JoinRule(
        {CASE: CASE, **{key: key for key in keys}},
        tuple(draw(st.permutations(list(oracle.FEATURES)))[: draw(st.integers(1, 3))]),
        created=draw(st.sampled_from(["created_timestamp", None])),
        max_age=None if age is None else age * step,
        as_known=draw(st.booleans()),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(oracle.KEYS, CASE, (pa.int64(), tuple(range(TOGETHER))))
        histories = [draw(oracle.histories(rule, step)) for _ in range(TOGETHER // 2)]
        rows = 3 * TOGETHER
        asking = {name: draw(oracle.column(oracle.KEYS[name], rows)) for name in rule.keys}
        moments = draw(st.lists(st.none() | oracle.STEPS, min_size=rows, max_size=rows))
    asking[MOMENT] = draw(oracle.times(step)).array(moments)
    entity = pa.table({**asking, ROW: pa.array(range(rows), pa.int64())})
    schema = histories[0][0].schema
    files = tuple(part.cast(schema) for files in histories for part in files)
    return Case(entity, files, rule)


@profile(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables())
@pytest.mark.usefixtures("spark")
def test_the_join_is_the_plain_loop(tmp_path_factory: pytest.TempPathFactory, case: Case) -> None:
    check(spark_join.join, case, tmp_path_factory.mktemp("case") / "history")


@pytest.mark.usefixtures("spark")
def test_the_worked_cases(tmp_path: Path) -> None:
    for place, case in enumerate(CASES):
        check(spark_join.join, case, tmp_path / str(place))


def test_rows_keep_their_columns_and_wrong_ones_are_named(spark: Any) -> None:
    rule = JoinRule({"item_id": "item_id"}, ("price",))
    at = datetime(2026, 1, 1)  # noqa: DTZ001  # of no zone
    history = spark.createDataFrame(
        [("a", at, at, 1.0)], "item_id string, event_timestamp timestamp, created_timestamp timestamp, price double"
    )  # fmt: skip
    asked = spark.createDataFrame(
        [(7, "a", at, "x")], "n int, item_id string, at timestamp_ntz, `own name` string"
    )
    found = asof_join(asked, history, rule, moment="at")
    assert [row.asDict() for row in found.collect()] == [
        {"n": 7, "item_id": "a", "at": at, "own name": "x", "price": 1.0}
    ]
    with pytest.raises(UsageError, match="the rows have no column 'event_timestamp'"):
        asof_join(asked, history, rule)
    with pytest.raises(UsageError, match="'price' already"):
        asof_join(asked.withColumnRenamed("n", "price"), history, rule, moment="at")
    with pytest.raises(UsageError, match="'n' has the type int, expected a timestamp"):
        asof_join(asked, history, rule, moment="n")
    with pytest.raises(UsageError, match="'item_id' has the type int, the table's is string"):
        asof_join(
            asked.drop("item_id").withColumnRenamed("n", "item_id"), history, rule, moment="at"
        )


def test_the_command_writes_a_training_set(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(join, "spark_session", lambda _settings: spark)
    monkeypatch.setattr(spark, "stop", lambda: None)
    monkeypatch.setenv("NEXTCLICK_OFFLINE", str(tmp_path / "offline"))
    write_table(str(tmp_path / "offline"), Offline.item_activity, activity_rows())
    write_table(str(tmp_path / "offline"), Offline.item_catalogue, catalogue_rows())
    hours = [0, 3, 12]
    asked = pd.DataFrame({"item_id": ["plain"] * 3, "n": hours})
    asked[MOMENT] = [pd.Timestamp(SHOP_NOON + hour * HOUR, unit="ms") for hour in hours]
    asked.to_parquet(tmp_path / "asked.parquet")  # in nanoseconds
    command = [
        "join", "--entities", str(tmp_path / "asked.parquet"), "--view", "item_activity",
        "--view", "item_catalogue", "--out", str(tmp_path / "out"), "--json",
    ]  # fmt: skip
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows_in"], told["rows_out"]) == (3, 3)
    found = pq.read_table(tmp_path / "out").to_pandas().sort_values("n")
    first = of_view("item_activity")[0].name
    # known three hours after it holds, and this feature counts the days before noon
    assert found[first].tolist() == [1.0, 0.0, 0.0]
    assert found["price"].tolist() == [22.0] * 3
    assert told["columns"] == list(found.columns)
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(("view", "says"), [("moment", "no stored view"), ("x", "item_activity")])
def test_only_stored_views_can_be_joined(
    view: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "x")
    assert main(["join", "--entities", place, "--view", view, "--out", place]) == 2
    assert says in capsys.readouterr().err
