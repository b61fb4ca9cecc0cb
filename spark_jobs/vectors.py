"""Item vectors by Word2Vec over visits (Barkan and Koenigstein, "Item2Vec", 2016): items that are
visited in the same surroundings lie near one another."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.errors import IllegalArgumentException
from pyspark.ml.feature import Word2Vec
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name
from pyspark.sql import types as T  # noqa: N812

from contracts.events import INTEREST_TYPES
from contracts.tables import Offline
from spark_jobs.tables import conform


@dataclass(frozen=True)
class VectorOptions:
    """dimensions: of a vector. window: items to each side that count as surroundings.
    least: an item visited less often gets no vector. partitions: parts that are learned at the
    same time and averaged after each iteration; 1 is exact and repeatable."""

    dimensions: int = 64
    window: int = 5
    least: int = 2
    iterations: int = 5
    learning_rate: float = 0.05
    partitions: int = 1
    seed: int = 1


def visit_items(events_clean: DataFrame) -> DataFrame:
    """(session_id, visit, steps: list of (time, key, item, known)), as `contracts.session.items_of`
    lists a visit's items: oldest first, the same item in a row once."""
    interested = events_clean.where(F.col("type").isin([int(kind) for kind in INTEREST_TYPES]))
    in_order = Window.partitionBy("session_id", "visit").orderBy("time", "key")
    before = F.lag("item_id").over(in_order)
    steps = interested.withColumn("_same", F.col("item_id").eqNullSafe(before)).where("NOT _same")
    known = F.greatest("time", "received").alias("known")
    step = F.struct("time", "key", "item_id", known)
    return steps.groupBy("session_id", "visit").agg(
        F.sort_array(F.collect_list(step)).alias("steps")
    )


def item_vectors(visits: DataFrame, cutoff: int, options: VectorOptions) -> DataFrame:
    """`Offline.item_vectors`, learned from what of `visit_items` was known before `cutoff`
    (milliseconds) alone; empty where no item was visited often enough."""
    earlier = F.filter("steps", lambda step: step["known"] < cutoff)
    items = F.transform(earlier, lambda step: step["item_id"]).alias("items")
    # in a fixed order, because the learning goes through the visits one after another
    in_order = visits.repartition(options.partitions, "session_id").sortWithinPartitions(
        "session_id", "visit"
    )
    words = _learn(in_order.select(items).where(F.size("items") > 1), options)
    vector = vector_to_array("vector", "float32").alias("vector")
    return conform(words.select(F.col("word").alias("item_id"), vector), Offline.item_vectors)


def _learn(sentences: DataFrame, options: VectorOptions) -> DataFrame:
    """(word, vector) of every word that is frequent enough; there may be none."""
    try:
        return _word2vec(options).fit(sentences).getVectors()
    except IllegalArgumentException as error:
        if "vocabulary size should be > 0" not in str(error):
            raise
    nothing = T.StructType(
        [T.StructField("word", T.StringType()), T.StructField("vector", VectorUDT())]
    )
    return sentences.sparkSession.createDataFrame([], nothing)


def _word2vec(options: VectorOptions) -> Word2Vec:
    return Word2Vec(
        vectorSize=options.dimensions,
        windowSize=options.window,
        minCount=options.least,
        maxIter=options.iterations,
        stepSize=options.learning_rate,
        numPartitions=options.partitions,
        seed=options.seed,
        inputCol="items",
        outputCol="vector",
    )
