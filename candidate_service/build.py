"""The step of the training pipeline that builds the index: from the offline store, by cut-off."""

from __future__ import annotations

from pathlib import Path

from candidate_service.files import Manifest
from candidate_service.index import Parameters, Report, build_index
from contracts.settings import Settings
from contracts.tables import Offline


def build_for(
    settings: Settings,
    cutoff_ms: int,
    report: Report = lambda step: None,  # noqa: ARG005
    parameters: Parameters | None = None,
    *,
    embedding: bool = True,
) -> Manifest:
    """Build the index of `cutoff_ms` from the offline tables and the vectors of that cut-off.

    It lies at `settings.indexes / manifest.version`. Without vectors of exactly this cut-off it is
    built without them, for later ones would know the future; so it is without `embedding`.
    """
    vectors = f"{settings.offline}/{Offline.item_vectors}/cutoff={cutoff_ms}"
    catalogue = f"{settings.offline}/{Offline.item_catalogue}"
    return build_index(
        f"{settings.offline}/{Offline.events_clean}",
        vectors if embedding and _exists(vectors) else None,
        cutoff_ms,
        settings.indexes,
        report,
        parameters,
        catalogue if _exists(catalogue) else None,
    )


def _exists(place: str) -> bool:
    if "://" not in place:
        return Path(place).exists()
    from pyarrow import fs

    store, path = fs.FileSystem.from_uri(place)
    found: bool = store.get_file_info(path).type != fs.FileType.NotFound
    return found
