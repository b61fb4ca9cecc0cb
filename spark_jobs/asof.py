"""The point-in-time join of `feast_engine.join_rule` for more than one machine: same rules, same
rows, as pure functions over data frames.

The history and the moments that are asked for go through one sort by key and by time, where a
row's time is when it came to count. The answer at a moment is then the greatest row so far, in
Spark's order of structures: event time, created time, features, each null before any value.
Memory: Spark spills what a task cannot hold; one key's rows are sorted by one task.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name
from pyspark.sql import types as T  # noqa: N812

from contracts.errors import UsageError
from feast_engine.join_rule import MOMENT, JoinRule

_TIMES = (T.TimestampType, T.TimestampNTZType, T.DateType)
_WHOLE = (T.ByteType, T.ShortType, T.IntegerType, T.LongType)
_REAL = (T.FloatType, T.DoubleType)


def asof_join(
    entity: DataFrame,
    history: DataFrame,
    rule: JoinRule,
    columns: Sequence[str] | None = None,
    moment: str = MOMENT,
) -> DataFrame:
    """Each row of `entity` once, with its own columns and those (default: `rule.features`) of the
    row of the history that answers it, null where none does. In no order.

    entity: the columns of `rule.keys` and the moments (a time without a zone is UTC). UsageError
    for columns that are absent, stand on both sides or are of types that cannot match.
    """
    wanted = list(rule.features if columns is None else columns)
    _check(entity, history, rule, wanted, moment)
    keys = [f"_key{place}" for place in range(len(rule.keys))]
    rows = _facts(history, rule).unionByName(
        _asking(entity, history, rule, moment), allowMissingColumns=True
    )
    # at one time the facts come first: a row that holds from a moment answers at that moment
    in_order = Window.partitionBy(*keys).orderBy("_time", "_asks")
    so_far = in_order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    answered = rows.withColumn("_answer", F.max("_fact").over(so_far)).where("_asks")
    answer = _young_enough(rule.max_age)
    return answered.select("_own.*", *(answer.getField(name).alias(name) for name in wanted))


def _facts(history: DataFrame, rule: JoinRule) -> DataFrame:
    """(a key a column, _time: from when the row counts, _asks, _fact: what it says)."""
    event = _microseconds(history, rule.event)
    created = _microseconds(history, rule.created) if rule.created else F.lit(None).cast("long")
    counts = F.greatest(event, created) if rule.hides_unknown else event
    stated = [F.col(_quoted(name)) for name in rule.features]
    fact = F.struct(event.alias("_event"), created.alias("_created"), *stated)
    keys = [
        F.col(_quoted(own)).alias(f"_key{place}") for place, own in enumerate(rule.keys.values())
    ]
    facts = history.select(
        *keys, counts.alias("_time"), F.lit(False).alias("_asks"), fact.alias("_fact"),
        event.alias("_event"), created.alias("_created"),
    )  # fmt: skip
    holds = [f"_key{place}" for place in range(len(keys))] + ["_event"]
    known = facts.dropna(subset=[*holds, *(["_created"] if rule.hides_unknown else [])])
    return known.drop("_event", "_created")


def _asking(entity: DataFrame, history: DataFrame, rule: JoinRule, moment: str) -> DataFrame:
    keys = [
        _as_of_type(entity, asking, history.schema[own].dataType).alias(f"_key{place}")
        for place, (asking, own) in enumerate(rule.keys.items())
    ]
    own = F.struct(*(F.col(_quoted(name)) for name in entity.columns)).alias("_own")
    time = _microseconds(entity, moment).alias("_time")
    return entity.select(*keys, time, F.lit(True).alias("_asks"), own)


def _young_enough(max_age: timedelta | None) -> Column:
    answer = F.col("_answer")
    if max_age is None:
        return answer
    age = F.col("_time") - answer.getField("_event")
    return F.when(age <= max_age // timedelta(microseconds=1), answer)


def _microseconds(frame: DataFrame, name: str) -> Column:
    kind = frame.schema[name].dataType
    if not isinstance(kind, _TIMES):
        raise UsageError(
            f"the column {name!r} has the type {kind.simpleString()}, expected a timestamp"
        )
    return F.unix_micros(F.col(_quoted(name)).cast("timestamp"))


def _as_of_type(entity: DataFrame, name: str, kind: T.DataType) -> Column:
    """A key of the asking side in the history's type. pandas makes floats of whole numbers with
    gaps: what is no whole number matches nothing."""
    got, column = entity.schema[name].dataType, F.col(_quoted(name))
    if isinstance(kind, _WHOLE) and isinstance(got, _REAL):
        return F.when(column == F.floor(column), column).cast("long")
    if isinstance(kind, _WHOLE) and isinstance(got, _WHOLE):
        return column.cast("long")
    if got != kind and not isinstance(got, T.NullType):
        raise UsageError(
            f"the key column {name!r} has the type {got.simpleString()}, the table's is "
            f"{kind.simpleString()}: cast it, no value would match"
        )
    return column.cast(kind)


def _check(
    entity: DataFrame, history: DataFrame, rule: JoinRule, wanted: Sequence[str], moment: str
) -> None:
    _require_utc(entity.sparkSession)
    created = [rule.created] if rule.created else []
    _require("the rows", entity, [*rule.keys, moment])
    _require("the history", history, [*rule.keys.values(), rule.event, *created, *rule.features])
    unknown = sorted(set(wanted) - set(rule.features))
    if unknown:
        raise UsageError(f"no feature is called {unknown[0]!r}; there are {list(rule.features)}")
    both = sorted(set(wanted) & set(entity.columns))
    if both:
        raise UsageError(f"the rows have a column {both[0]!r} already: rename it")


def _require(what: str, frame: DataFrame, columns: Sequence[str]) -> None:
    lost = [name for name in columns if name not in frame.columns]
    if lost:
        raise UsageError(f"{what} have no column {lost[0]!r}; there are {frame.columns}")


def _require_utc(spark: SparkSession) -> None:
    zone = spark.conf.get("spark.sql.session.timeZone")
    if zone != "UTC":
        raise UsageError(f"spark.sql.session.timeZone is {zone}: a time without a zone means UTC")


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
