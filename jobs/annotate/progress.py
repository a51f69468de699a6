"""How far an actor with a model is, and the rows of a shard as they come in."""

import time
from collections.abc import Iterable
from typing import Any

from paliflow.jobs.fleet.work_counter import WorkCounter
from paliflow.jobs.media.reading import Input
from paliflow.jobs.runs.plan import Item


class Progress(WorkCounter):
    """What an actor has done, in batches, and how long its first one took."""

    def __init__(self) -> None:
        super().__init__()
        self._started = self._loaded = 0.0
        self.notes: tuple[tuple[str, str], ...] = ()
        """As `ShardResult.notes`: how long the first batch took."""

    def loaded(self, started: float) -> None:
        """Says that batches may come, and when loading began, by `time.monotonic`."""
        self._started, self._loaded = started, time.monotonic()

    def batch_done(self, items: int) -> None:
        """Counts a batch and the items that it finished."""
        with self._lock:
            if not self.notes:
                after, loading = time.monotonic() - self._started, self._loaded - self._started
                rest = f"{loading:.1f} of them to load, then compilation"
                self.notes = (("first batch", f"after {after:.1f} s, {rest}"),)
        self.move()
        self.answered(items)


class ShardRows:
    """The rows of each of a shard's items; inputs come in the order of the items."""

    def __init__(self, items: list[Item]) -> None:
        self.of_items: list[list[dict[str, Any]]] = [[] for _ in items]
        self._items, self._place = items, 0  # of the item whose rows came last

    @property
    def left(self) -> int:
        """How many items may still get rows."""
        return len(self._items) - self._place

    def add(self, answers: Iterable[tuple[Input, list[dict[str, Any]]]]) -> int:
        """Adds the rows of inputs; returns how many more items have all of theirs."""
        before = self._place
        for source, rows in answers:
            while self._items[self._place] is not source.item:
                self._place += 1
            self.of_items[self._place].extend(rows)
        return self._place - before
