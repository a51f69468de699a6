"""How far a run is: a bar in a terminal, a line every ten seconds elsewhere."""

import time
from datetime import timedelta
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

from paliflow.configs.base import printable
from paliflow.configs.log_lines import say
from paliflow.configs.summary import StageSeconds
from paliflow.jobs.fleet.scheduler import FleetStatus, ShardResult

_INFORMATION = ("model", "first batch")
"""Notes of every actor; others tell of trouble."""
LINE_EVERY_S = 30.0
"""Between two lines where there is no terminal, as in a scheduler's log."""


class Progress:
    """Counts inputs and shows the count; a context manager."""

    def __init__(self, total: int, already: int, console: Console, unit: str = "images") -> None:
        """`already` of the `total` were done by an earlier job; `unit` is what they are."""
        self._total, self._already, self._console = total, already, console
        self._unit = unit
        self._done = self._errors = 0
        self.stages = StageSeconds()
        """Where the actors' time has gone so far."""
        self._fleet = FleetStatus(0, 0)
        self._noted: set[str] = set()
        self._started = self._shown = time.monotonic()
        columns = BarColumn(), TextColumn("{task.description}")
        self._bar = RichProgress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task(str(self), total=total, completed=already)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._show()
        self._bar.stop()

    def add(self, done: ShardResult, fleet: FleetStatus) -> None:
        """Counts and, if it is time, shows; may be called with nothing new."""
        now = time.monotonic()
        self._fleet = fleet
        self._done += done.inputs
        self._errors += len(done.failures)
        self.stages += done.stages
        for name, note in done.notes:
            if name not in self._noted:
                self._noted.add(name)
                self._note(name, printable(f"{name}: {note}"))
        if self._console.is_terminal or now - self._shown >= LINE_EVERY_S:
            self._show()

    def _note(self, name: str, line: str) -> None:
        if self._console.is_terminal:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            say(line, "info" if name in _INFORMATION else "warning")

    def _show(self) -> None:
        self._shown = time.monotonic()
        reached = self._already + self._done + self._fleet.in_flight
        self._bar.update(self._task, completed=reached, description=str(self))
        if not self._console.is_terminal:
            say(str(self))

    def __str__(self) -> str:
        """E.g. `512/2000 images, 25.6 images/s, 3 errors, 2 actors, 5% read, 93% device, 0% parse,
        0:00:58 left`; the shares are of the actors' time, as in `StageSeconds`."""
        done = self._done + self._fleet.in_flight
        rate = done / max(time.monotonic() - self._started, 1e-9)
        reached = self._already + done
        left = str(timedelta(seconds=round((self._total - reached) / rate))) if rate else "?"
        stages = f"{said}, " if (said := self.stages.said()) else ""
        starting = f" and {self._fleet.starting} awaited" if self._fleet.starting else ""
        lost = self._fleet.preemptions
        preempted = f"{lost} preempted, " if lost else ""
        actors = f"{self._fleet.actors} actors{starting}, " if reached < self._total else ""
        return (
            f"{reached}/{self._total} {self._unit}, {rate:.1f} {self._unit}/s, "
            f"{self._errors} errors, "
            f"{actors}{preempted}{stages}{left} left"
        )
