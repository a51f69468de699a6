"""How a task waits for what it has started: in the triggerer, or on its worker."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

from airflow.sdk.exceptions import AirflowTaskTimeout

from paliflow.operators import process

T = TypeVar("T")


class Waiting(Protocol):
    """An operator that waits, of which `execute_complete` gets the event."""

    deferrable: bool
    execution_timeout: Any

    def defer(self, *, trigger: Any, method_name: str, timeout: Any) -> None: ...


def start_and_wait(
    operator: Waiting, start: Coroutine[Any, Any, None], trigger: Any, store: Any, state: str
) -> dict[str, Any]:
    """Starts what the trigger waits for; its event, if this worker is to wait.

    Args:
        operator: of the task.
        start: starts it.
        trigger: has a coroutine `follow` that returns its event.
        store: the task's state store.
        state: the key there of what the next try goes on with. A timeout deletes it, because
            Airflow calls `on_kill` next, which ends what was started.

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
        store.delete(state)
        raise


def in_thread(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that a thread of its own runs.

    Airflow's timeout is an exception that a signal raises in the main thread, wherever that is:
    where asyncio is at work, it would be caught, and the task would wait on for ever.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(asyncio.run(coroutine))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=copy_context().run, args=(run,), daemon=True).start()
    return result.result()


def stop_in_thread(coroutine: Callable[[], Any]) -> None:
    """Runs a coroutine that ends something, for as long as Airflow gives a task that it ends."""
    thread = threading.Thread(target=lambda: asyncio.run(coroutine()), daemon=True)
    thread.start()
    thread.join(timeout=process.GRACE_S)
