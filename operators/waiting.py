"""How a task waits for what it has started, in the triggerer or on its worker, and ends it."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from airflow.sdk.exceptions import AirflowTaskTimeout

from paliflow.operators import process
from paliflow.operators.hook import RayJobError

T = TypeVar("T")


class Waiting(Protocol):
    """An operator that waits, of which `execute_complete` gets the event."""

    deferrable: bool
    execution_timeout: Any

    def defer(self, *, trigger: Any, method_name: str, timeout: Any) -> None: ...


class Awaited(Protocol):
    """A trigger, as far as it is of what a task waits for."""

    leftover: str
    """What may be left if `on_kill` fails, and by what it is ended then."""

    async def follow(self) -> dict[str, Any]: ...
    async def on_kill(self) -> None: ...


def start_and_wait(
    operator: Waiting,
    start: Coroutine[Any, Any, None],
    trigger: Awaited,
    give_up: Callable[[], None],
) -> dict[str, Any]:
    """Starts what the trigger waits for; its event, if this worker is to wait.

    Args:
        operator: of the task.
        start: starts it.
        trigger: waits for it.
        give_up: ends it where the task has timed out, for as long as that takes. Airflow calls
            `on_kill` next, which is for a task that is about to be killed.

    Raises:
        TaskDeferred: the triggerer is to wait.
    """
    try:
        in_thread(start)
        if operator.deferrable:
            timeout = operator.execution_timeout
            operator.defer(trigger=trigger, method_name="execute_complete", timeout=timeout)
        return in_thread(trigger.follow())
    except AirflowTaskTimeout:
        give_up()
        raise


def in_thread(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that a thread of its own runs; it is cancelled where the wait for
    it ends before.

    Airflow's timeout is an exception that a signal raises in the main thread, wherever that is:
    where asyncio is at work, it would be caught, and the task would wait on for ever.
    """
    loop = asyncio.new_event_loop()
    result = asyncio.run_coroutine_threadsafe(coroutine, loop)

    async def ended() -> None:
        with contextlib.suppress(Exception, asyncio.CancelledError):  # the waiting thread's
            await asyncio.wrap_future(result)

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(ended())

    try:
        threading.Thread(target=run, daemon=True).start()
        return result.result()
    except BaseException:
        result.cancel()
        raise


def end(trigger: Awaited, log: Any) -> bool:
    """Ends what nobody waits for any more; false where that failed, and the log says what to do.

    Where it cannot be ended, the task's own failure is what is to be seen.
    """
    try:
        in_thread(trigger.on_kill())
    except RayJobError as error:
        log.warning("%s: %s", trigger.leftover, error)
        return False
    return True


def end_at_once(trigger: Awaited, log: Any) -> None:
    """Ends what a task waits for, in the seconds that Airflow gives a task that it kills; the log
    says what to do where that was not confirmed."""
    thread = threading.Thread(target=end, args=(trigger, log), daemon=True)
    thread.start()
    thread.join(timeout=process.GRACE_S)
    if thread.is_alive():
        log.warning("%s: no answer in %g s", trigger.leftover, process.GRACE_S)
