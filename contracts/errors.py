"""The errors of Nextclick, one small tree.

NextclickError                  anything a person has to read; its text says what to do
├── UsageError                  wrong command, setting or file: exit code 2
├── ServiceError                a service did not start, answer or keep up: exit code 1
├── ReleaseError                a release is not whole and must not take traffic: exit code 1
└── InvalidEvent                an event that is refused, with its field and reason
"""

from __future__ import annotations

SHOWN = 80
"""Characters of an offending value that a message shows."""


class NextclickError(Exception):
    """Base of everything a person has to read. `exit_code` is what the command returns."""

    exit_code = 1


class UsageError(NextclickError):
    exit_code = 2


class ServiceError(NextclickError):
    exit_code = 1


class ReleaseError(NextclickError):
    exit_code = 1


class InvalidEvent(NextclickError):
    """An event (or product message) that is refused.

    `reason` is one of `contracts.events.Reason`, `field` the field at fault ("" for the whole
    message), `got` a short rendering of what came, `expected` what would have been right.
    """

    def __init__(self, reason: str, field: str, got: object, expected: str) -> None:
        self.reason, self.expected = reason, expected
        self.field = field[:SHOWN]  # an unknown field may be named anything
        self.got = shown(got)
        where = f"field {self.field!r}: " if field else ""
        super().__init__(f"{where}got {self.got}, expected {expected}")

    def as_dict(self) -> dict[str, str]:
        return {
            "reason": self.reason,
            "field": self.field,
            "got": self.got,
            "expected": self.expected,
        }


def shown(value: object) -> str:
    """A value as an error message shows it: its repr, cut to `SHOWN` characters."""
    try:
        text = repr(value if not isinstance(value, str | bytes) else value[: SHOWN + 1])
    except (ValueError, RecursionError):  # an integer of 5,000 digits, a list within itself
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
