"""A server of the tests' own that speaks as much of Redis's protocol as a test needs."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod

from feast_engine.config import OnlineConfig


class LoneServer(ABC):
    """Listens on a free port of this machine; each connection is talked to in a thread."""

    def __init__(self) -> None:
        self.connections = 0
        self.listening = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def config(self) -> OnlineConfig:
        return OnlineConfig("p", f"127.0.0.1:{self.listening.getsockname()[1]}", False, None)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self.listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(peer,), daemon=True).start()

    @abstractmethod
    def _talk(self, peer: socket.socket) -> None:
        """Answer until the client has gone."""
