"""The index of the live release, followed when another release is activated."""

from __future__ import annotations

import logging
from threading import Event, Thread

from candidate_service.index import CandidateIndex
from contracts.errors import NextclickError
from contracts.release import ReleaseStore
from contracts.settings import Settings

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0


class LiveIndex:
    """`current` is the live release's index, or None with the reason in `problem`.

    A release whose index cannot be loaded changes nothing: the last good index goes on answering
    and `problem` says what is wrong.
    """

    def __init__(self, settings: Settings) -> None:
        self._releases = ReleaseStore(settings.releases)
        self._indexes = settings.indexes
        self._stopped = Event()
        self._poller: Thread | None = None
        self.current: CandidateIndex | None = None
        self.problem = "no release was looked for yet"

    def refresh(self) -> None:
        """Look at the live release once; never raises."""
        try:
            self._load()
        except (NextclickError, OSError) as error:
            if str(error) != self.problem:
                log.warning("the live release's candidate index is not to be had: %s", error)
            self.problem = str(error)

    def start(self) -> None:
        """Look now, and every second in a thread of its own."""
        self.refresh()
        self._poller = Thread(target=self._poll, name="live-index", daemon=True)
        self._poller.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._poller is not None:
            self._poller.join(timeout=5)

    def _poll(self) -> None:
        while not self._stopped.wait(POLL_SECONDS):
            self.refresh()

    def _load(self) -> None:
        release = self._releases.active()
        if release is None:
            self.problem = (
                "no release is active: ./nextclick train, or ./nextclick release activate"
            )
            return
        if self.current is None or self.current.version != release.index_version:
            index = CandidateIndex.load(self._indexes / release.index_version)
            log.info("release %s: candidate index %s", release.version, index.version)
            self.current = index
        self.problem = ""
