"""How far a training is: a bar in a terminal, a line every half minute elsewhere."""

import threading
import time
from datetime import timedelta
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from paliflow.configs.base import printable
from paliflow.configs.log_lines import say
from paliflow.jobs.finetune.log import Values, read_progress
from paliflow.jobs.fleet.progress import LINE_EVERY_S

_LOOK_EVERY_S = {True: 5.0, False: 0.5}
"""By whether the folder is remote."""


class TrainingProgress:
    """Shows what rank 0 says of a run, wherever that runs; a context manager."""

    def __init__(self, run: str, total_steps: int, console: Console) -> None:
        """What was said before this job does not count."""
        self._run, self._total, self._console = run, total_steps, console
        self._before = self._seen = read_progress(run)
        self._validations: list[Values] = []
        self._first: tuple[int, float] | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._shown = time.monotonic()
        columns = BarColumn(), TextColumn("{task.description}")
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("starting", total=total_steps)

    def __enter__(self) -> Self:
        self._bar.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look(last=True)
        self._bar.stop()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_EVERY_S[self._run.startswith("gs://")]):
            self._look()

    def _look(self, *, last: bool = False) -> None:
        try:
            now = read_progress(self._run)
        except OSError:
            return  # the next look may find it
        if now is None or now == self._before:
            return
        if self._seen is self._before:
            self._validations = now["validations"] if now["step"] else []
        for figures in now["validations"]:
            if figures not in self._validations:
                self._validations.append(figures)
                self._say(_validated(figures))
        at = time.monotonic()
        first = self._first is None or now["step"] < self._first[0]
        if self._first is None or first:  # also where workers were restarted
            self._first = now["step"], at
        elif gone := now["step"] - self._first[0]:
            now["seconds_left"] = (at - self._first[1]) / gone * (self._total - now["step"])
        self._seen = now
        self._bar.update(self._task, completed=now["step"], description=described(now))
        due = at - self._shown >= LINE_EVERY_S
        if "loss" in now and not self._console.is_terminal and (first or due or last):
            self._shown = at
            say(described(now))

    def _say(self, line: str) -> None:
        if self._console.is_terminal:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            say(line)


def described(now: Values) -> str:
    """E.g. `step 120/500, loss 1.234, learning rate 9.5e-06, ..., 35.1 examples/s, 0:04 left`."""
    parts = [f"step {now['step']}/{now['total']}"]
    forms = {
        "loss": "loss {:.4f}",
        "learning_rate": "learning rate {:.2e}",
        "grad_norm": "gradient norm {:.3g}",
        "examples_per_second": "{:.1f} examples/s",
        "mfu": "{:.0%} MFU",
        "read": "{:.0%} read",
    }
    parts += [form.format(now[name]) for name, form in forms.items() if name in now]
    if "hbm" in now:
        parts.append(f"{now['hbm'] / 2**30:.1f} GiB of HBM")
    if now.get("errors"):
        parts.append(f"{now['errors']} errors")
    if "seconds_left" in now:
        parts.append(f"{timedelta(seconds=round(now['seconds_left']))} left")
    return ", ".join(parts)


def _validated(figures: dict[str, Any]) -> str:
    said = ", ".join(f"{name} {value:.4f}" for name, value in figures.items() if name != "step")
    return f"step {figures['step']} validated: {printable(said)}"
