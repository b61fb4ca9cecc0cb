"""The stream between a real Kafka and a real Redis, held equal to the batch job over the same facts.

The shop: 6 hours before now the batch run ended; what came before lies in the lake alone (and is
sent as a backfill too, which the stream must leave out), what came after is in Kafka and, as the
consumer would have stored it, in the lake. Some of it is late, repeated or wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer
from pyspark import SparkContext
from pyspark.errors import StreamingQueryException

from contracts.deadline import Deadline
from contracts.events import BACKFILL_HEADER, Event, Impression, Topic, topic_name
from contracts.features import of_view
from contracts.settings import Settings
from contracts.tables import LAKE_COLUMNS, Lake, Offline
from feast_engine.connection import connect
from feast_engine.reader import ReadRequest, SyncReader
from feast_engine.writer import OnlineWriter
from local_stack import stack
from local_stack.java import ensure_java
from orchestrator.kafka_topics import ensure_topics
from spark_jobs import jobs, stream
from spark_jobs.stream import TrendStream, stream_session
from spark_jobs.stream_state import ProgressStore
from spark_jobs.stream_store import StreamStore
from spark_jobs.walk import arrow_schema
from spark_jobs.windows import DELAY_MS
from tests.stack.conftest import free_settings

# Py4J and PySpark leave sockets to the garbage collector
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
STEP = 5 * MINUTE
KINDS = ("item_view", "item_view", "click", "add_to_cart", "checkout", "remove_from_cart")
Row = dict[str, Any]


@dataclass
class Shop:
    """What happened, as messages and as rows of the lake. `history`: where the batch run ended."""

    history: int
    end: int
    messages: list[tuple[Topic, bytes, int, bool]] = field(default_factory=list)
    lake: dict[Lake, list[Row]] = field(default_factory=lambda: {t: [] for t in Lake})

    @classmethod
    def of(cls, seed: int, now: int) -> Shop:
        chance = random.Random(seed)  # noqa: S311
        shop = cls((now - 6 * HOUR) // STEP * STEP, now - 15 * MINUTE)
        for number in range(240):
            shop._visit(
                chance, f"s{number}", chance.randrange(shop.history - 7 * DAY, shop.history)
            )
        for number in range(240, 500):
            shop._visit(chance, f"s{number}", chance.randrange(shop.history, shop.end))
        shop.messages.append((Topic.events, b"no json", shop.end, False))
        for item, category in enumerate(["toys", "toys", "toys.cars", None, "books"]):
            moment = shop.history - 8 * DAY
            place = {"received": moment, "partition": 0, "offset": item}
            row = {"item_id": f"i{item}", "time": moment, "category": category, **place}
            shop.lake[Lake.products].append(row)
        return shop

    def _visit(self, chance: random.Random, session: str, time: int) -> None:
        item = f"i{chance.randrange(6)}"
        if chance.random() < 0.3:
            answer = Impression(
                request_id=f"r-{session}", session_id=session, time=time, release="r",
                items=[item, "i0" if item != "i0" else "i1"], scores=[1.0, 0.5],
                sources=[[], []], degraded=[],
            )  # fmt: skip
            self._tell(chance, Topic.impressions, answer.model_dump(), answer.to_json(), time)
        kind = chance.choice(KINDS)
        request = f"r-{session}" if chance.random() < 0.3 else None
        event = Event.model_validate(
            {
                "session_id": session,
                "type": kind,
                "time": time,
                "item_id": item,
                "request_id": request,
            }
        )
        row = {**event.model_dump(), "type": kind, "device": "unknown", "source": "unknown"}
        self._tell(chance, Topic.events, row, event.to_json(), time)

    def _tell(self, chance: random.Random, topic: Topic, row: Row, body: bytes, time: int) -> None:
        """On time, a little late, very late, or of a clock that is ahead; some twice."""
        past = time < self.history
        late = 0 if past else chance.choice([0, 0, 0, 50, 4 * MINUTE, 20 * MINUTE, -3 * MINUTE])
        received = max(time + late, self.history) if not past else time
        copies = [received]
        if not past and chance.random() < 0.3:
            copies.append(received + chance.choice([0, 10, 6 * MINUTE, 40 * MINUTE]))
        for known in copies:
            if known > self.end:
                continue
            self.messages.append((topic, body, known, past))
            place = {"received": known, "partition": 0, "offset": len(self.messages)}
            self.lake[Lake(topic.value)].append({**row, **place})

    def send(self, settings: Settings, since: int, until: int) -> None:
        """What was sent in [since, until), in that order, as Kafka would hold it: the past an hour
        after the batch run, by an import."""
        producer = Producer({"bootstrap.servers": settings.kafka, "linger.ms": 5})
        sent = [(self.history + HOUR if m[3] else m[2], m) for m in self.messages]
        for known, (topic, body, _, past) in sorted(sent, key=lambda pair: pair[0]):
            if not since <= known < until:
                continue
            headers: list[tuple[str, str | bytes | None]] = [(BACKFILL_HEADER, b"")] if past else []
            name = topic_name(settings.topic_prefix, topic)
            producer.produce(name, body, key=body[:30], timestamp=known, headers=headers)
        assert producer.flush(30) == 0

    def write_lake(self, settings: Settings) -> None:
        for table, rows in self.lake.items():
            if rows:
                columns = LAKE_COLUMNS[table]
                full = [{name: row.get(name) for name in columns} for row in rows]
                path = Path(settings.lake, table.value, "day=2000-01-01", "part.parquet")
                path.parent.mkdir(parents=True)
                pq.write_table(pa.Table.from_pylist(full, arrow_schema(columns)), path)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Redis and Kafka."""
    settings = free_settings(tmp_path_factory.mktemp("stream"))
    try:
        stack.up(settings, only=("redis", "kafka"), report=print)
        yield settings
    finally:
        stack.down(settings)


