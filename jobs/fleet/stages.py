"""Where an actor's time goes: a clock that splits it among the device and what it waits for."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Literal, get_args

from paliflow.configs.summary import StageSeconds

Stage = Literal["decode", "prefill", "vision", "device", "read", "parse", "commit"]
_FIRST_TO_LAST: tuple[Stage, ...] = get_args(Stage)
"""Of stages that are under way at once the first counts: what overlaps costs nothing."""


class StageClock:
    """Splits the time of one actor among its stages; any of its threads may begin and end one."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Starts it; `now` tells the time in seconds."""
        self._now = now
        self._lock = threading.Lock()
        self._under_way = Counter[Stage]()
        self._seconds = {field.name: 0.0 for field in fields(StageSeconds)}
        self._at = now()

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Counts while the block runs."""
        self.begin(stage)
        try:
            yield
        finally:
            self.end(stage)

    def begin(self, stage: Stage) -> None:
        """One more of the stage is under way."""
        self._change(stage, 1)

    def end(self, stage: Stage) -> None:
        """One of the stage is over; another thread may have begun it."""
        self._change(stage, -1)

    def take(self) -> StageSeconds:
        """Returns the seconds since it was last asked, or since it started."""
        with self._lock:
            self._advance()
            taken = StageSeconds(**self._seconds)
            self._seconds = dict.fromkeys(self._seconds, 0.0)
            return taken

    def _change(self, stage: Stage, by: int) -> None:
        with self._lock:
            self._advance()
            self._under_way[stage] += by

    def _advance(self) -> None:
        now = self._now()
        counts = next((stage for stage in _FIRST_TO_LAST if self._under_way[stage]), "wait")
        self._seconds[counts] += now - self._at
        self._at = now


class ChipClock:
    """Counts how long an actor holds its chips, from when it is made; any thread may ask."""

    def __init__(self, chips: int, now: Callable[[], float] = time.monotonic) -> None:
        """Starts it; `now` tells the time in seconds."""
        self._chips, self._now = chips, now
        self._lock = threading.Lock()
        self._at = now()

    def take(self) -> float:
        """Returns the chip-seconds since it was last asked, or since it started."""
        with self._lock:
            now = self._now()
            taken, self._at = (now - self._at) * self._chips, now
        return taken
