"""A shop's events from a file into Kafka: `import_events`.

Known are our own field names, REES46's columns, and any others by a mapping; Parquet and CSV, also
compressed. DuckDB reads the file, cuts sessions at 30 minutes idle (a later visit of the session
`s` becomes the session `s~2`, `s~3` ...) and sorts by time, within a gigabyte of memory, spilling
to disk beyond that. Every row then goes through `contracts.events.parse_event`. What is refused,
repeats too, is written to the lake's table `dead_letters` with its reason: rows read are always
rows accepted plus rows refused. All is sent as a backfill: what a file tells became known when it
happened, not when the file was imported.

Memory in this process: a batch of rows, the newest known category, brand and price of each item,
and those event ids that the file holds more than once.
"""

from __future__ import annotations

import gzip
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from contracts.dead_letters import DeadLetter
from contracts.errors import InvalidEvent, UsageError
from contracts.events import (
    CLOCK_SKEW,
    Event,
    Reason,
    Topic,
    parse_event,
    parse_price,
    parse_product,
)
from contracts.file_columns import columns_of, milliseconds, ordered_rows
from contracts.settings import Settings
from contracts.tables import Lake
from orchestrator.consumer.lake import ParquetLake, schema_of

BATCH_ROWS = 5_000
FLUSH_SECONDS = 30.0
MEMORY = "1GB"
"""DuckDB's memory; what does not fit is spilled."""
DAY_MS = 24 * 3600 * 1000
TYPES = {
    "view": "item_view",
    "cart": "add_to_cart",
    "addtocart": "add_to_cart",
    "purchase": "checkout",
    "transaction": "checkout",
}
"""Names of types in the wild; our own are accepted as they are."""

Report = Callable[[str, int, int], None]
"""Called with what is done, how many of how many."""


class Sink(Protocol):
    """Where messages go (`orchestrator.kafka_log.KafkaLog`)."""

    def put(self, topic: Topic, key: str | None, value: bytes, backfill: bool = False) -> None: ...

    def flush(self, seconds: float) -> None:
        """Wait until all is stored; an error when something was not."""
        ...


@dataclass
class ImportSummary:
    """`rows == accepted + sum(refused.values())`, always. Times: milliseconds, after shifting."""

    file: str
    layout: str = ""
    rows: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    products: int = 0
    prices: int = 0
    shifted_days: int = 0
    first: int | None = None
    last: int | None = None
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "refused": dict(self.refused)}

    def text(self) -> str:
        lines = [f"{self.rows:,} rows: {self.accepted:,} events accepted"]
        refused = ", ".join(f"{count:,} {reason}" for reason, count in self.refused.most_common())
        lines.append(f"{self.refused.total():,} refused ({refused})" if refused else "none refused")
        lines.append(f"{self.products:,} product and {self.prices:,} price messages")
        if self.first is not None and self.last is not None:
            lines.append(f"from {_minute(self.first)} to {_minute(self.last)} UTC")
        if self.shifted_days:
            lines.append(f"moved by {self.shifted_days} days")
        return "; ".join(lines)


def import_events(
    path: Path,
    settings: Settings,
    sink: Sink,
    mapping: Mapping[str, str] | None = None,
    shift_to_now: bool = False,
    report: Report = lambda _what, _done, _of: None,
) -> ImportSummary:
    """Send the events of `path`, and what they say of products and prices, in order of time.

    `mapping`: our names (`columns.KNOWN`) to the file's columns. `shift_to_now` moves all times by
    whole days, so that the newest event is less than 24 hours old: features have a maximum age,
    and an old file would look like a shop that no one has visited since. The hour stays what it
    was, the weekday may not. UsageError for a file that cannot be read or lacks columns.
    """
    began = time.monotonic()
    now = int(time.time() * 1000)
    summary = ImportSummary(path.name)
    with _Table(path, now) as table:
        columns, summary.layout = columns_of(path, table.types, mapping)
        rows, newest = table.extent(columns)
        if shift_to_now and newest is not None:
            summary.shifted_days = (now - newest) // DAY_MS
        run = _Run(settings, sink, summary, now)
        for letter in table.broken_lines():
            run.refuse(letter)
        for batch in table.batches(columns):
            run.take(batch)
            sink.flush(FLUSH_SECONDS)
            report(f"events of {path.name}", summary.rows, rows)
        run.finish()
    summary.seconds = round(time.monotonic() - began, 3)
    return summary


