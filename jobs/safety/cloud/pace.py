"""The pace of requests to a service: one for all actors of a run, since a quota is a project's."""

import sys
import threading
import time
from typing import Any


class Pace:
    """Hands out moments at which a request may be sent."""

    def __init__(self, per_minute: int) -> None:
        self._interval, self._next = 60 / per_minute, 0.0
        self._lock = threading.Lock()

    def reserve(self) -> float:
        """Takes the next moment; returns in how many seconds it is."""
        with self._lock:
            now = time.monotonic()
            moment = max(now, self._next)
            self._next = moment + self._interval
            return moment - now

    def pause(self, seconds: float) -> None:
        """Lets nobody send for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class SharedPace:
    """The pace of a service, shared by all processes of a Ray job; of this process without Ray."""

    def __init__(self, service: str, per_minute: int) -> None:
        self._service, self._per_minute = service, per_minute
        self._own = Pace(per_minute)
        self._actor: Any = None

    def reserve(self) -> float:
        """As `Pace.reserve`."""
        return float(self._ask("reserve"))

    def pause(self, seconds: float) -> None:
        """Lets nobody send for so long."""
        self._ask("pause", seconds)

    def _ask(self, method: str, *arguments: float) -> Any:
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return getattr(self._own, method)(*arguments)
        while True:
            try:
                if self._actor is None:
                    name = f"paliflow-pace-{self._service}"
                    actor = ray.remote(Pace).options(name=name, get_if_exists=True, num_cpus=0)
                    self._actor = actor.remote(self._per_minute)
                return ray.get(getattr(self._actor, method).remote(*arguments))
            except ray.exceptions.RayActorError:  # it ended with the actor that had made it
                self._actor = None
                time.sleep(0.1)
