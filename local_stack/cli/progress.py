"""Progress on stderr: a bar for a person, a line a step for a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class StepProgress:
    """Names the steps of a long work and how far each is.

    Use as a context; `step` for a stage of the whole, `__call__` as the `report(text, done, of)`
    that the parts take.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.seconds: dict[str, float] = {}
        self.console = Console(stderr=True, highlight=False)
        self._step = 0
        self._bar = _bar(self.console) if sys.stderr.isatty() else None
        self._task = self._bar.add_task("", total=None) if self._bar else None
        self._said = ""

    def __enter__(self) -> StepProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A stage; its seconds are printed and kept in `seconds`."""
        self._step += 1
        self._title, self._said = f"[{self._step}/{self.steps}] {name}", ""
        begin = time.monotonic()
        self("")
        try:
            yield
        except BaseException:
            self.console.print(f"{self._title}: failed", style="red", markup=False)
            raise
        self.seconds[name] = time.monotonic() - begin
        self.console.print(f"{self._title}: {self.seconds[name]:.1f} s", markup=False)

    def skip(self, steps: int) -> None:
        """Steps that are not needed this time."""
        self._step += steps

    def note(self, text: str) -> None:
        """A line that stays, beneath the step it belongs to."""
        self.console.print(f"      {text}", markup=False)

    def __call__(self, text: str, done: int | None = None, of: int | None = None) -> None:
        """Where the step is: `done` of `of`, or just a text."""
        if self._bar and self._task is not None:
            title = f"{self._title} {text}".rstrip()
            self._bar.update(self._task, description=title, completed=done or 0, total=of)
        elif text and text != self._said:
            self._said = text
            self.console.print(f"{self._title}: {text}", markup=False, soft_wrap=True)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
