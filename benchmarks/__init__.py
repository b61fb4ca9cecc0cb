"""Benchmarks against a running stack: `python -m benchmarks NAME`.

A benchmark is a module here with a click command `COMMAND`, named in `NAMES`.
"""

NAMES = {
    "freshness": "From an event's 202 to the first answer of POST /v1/recommend that knows it.",
    "consume": "Events a second from Kafka into the online store and the lake.",
    "truth": "Served feature values computed again from the lake, after real visits and faults.",
    "faults": "What is lost or counted twice while consumer, Redis and broker are killed.",
    "online-read": "Features of many items from the online store, beside Feast's own read.",
    "online-write": "Rows a second into the online store, beside Feast's own store.",
    "stream": "Trends by Spark Structured Streaming: events a second, seconds, memory.",
    "join": "Point-in-time joins of the offline store, beside Feast's duckdb store.",
    "candidates": "Processor time of candidates and features of one request, source by source.",
    "serve": "Latency and CPU of POST /v1/recommend under an open-loop load.",
}
"""Name of each benchmark (and of its module) and what it measures."""
MODULES = {"truth": "served_truth"}
"""Modules that are named otherwise than their benchmark."""
