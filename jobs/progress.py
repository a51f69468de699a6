"""How far a run is: a bar in a terminal, a line every ten seconds elsewhere."""

import time
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

_LINE_EVERY_S = 10.0


class Progress:
    """Counts images and shows the count; a context manager."""

    def __init__(self, total: int, already: int, console: Console) -> None:
        """`already` of the `total` images were done by an earlier job."""
        self._total, self._already, self._console = total, already, console
        self._done = self._errors = 0
        self._started = self._shown = time.monotonic()
        columns = BarColumn(), TextColumn("{task.description}")
        self._bar = RichProgress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task(str(self), total=total, completed=already)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._show()
        self._bar.stop()

    def add(self, images: int, errors: int) -> None:
        """Counts and, if it is time, shows; may be called with nothing new."""
        self._done += images
        self._errors += errors
        if self._console.is_terminal or time.monotonic() - self._shown >= _LINE_EVERY_S:
            self._show()

    def _show(self) -> None:
        self._shown = time.monotonic()
        self._bar.update(self._task, completed=self._already + self._done, description=str(self))
        if not self._console.is_terminal:
            print(self, flush=True)

    def __str__(self) -> str:
        """E.g. `512/2000 images, 25.6 images/s, 3 errors, 0:00:58 left`."""
        rate = self._done / max(time.monotonic() - self._started, 1e-9)
        reached = self._already + self._done
        left = str(timedelta(seconds=round((self._total - reached) / rate))) if rate else "?"
        return (
            f"{reached}/{self._total} images, {rate:.1f} images/s, "
            f"{self._errors} errors, {left} left"
        )
