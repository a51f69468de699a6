"""Waiting for what another process does."""

import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(
    happened: Callable[[], T],
    seconds: float,
    *,
    running: subprocess.Popen[bytes] | None = None,
    said: Callable[[], str] = str,
    every_s: float = 0.1,
) -> T:
    """Waits for something true, which it returns.

    Args:
        happened: asked again and again.
        seconds: to wait at most.
        running: who is waited for; it must not end before.
        said: what a failure shows.
        every_s: between two looks.
    """
    end = time.monotonic() + seconds
    while not (result := happened()):
        assert running is None or running.poll() is None, said()
        assert time.monotonic() < end, said()
        time.sleep(every_s)
    return result
