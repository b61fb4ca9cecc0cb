"""All or nothing: what is stored in the lake at a time stands there whole and once, whoever dies.

A store is some files, and the spans of Kafka messages whose rows they hold:

1. its intent is noted: the spans and the names of the files;
2. the files are written;
3. the offsets of the spans are committed, marked with the store's name: this decides it;
4. the note is removed, before the next store is committed.

Whoever takes partitions over holds the notes that touch them against the marks of their last
commits. A note whose name is there was committed: its files stay. Any other was not: its messages
come again and will be stored by another name, so the note is made void and the files are deleted.
(The offsets alone do not tell: a successor may have committed the same messages.) It stays for a
while as a void one: its writer may be alive without knowing that its partitions were taken, and
write one more file; then its commit is refused, and either it deletes the files itself or the next
one who takes partitions over does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from contracts.events import Topic
from orchestrator.consumer.ports import LakeTables, Place

VOID_KEPT_MS = timedelta(days=7) // timedelta(milliseconds=1)


@dataclass(frozen=True)
class Intent:
    """`spans`: first and last offset of each partition, both included; `files`: paths within the
    lake; `void_since`: milliseconds, when its files were found uncommitted and deleted."""

    name: str
    spans: Mapping[Place, tuple[int, int]]
    files: tuple[str, ...]
    void_since: int | None = None

    def committed(self, marks: Mapping[Place, str]) -> bool | None:
        """Whether it was, by the marks of the last commits of some partitions; None: they do not
        tell. All spans of a store are committed by one request: any partition tells of all."""
        told = [marks[place] == self.name for place in self.spans if place in marks]
        return all(told) if told else None

    def to_json(self) -> bytes:
        spans = [[topic.value, partition, *span] for (topic, partition), span in self.spans.items()]
        fields = {"spans": spans, "files": self.files, "void_since": self.void_since}
        return json.dumps(fields).encode()

    @classmethod
    def from_json(cls, name: str, content: bytes) -> Intent:
        """ValueError and KeyError for what is none."""
        fields = json.loads(content)
        spans = {(Topic(topic), int(p)): (int(a), int(b)) for topic, p, a, b in fields["spans"]}
        return cls(name, spans, tuple(fields["files"]), fields["void_since"])


def settle(
    lake: LakeTables, marks: Mapping[Place, str], own: set[str], now: Callable[[], int]
) -> None:
    """Decide the unfinished stores that touch partitions which were just taken over.

    marks: of their last commits, read *after* they were taken: from then on nobody else can commit
    them. own: names of stores of this process, which writes no more of them. Repeating it
    is harmless; ServiceError when the lake does not let it.
    """
    for intent in lake.intents():
        mine = intent.name in own
        if intent.void_since is None:
            committed = intent.committed(marks)
            if committed is None:
                continue
            if committed:
                lake.forget(intent.name)
                continue
            intent = replace(intent, void_since=now())  # noqa: PLW2901
            lake.note(intent)
        lake.delete(intent.files)
        if mine or now() - (intent.void_since or 0) > VOID_KEPT_MS:
            lake.forget(intent.name)
