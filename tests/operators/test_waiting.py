"""A task that waits on a worker: what ends it is not lost in the network's code."""

import asyncio
import signal
import threading
import time
from typing import Any

import pytest

from paliflow.operators.waiting import in_thread


class TimeIsUpError(BaseException):
    """As Airflow's own timeout, no `Exception`."""


async def cancelled_is(told: threading.Event) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        told.set()
        raise


async def careless() -> None:
    """Goes on whatever is raised in it, as asyncio's transports do."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            time.sleep(0.01)
        except BaseException:
            await asyncio.sleep(0)


def test_a_timeout_ends_the_wait_whatever_the_event_loop_is_at_and_cancels_it() -> None:
    def ring(*_: Any) -> None:
        raise TimeIsUpError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(TimeIsUpError):
            in_thread(careless())
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(TimeIsUpError):
            in_thread(cancelled_is(told := threading.Event()))
        assert told.wait(10)  # and what it was about to ask for is not asked for any more
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_coroutine_in_a_thread_returns_and_raises() -> None:
    async def ident() -> int:
        return threading.get_ident()

    async def fail() -> None:
        raise ValueError("as told")

    assert in_thread(ident()) != threading.get_ident()
    with pytest.raises(ValueError, match="as told"):
        in_thread(fail())
