"""Where the values of the stored views come from: `contracts.tables.OFFLINE_COLUMNS`."""

from pathlib import Path

from feast import FileSource, PushSource
from feast.data_format import ParquetFormat

from contracts.settings import Settings
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP, Offline

_settings = Settings.from_environment()

if "://" not in _settings.feast_registry:
    # Feast makes the folder of a registry file, but not the folder above it
    Path(_settings.feast_registry).parent.mkdir(parents=True, exist_ok=True)


def _table(name: Offline, meaning: str) -> FileSource:
    """A folder of Parquet files. The format is named: Feast would guess it from `.parquet`."""
    return FileSource(
        name=name.value,
        path=f"{_settings.offline}/{name.value}",
        file_format=ParquetFormat(),
        timestamp_field=EVENT_TIMESTAMP,
        created_timestamp_column=CREATED_TIMESTAMP,
        description=meaning,
        owner="nextclick",
    )


session_table = _table(Offline.session, "State and features of a session after each event.")
session_push = PushSource(
    name="session_push",
    batch_source=session_table,
    description="What the consumer pushes at every event of a session.",
    owner="nextclick",
)
item_catalogue = _table(Offline.item_catalogue, "The catalogue, a row at every change.")
item_activity = _table(Offline.item_activity, "Activity around each item, a row a day.")
item_windows = _table(Offline.item_windows, "Trends of items, a row at every change.")
category_windows = _table(Offline.category_windows, "Trends of categories, a row at every change.")
