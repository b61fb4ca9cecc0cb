"""What the stream remembers besides Spark's checkpoint: how far it has counted and told.

`<stream_state>/progress/<number>.json`: the newest whole one holds. A new one is written beside
the old and renamed, so a crash leaves the old.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError
from pyspark.sql import SparkSession

from contracts.errors import ServiceError
from spark_jobs.tables import Files

KEPT = 3


@dataclass(frozen=True)
class Progress:
    """Moments of the grid, milliseconds since 1970.

    origin: what counts before was never the stream's to count. counted: buckets are stored until
    then; told: rows of windows are written until then. target: the pass under way goes on to there;
    the same as both when there is none. history: until when the batch run tells that the rows after
    it were computed from; None: there was none.
    """

    origin: int
    counted: int
    told: int
    target: int
    history: int | None

    @property
    def passing(self) -> bool:
        return self.target > min(self.counted, self.told)


_PROGRESS = TypeAdapter(Progress)


class ProgressStore(Files):
    """Keeps `Progress` in a folder of any of Hadoop's file systems."""

    def __init__(self, spark: SparkSession, folder: str) -> None:
        super().__init__(spark, folder)
        self._folder = folder

    def read(self) -> Progress | None:
        """None where there is none yet. ServiceError for one that is not ours."""
        numbers = self._numbers()
        if not numbers:
            return None
        path = self._file(numbers[-1])
        stream = self._system.open(self._path(path))
        try:
            return _PROGRESS.validate_json(bytes(stream.readAllBytes()))
        except ValidationError as error:
            raise ServiceError(
                f"{path} is no progress of the stream ({error.errors()[0]['msg']}): delete "
                f"{self._folder.rpartition('/')[0]} to begin anew after the last batch run"
            ) from None
        finally:
            stream.close()

    def write(self, progress: Progress) -> None:
        numbers = self._numbers()
        number = numbers[-1] + 1 if numbers else 1
        building = f"{self._folder}/.{number}"
        stream = self._system.create(self._path(building), True)
        stream.write(bytearray(_PROGRESS.dump_json(progress)))
        stream.close()
        self.move(building, self._file(number))
        for old in numbers[: 1 - KEPT]:
            self.delete(self._file(old))

    def _file(self, number: int) -> str:
        return f"{self._folder}/{number:012}.json"

    def _numbers(self) -> list[int]:
        return sorted(int(name.removesuffix(".json")) for name in self.files(self._folder, ".json"))
