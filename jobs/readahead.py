"""Reads and decodes inputs in threads, ahead of the device; one that hangs holds up nobody."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from paliflow.jobs.plan import Item
from paliflow.jobs.reading import Input

_READERS = 8
"""Threads that read and decode; Pillow and the storage client release the GIL."""


class ReadAhead:
    """Iterates over the inputs in order; a closing context manager.

    Args:
        read: reads one input.
        items: what to read.
        depth: how many inputs are begun before they are asked for, from the start.
        timeout: seconds to wait for one input; then it becomes an error.
    """

    def __init__(
        self, read: Callable[[Item], Input], items: Iterable[Item], depth: int, timeout: float
    ) -> None:
        self._read, self._items, self._timeout = read, iter(items), timeout
        self._pool = ThreadPoolExecutor(_READERS)
        self._begun: deque[tuple[Item, Future[Input]]] = deque()
        for item in islice(self._items, depth):
            self._begin(item)

    def __iter__(self) -> Iterator[Input]:
        while self._begun:
            item, future = self._begun.popleft()
            for following in islice(self._items, 1):
                self._begin(following)
            try:
                yield future.result(self._timeout)
            except TimeoutError:
                self._replace_threads()
                yield Input(item, error=f"not read and decoded within {self._timeout:g} s")

    def close(self) -> None:
        """Drops what was begun and not asked for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, item: Item) -> None:
        self._begun.append((item, self._pool.submit(self._read, item)))

    def _replace_threads(self) -> None:
        # A thread cannot be ended; those that wait behind the hanging ones get new ones.
        old, self._pool = self._pool, ThreadPoolExecutor(_READERS)
        self._begun = deque(
            (item, self._pool.submit(self._read, item) if future.cancel() else future)
            for item, future in self._begun
        )
        old.shutdown(wait=False)