@pytest.fixture(scope="module")
def spark(servers: Settings) -> Iterator[Any]:
    _end_java()
    session = stream_session(servers)
    yield session
    session.stop()


def _end_java() -> None:
    """Of Spark tests before: a Java that runs takes up no more packages, and the stream needs one."""
    gateway = SparkContext._gateway
    if gateway is not None:
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait(60)
        SparkContext._gateway = SparkContext._jvm = None


@pytest.fixture
def settings(servers: Settings, tmp_path: Path) -> Settings:
    """Topics, online project and folders of a test's own."""
    name = f"t{time.time_ns()}"
    own = {
        "topic_prefix": f"{name}.", "feast_project": name, "home": tmp_path,
        "lake": str(tmp_path / "lake"), "offline": str(tmp_path / "offline"),
        "stream_state": str(tmp_path / "state"), "stream_seconds": 1,
    }  # fmt: skip
    made = servers.model_copy(update=own)
    ensure_topics(made)
    return made


def run_batch(spark: Any, settings: Settings, now: int) -> None:
    """The batch job with what was known by `now`; rows up to `now` less the usual delay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "spark_session", lambda _settings: spark)
        patch.setattr(spark, "stop", lambda: None)
        jobs.run_jobs(settings, ["clean", "catalogue", "windows"], now, lambda *_: None)


def expected(spark: Any, settings: Settings, until: int) -> Settings:
    """The tables that a batch run over everything makes, in a place of their own."""
    whole = settings.model_copy(update={"offline": f"{settings.offline}-whole"})
    run_batch(spark, whole, until + DELAY_MS)
    return whole


def rows_of(settings: Settings, table: Offline, after: int, until: int) -> list[Row]:
    """Rows of moments in (after, until], sorted, without their created time."""
    folder = Path(settings.offline, table.value)
    rows = [row for file in folder.glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    for row in rows:
        row["at"] = int(row.pop("event_timestamp").timestamp() * 1000)
        row.pop("created_timestamp")
    inside = [row for row in rows if after < row["at"] <= until]
    return sorted(inside, key=lambda row: (row["at"], next(iter(row.values()))))


def online(settings: Settings, table: Offline, keys: list[str]) -> dict[str, tuple[Any, ...]]:
    """By key: the event time and the values of what is served now."""
    with contextlib.closing(connect(settings)) as client:
        [found] = SyncReader(settings, client).read([ReadRequest(table.value, keys)], None)
    names = [feature.name for feature in of_view(table.value)]
    cells = [found.columns[name].tolist() for name in names]
    return dict(zip(keys, zip(found.event_times_ms.tolist(), *cells, strict=True), strict=True))


def check_equal(spark: Any, settings: Settings, shop: Shop, told: int) -> None:
    """Tables and online store hold what the batch job says of the stretch that the stream told."""
    whole = expected(spark, settings, told)
    for table, key in (
        (Offline.item_windows, "item_id"),
        (Offline.category_windows, "category_name"),
    ):
        right = rows_of(whole, table, shop.history, told)
        assert len(right) > 50
        assert rows_of(settings, table, shop.history, told) == right
        newest = {row[key]: row for row in right}
        names = [feature.name for feature in of_view(table.value)]
        served = {name: (row["at"], *(row[n] for n in names)) for name, row in newest.items()}
        assert online(settings, table, list(newest)) == served


def new_stream(spark: Any, settings: Settings, clock: Callable[[], int]) -> TrendStream:
    return TrendStream(spark, settings, OnlineWriter(settings, connect(settings)), clock)


class Died(Exception):
    """Stands for the end of the process."""


def once_after(function: Callable[..., Any], times: int = 1) -> Callable[..., Any]:
    """The function, which dies after its `times`-th call."""
    calls = 0

    def dies(*arguments: Any) -> Any:
        nonlocal calls
        answer = function(*arguments)
        calls += 1
        if calls == times:
            raise Died
        return answer

    return dies


def test_the_stream_says_what_the_batch_job_says_wherever_it_dies(
    spark: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(time.time() * 1000)
    shop = Shop.of(5, now)
    shop.write_lake(settings)
    run_batch(spark, settings, shop.history + DELAY_MS)
    split = shop.history + 4 * HOUR
    shop.send(settings, 0, split)
    points = (
        (StreamStore, "add_messages"),
        (StreamStore, "put_buckets"),
        (stream, "publish_stream_rows"),
        (OnlineWriter, "write"),
        (ProgressStore, "write"),
    )
    for target, name in points:
        with monkeypatch.context() as patch:
            patch.setattr(target, name, once_after(getattr(target, name)))
            dying = new_stream(spark, settings, lambda: split)
            with pytest.raises((Died, StreamingQueryException)):
                dying.cycle()
    new_stream(spark, settings, lambda: split).cycle()
    # another batch run, of what was known half an hour ago: what the stream told since stays
    run_batch(spark, settings, split - 30 * MINUTE)
    new_stream(spark, settings, lambda: split).cycle()
    shop.send(settings, split, now)
    told = new_stream(spark, settings, lambda: now).cycle().told
    assert shop.end - 2 * STEP < told <= now - 5 * MINUTE
    check_equal(spark, settings, shop, told)


def begin(settings: Settings, *arguments: str) -> subprocess.Popen[str]:
    """The command in a process group of its own, JVM and Python workers with it."""
    command = [sys.executable, "-P", "-m", "spark_jobs", "stream", *arguments]
    environment = {**os.environ, **settings.environment(), "JAVA_HOME": str(ensure_java(settings))}
    log = (settings.home / "stream.log").open("a")
    with log:
        return subprocess.Popen(
            command, env=environment, cwd=settings.home, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip


def kill_when(settings: Settings, folder: str, names: str) -> None:
    """SIGKILL to all of it as soon as such a file is there."""
    process = begin(settings)
    try:
        deadline = Deadline(180)
        while not any(Path(folder).glob(names)):
            assert process.poll() is None, (settings.home / "stream.log").read_text()[-2000:]
            assert not deadline.expired(), f"{folder}/{names} did not come"
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def test_killed_by_sigkill_it_goes_on_where_it_was(spark: Any, settings: Settings) -> None:
    shop = Shop.of(6, int(time.time() * 1000))
    shop.write_lake(settings)
    run_batch(spark, settings, shop.history + DELAY_MS)
    shop.send(settings, 0, shop.end + 1)
    kill_when(settings, f"{settings.stream_state}/buckets", "*-*")  # other points: see above
    process = begin(settings, "--once")
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, (settings.home / "stream.log").read_text()[-2000:]
    told = json.loads(said)["progress"]["told"]
    assert told > shop.end - 2 * STEP
    check_equal(spark, settings, shop, told)
