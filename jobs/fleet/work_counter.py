"""How far an actor is: what its threads count, and its heartbeat says."""

import threading

from paliflow.jobs.fleet.scheduler import Heartbeat


class WorkCounter:
    """What an actor has done since it started, told by the threads of its shards."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered = self._moved = 0

    def heartbeat(self) -> Heartbeat:
        """Says how far it is."""
        return Heartbeat(self._answered, self._moved)

    def move(self) -> None:
        """Gives a sign of life."""
        self._moved += 1

    def answered(self, items: int) -> None:
        """Counts items that are answered."""
        with self._lock:
            self._answered += items
