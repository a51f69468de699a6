"""What ends a gang at once. Ray Train's controller imports this module, so it imports little."""

from typing import Any

from ray.train.v2.api.callback import UserCallback

from paliflow.configs.base import SpecError


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
