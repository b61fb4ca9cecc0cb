"""Offline tables from the event lake: pure functions from data frames to data frames.

`python -m spark_jobs run` does them all in one Spark application (`main`).
"""