def check_file(path: Path) -> None:
    """UsageError where there is nothing to import, or text that DuckDB would pass over unseen."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name one Parquet or CSV file in it")
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")
    if not path.stat().st_size:
        raise UsageError(f"{path} is empty: expected a Parquet file, or CSV with a header")
    if not _is_parquet(path) and path.suffix != ".zst":
        _check_text(path)


def _check_text(path: Path) -> None:
    line = 0
    reader = gzip.open if path.suffix == ".gz" else Path.open
    try:
        with reader(path, "rb") as lines:
            for content in lines:
                line += 1
                content.decode()
    except UnicodeDecodeError:
        raise UsageError(
            f"{path}, line {line}: not UTF-8; convert the file first, for example with"
            " `iconv -f latin1 -t utf-8`; nothing was imported"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None


def _is_parquet(path: Path) -> bool:
    return path.name.endswith((".parquet", ".pq"))


class _Table:
    """The file in DuckDB."""

    def __init__(self, path: Path, now: int) -> None:
        import duckdb

        check_file(path)
        self._path, self._now, self._error = path, now, duckdb.Error
        self._folder = tempfile.TemporaryDirectory(prefix="nextclick-import-")
        self._base = duckdb.connect(config={"memory_limit": MEMORY, "threads": 2})
        self._base.execute("SET TimeZone = 'UTC'")
        self._base.execute(f"SET temp_directory = '{self._folder.name}'")
        self._csv = not _is_parquet(path)
        self._source = self._reader()
        self.types: dict[str, str] = {}

    def __enter__(self) -> _Table:
        try:
            described = self._run(f"DESCRIBE SELECT * FROM {self._source}").fetchall()  # noqa: S608
        except UsageError:
            self.__exit__()
            raise
        self.types = {name: kind for name, kind, *_ in described}
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()
        self._folder.cleanup()

    def extent(self, columns: Mapping[str, str]) -> tuple[int, int | None]:
        """Rows, and the newest time (milliseconds) that lies not in the future."""
        ms = milliseconds(columns["time"])
        sql = f"SELECT count(*), max(ms) FILTER (ms BETWEEN 0 AND {self._latest}) FROM (SELECT {ms} AS ms FROM {self._source})"  # noqa: S608
        rows, newest = self._run(sql).fetchall()[0]
        return rows, newest

    def batches(self, columns: dict[str, str]) -> Iterator[pa.RecordBatch]:
        sql = ordered_rows(self._source, self.types, columns, self._latest)
        try:
            yield from self._base.sql(sql).to_arrow_reader(BATCH_ROWS)
        except self._error as error:
            raise UsageError(f"{self._path} cannot be read: {error}") from error

    def broken_lines(self) -> list[DeadLetter]:
        """Lines of a CSV file that are no rows, after `extent` has read all of them once."""
        if not self._csv:
            return []
        sql = "SELECT first(csv_line), first(error_message) FROM reject_errors GROUP BY line"
        return [self._broken(line, message) for line, message in self._run(sql).fetchall()]

    def _broken(self, line: str, message: str) -> DeadLetter:
        error = InvalidEvent(Reason.bad_value, "", line, f"a line of CSV ({message})")
        return DeadLetter.of(error, line, f"import:{self._path.name}", self._now)

    @property
    def _latest(self) -> int:
        return self._now + int(CLOCK_SKEW.total_seconds() * 1000)

    def _reader(self) -> str:
        name = "'" + str(self._path).replace("'", "''") + "'"
        if not self._csv:
            return f"read_parquet({name})"
        # all as text: what a cell should have been is for parse_event to say
        return f"read_csv({name}, header = true, all_varchar = true, store_rejects = true)"

    def _run(self, sql: str) -> Any:
        try:
            return self._base.execute(sql)
        except self._error as error:
            kinds = "Parquet (.parquet) or CSV (.csv, .csv.gz)"
            raise UsageError(
                f"{self._path} cannot be read as {kinds}: {str(error).splitlines()[0]}"
            ) from error


class _Run:
    """Rows in, messages and dead letters out."""

    def __init__(self, settings: Settings, sink: Sink, summary: ImportSummary, now: int) -> None:
        self._sink, self._summary, self._now = sink, summary, now
        self._lake, self._files = ParquetLake(settings.lake), 0
        self._letters: list[DeadLetter] = []
        self._shift = summary.shifted_days * DAY_MS
        self._moment = -1
        self._ids_of_moment: set[str] = set()
        self._shared_ids: set[str] = set()
        self._products: dict[str, dict[str, Any]] = {}
        self._prices: dict[str, float] = {}

    def take(self, batch: pa.RecordBatch) -> None:
        names = [name for name in batch.schema.names if name != "raw"]
        lists = [batch.column(name).to_pylist() for name in names]
        for index, values in enumerate(zip(*lists, strict=True)):
            row = dict(zip(names, values, strict=True))
            try:
                self._accept(row)
            except InvalidEvent as error:
                raw = batch.column("raw")[index].as_py()
                origin = f"import:{self._summary.file}"
                self.refuse(DeadLetter.of(error, raw, origin, self._now))
            else:
                self._summary.rows += 1
                self._summary.accepted += 1

    def refuse(self, letter: DeadLetter) -> None:
        self._summary.rows += 1
        self._summary.refused[str(letter.reason)] += 1
        self._letters.append(letter)
        if len(self._letters) >= BATCH_ROWS:
            self._write_letters()

    def finish(self) -> None:
        if self._letters:
            self._write_letters()
        self._sink.flush(FLUSH_SECONDS)

    def _accept(self, row: dict[str, Any]) -> None:
        event = parse_event(_fields(row, self._shift, self._now), self._now)
        self._refuse_repeat(event, row["shared_id"])
        self._tell_product(event, row)
        self._tell_price(event)
        self._sink.put(Topic.events, event.session_id, event.to_json(), backfill=True)
        self._remember(event, row["shared_id"])

    def _refuse_repeat(self, event: Event, shared: bool) -> None:
        """Ids made from the event hold its time, so that those of one moment are all to look at."""
        if event.time != self._moment:
            self._moment = event.time
            self._ids_of_moment.clear()
        known = self._shared_ids if shared else self._ids_of_moment
        if event.event_id in known:
            raise InvalidEvent(
                Reason.repeat, "event_id", event.event_id, "an event not seen before"
            )

    def _remember(self, event: Event, shared: bool) -> None:
        (self._shared_ids if shared else self._ids_of_moment).add(event.event_id)
        summary = self._summary
        summary.first = event.time if summary.first is None else summary.first
        summary.last = event.time

    def _tell_product(self, event: Event, row: dict[str, Any]) -> None:
        """The first that is known of an item, and each change."""
        if event.item_id is None:
            return
        known = self._products.get(event.item_id, {})
        found = {name: row[name] for name in ("category", "brand") if row[name] is not None}
        news = {name: value for name, value in found.items() if known.get(name) != value}
        if news:
            product = parse_product(
                {"item_id": event.item_id, "time": event.time, **news}, self._now
            )
            self._sink.put(Topic.products, event.item_id, product.to_json(), backfill=True)
            self._products[event.item_id] = known | news
            self._summary.products += 1

    def _tell_price(self, event: Event) -> None:
        if event.item_id is None or event.price is None:
            return
        if self._prices.get(event.item_id) != event.price:
            fields = {"item_id": event.item_id, "time": event.time, "price": event.price}
            change = parse_price(fields, self._now)
            self._sink.put(Topic.prices, event.item_id, change.to_json(), backfill=True)
            self._prices[event.item_id] = event.price
            self._summary.prices += 1

    def _write_letters(self) -> None:
        rows = [{**vars(letter), "partition": None, "offset": None} for letter in self._letters]
        table = pa.Table.from_pylist(rows, schema=schema_of(Lake.dead_letters))
        stem = "".join(char if char.isalnum() else "-" for char in self._summary.file)
        self._lake.write(Lake.dead_letters, table, f"import-{stem[:80]}-{self._now}-{self._files}")
        self._files += 1
        self._letters.clear()


def _fields(row: dict[str, Any], shift: int, now: int) -> dict[str, Any]:
    """A row as the fields of an event; what is not given is left out."""
    fields = {name: row[name] for name in _PLAIN if row[name] is not None}
    session, visit, moment = row["session"], row["visit"], row["ms"]
    fields["session_id"] = f"{session}~{visit}" if session and visit > 1 else session
    fields["item_id"] = row["item"]
    kind = (row["type"] or "").lower()
    fields["type"] = TYPES.get(kind, kind)
    if isinstance(fields.get("price"), str):
        fields["price"] = _number(fields["price"])
    # a time in the future is refused as it came: shifting the file must not hide it
    ahead = moment is not None and moment > now
    fields["time"] = row["time"] if moment is None else moment + (0 if ahead else shift)
    return fields


_PLAIN = ("price", "quantity", "position", "device", "source", "query", "event_id")


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _minute(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M")
