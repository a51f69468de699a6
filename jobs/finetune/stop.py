"""What ends a training early. Ray Train's controller imports this module, so it imports little."""

import time
from typing import Any

from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller.state import (
    InitializingState,
    ReschedulingState,
    RestartingState,
    SchedulingState,
)
from ray.train.v2.api.callback import UserCallback

from paliflow.configs.base import ClusterError, SpecError

_WAITING = InitializingState, ReschedulingState, RestartingState, SchedulingState
_TICK_S = 1.0


class Stop(UserCallback):
    """What the user has to change, no retry changes: an error in a callback ends the run."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """
        Raises:
            SpecError: a worker has raised it.
        """
        for error in worker_exceptions.values():
            if isinstance(error, SpecError):
                raise error


class GiveUp(ControllerCallback):
    """Ends a training that has waited for workers for too long at a stretch.

    Ray Train waits for ever, or as many turns as it is told in all of a training, however long it
    has trained between them; and where the number of workers may vary, it asks whether there is
    room without ever taking a breath.
    """

    def __init__(self, start_timeout: float) -> None:
        """Seconds without any workers, after which it ends."""
        self._timeout = start_timeout
        self._since: float | None = None

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """
        Raises:
            ClusterError: there was no room for workers for too long.
        """
        if not isinstance(current_state, _WAITING):
            self._since = None
            return
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since >= self._timeout:
            raise ClusterError(f"no room for workers within {self._timeout:g} s")
        if type(previous_state) is type(current_state):  # nothing has come of it: Ray asks on
            time.sleep(min(_TICK_S, self._timeout))
