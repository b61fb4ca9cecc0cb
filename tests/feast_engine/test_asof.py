"""The join is what the plain loop says, however the tables look and are stored."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from pyarrow import fs

from feast_engine import asof
from feast_engine.asof import asof_join
from feast_engine.parquet import ParquetTable
from tests.feast_engine import oracle
from tests.feast_engine.feast_join import OURS, ask, open_store, through_feast
from tests.feast_engine.oracle import Case, answers, cases, check, plain, views

RANDOM = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def engine(case: Case, folder: Path, filesystem: fs.FileSystem | None = None) -> pa.Table:
    """Our join, over the machine's files or through pyarrow as over S3."""
    history = ParquetTable(str(case.write(folder)), filesystem)
    features = asof_join(case.entity, history, case.rule)
    return pa.table(
        {
            oracle.ROW: case.entity[oracle.ROW],
            **dict(zip(features.column_names, features.columns, strict=True)),
        }
    )


def remote(case: Case, folder: Path) -> pa.Table:
    return engine(case, folder, fs.LocalFileSystem())


@pytest.fixture
def folders(tmp_path_factory: pytest.TempPathFactory) -> pytest.TempPathFactory:
    return tmp_path_factory


@pytest.mark.parametrize("implementation", [engine, remote])
@RANDOM
@given(cases())
def test_the_join_is_the_plain_loop(
    implementation: oracle.Implementation, folders: pytest.TempPathFactory, case: Case
) -> None:
    check(implementation, case, folders.mktemp("case") / "history")


@RANDOM
@given(cases())
def test_chunks_and_file_order_change_nothing(folders: pytest.TempPathFactory, case: Case) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asof, "CHUNK_ROWS", 2)
        check(engine, oracle.reordered(case), folders.mktemp("case") / "history")


@settings(RANDOM, max_examples=15)
@given(cases())
def test_feast_asked_for_one_view_says_the_same(
    folders: pytest.TempPathFactory, case: Case
) -> None:
    check(through_feast(OURS), case, folders.mktemp("case"))


@settings(RANDOM, max_examples=15)
@given(views())
def test_feast_asked_for_several_views_says_the_same_of_each(
    folders: pytest.TempPathFactory, asked: list[Case]
) -> None:
    folder = folders.mktemp("case")
    table = ask(open_store(folder, OURS), asked, folder / "history")
    entity = asked[0].entity
    assert table.column_names[: entity.num_columns] == entity.column_names
    assert table[oracle.ROW].to_pylist() == list(range(entity.num_rows))
    for place, case in enumerate(asked):
        expected = answers(case)
        for name in case.rule.features:
            got = [plain(value) for value in table[f"view{place}__{name}"].to_pylist()]
            assert got == [plain(row[name]) for row in expected], (place, name)
