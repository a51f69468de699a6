"""Reads and decodes inputs in threads, ahead of the device; one that hangs holds up nobody."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from queue import Empty, Full, Queue, SimpleQueue

from paliflow.jobs.media.reading import Input
from paliflow.jobs.runs.item import Item

_SIGN_S = 1.0
"""Seconds between two signs of life."""
_GRACE_S = 1.0
"""Seconds beyond its own clock that who reads is given."""


class _End:
    """After the last input of an item, or why there are no more."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


@dataclass(eq=False)
class _Begun:
    item: Item
    queue: "Queue[Input | _End | None]"
    since: float | None = None
    """When reading the next input began; None while nobody reads."""
    abandoned: bool = False


class ReadAhead:
    """Iterates over the inputs in order; a closing context manager.

    Args:
        read: the inputs of one item in order; None is a sign of life.
        items: what to read.
        depth: how many inputs are read before they are asked for, from the start.
        timeout: seconds in which `read` gives an input or a sign of life; one that does not, as it
            waits for a storage that hangs, is left alone, and the rest of its item becomes an
            error.
        readers: items that are read at once, in threads.
        alive: called in the iterating thread with every input and sign of life.
    """

    def __init__(
        self,
        read: Callable[[Item], Iterable[Input | None]],
        items: Iterable[Item],
        depth: int,
        timeout: float,
        readers: int = 8,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._read, self._items, self._timeout = read, iter(items), timeout
        self._readers, self._waiting = readers, max(2, depth // readers)
        self._alive = alive
        self._closed = threading.Event()
        self._pending: SimpleQueue[_Begun | None] = SimpleQueue()
        self._begun: deque[_Begun] = deque()
        for item in islice(self._items, depth):
            self._begin(item)
        for _ in range(readers):
            self._start_thread()

    def __iter__(self) -> Iterator[Input]:
        while self._begun:
            begun = self._begun.popleft()
            for following in islice(self._items, 1):
                self._begin(following)
            while not isinstance(found := self._next(begun), _End):
                self._alive()
                if found is not None:
                    yield found
            if found.error:
                raise found.error

    def close(self) -> None:
        """Drops what was begun and not asked for."""
        self._closed.set()
        for _ in range(self._readers):
            self._pending.put(None)

    def _next(self, begun: _Begun) -> "Input | _End | None":
        while not begun.abandoned:
            with suppress(Empty):
                return begun.queue.get(timeout=self._patience(begun))
            if self._patience(begun) <= 0:
                begun.abandoned = True
                self._start_thread()  # in the place of the one that hangs
                return Input(begun.item, error=f"not read and decoded within {self._timeout:g} s")
        return _End()

    def _patience(self, begun: _Begun) -> float:
        if begun.since is None:
            return _SIGN_S
        return min(_SIGN_S, max(0.0, begun.since + self._timeout + _GRACE_S - time.monotonic()))

    def _start_thread(self) -> None:
        # Nobody waits for it when the process ends.
        threading.Thread(target=self._work, name="reader", daemon=True).start()

    def _work(self) -> None:
        while (begun := self._pending.get()) and not self._closed.is_set():
            self._pump(begun)
            if begun.abandoned:
                return

    def _begin(self, item: Item) -> None:
        begun = _Begun(item, Queue(self._waiting))
        self._pending.put(begun)
        self._begun.append(begun)

    def _pump(self, begun: _Begun) -> None:
        end, shown = _End(), time.monotonic()
        try:
            begun.since = shown
            for found in self._read(begun.item):
                begun.since = None
                if found is not None:
                    if not self._put(begun, found):
                        return
                    shown = time.monotonic()
                elif begun.abandoned or self._closed.is_set():
                    return
                elif time.monotonic() - shown >= _SIGN_S:
                    shown = time.monotonic()
                    # Never waits: who reads may hold what an earlier item waits for.
                    with suppress(Full):
                        begun.queue.put_nowait(None)
                begun.since = time.monotonic()
        except BaseException as error:
            end = _End(error)
        begun.since = None
        self._put(begun, end)

    def _put(self, begun: _Begun, found: "Input | _End | None") -> bool:
        """Waits for room; False if nobody is there any more to make some."""
        while not self._closed.is_set() and not begun.abandoned:
            try:
                begun.queue.put(found, timeout=_SIGN_S)
            except Full:
                continue
            return True
        return False
