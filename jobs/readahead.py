"""Reads and decodes inputs in threads, ahead of the device; one that hangs holds up nobody."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from queue import Empty, Full, Queue

from paliflow.jobs.plan import Item
from paliflow.jobs.reading import Input

_SIGN_S = 1.0
"""Seconds between two signs of life."""


class _End:
    """After the last input of an item, or why there are no more."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


@dataclass(eq=False)
class _Begun:
    item: Item
    queue: "Queue[Input | _End | None]"
    future: "Future[None]" = field(default_factory=Future)


class ReadAhead:
    """Iterates over the inputs in order; a closing context manager.

    Args:
        read: the inputs of one item in order; None is a sign of life.
        items: what to read.
        depth: how many inputs are read before they are asked for, from the start.
        timeout: seconds to wait for an input or a sign of life; then what is left of the item
            becomes an error.
        readers: items that are read at once, in threads: Pillow, FFmpeg and the storage client
            release the GIL.
    """

    def __init__(
        self,
        read: Callable[[Item], Iterable[Input | None]],
        items: Iterable[Item],
        depth: int,
        timeout: float,
        readers: int = 8,
    ) -> None:
        self._read, self._items, self._timeout = read, iter(items), timeout
        self._readers, self._waiting = readers, max(2, depth // readers)
        self._pool = ThreadPoolExecutor(readers)
        self._closed = threading.Event()
        self._begun: deque[_Begun] = deque()
        for item in islice(self._items, depth):
            self._begin(item)

    def __iter__(self) -> Iterator[Input]:
        while self._begun:
            begun = self._begun.popleft()
            for following in islice(self._items, 1):
                self._begin(following)
            try:
                while not isinstance(found := begun.queue.get(timeout=self._timeout), _End):
                    if found is not None:
                        yield found
                if found.error:
                    raise found.error
            except Empty:
                self._replace_threads()
                error = f"not read and decoded within {self._timeout:g} s"
                yield Input(begun.item, error=error)

    def close(self) -> None:
        """Drops what was begun and not asked for."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, item: Item) -> None:
        begun = _Begun(item, Queue(self._waiting))
        begun.future = self._pool.submit(self._pump, begun)
        self._begun.append(begun)

    def _pump(self, begun: _Begun) -> None:
        end, shown = _End(), time.monotonic()
        try:
            for found in self._read(begun.item):
                if found is None and time.monotonic() - shown < _SIGN_S:
                    continue
                shown = time.monotonic()
                if not self._put(begun, found):
                    return
        except BaseException as error:
            end = _End(error)
        self._put(begun, end)

    def _put(self, begun: _Begun, found: "Input | _End | None") -> bool:
        """Waits for room; False if nobody is there any more to make some."""
        while not self._closed.is_set():
            try:
                begun.queue.put(found, timeout=_SIGN_S)
            except Full:
                continue
            return True
        return False

    def _replace_threads(self) -> None:
        # A thread cannot be ended; those that wait behind the hanging ones get new ones.
        old, self._pool = self._pool, ThreadPoolExecutor(self._readers)
        for begun in self._begun:
            if begun.future.cancel():
                begun.future = self._pool.submit(self._pump, begun)
        old.shutdown(wait=False)
