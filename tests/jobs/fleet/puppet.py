"""A worker that does as files tell it. Apart from the tests, whose imports no actor waits for."""

import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from paliflow.jobs.fleet.scheduler import Heartbeat, ShardResult, WorkerLostError

INPUTS = 3
"""Inputs of every shard."""


class Worker:
    """Writes a line for each thing it begins; dies, hangs, raises or is lost as told by files."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._answered = folder, 0
        self._device = threading.Lock()
        self._node = str(os.getpid())  # as if each were on a node of its own

    def _begin(self, line: str) -> None:
        note(self._folder, "log", line)
        if told(self._folder, "drain", line):
            note(self._folder, "draining", self._node)
            if (self._folder / "notice").exists():
                time.sleep(60)
        if told(self._folder, "kill", line):
            # What the driver was not told in time it has done again, and rightly.
            while len(log(self._folder, "reported")) < len(log(self._folder, "finished")):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        if told(self._folder, "hang", line):
            time.sleep(60)
        if told(self._folder, "lose", line):
            raise WorkerLostError(f"told to lose a process at {line}")
        if told(self._folder, "raise", line):
            raise ValueError(f"told to raise at {line}")

    def load(self) -> None:
        self._begin("load")

    def heartbeat(self) -> Heartbeat:
        return Heartbeat(self._answered, self._answered, frozenset({self._node}))

    def process(self, shard: int, quarantined: Mapping[int, str] | None = None) -> ShardResult:
        with self._device:
            self._begin(f"shard {shard}")
            for place in range(INPUTS):
                if place not in (quarantined or {}):
                    self._touch(shard, place)
            while (self._folder / "wait for two").exists() and log(self._folder).count("load") < 2:
                time.sleep(0.05)
            self._answered += INPUTS
            note(self._folder, "finished", f"shard {shard}")
            return done_by(shard, tuple((quarantined or {}).values()))

    def probe(self, shard: int, place: int) -> None:
        with self._device:
            self._begin(f"probe {shard}.{place}")
            self._touch(shard, place)

    def _touch(self, shard: int, place: int) -> None:
        if (self._folder / f"deadly {shard}.{place}").exists():
            os.kill(os.getpid(), signal.SIGKILL)


def done_by(shard: int, failures: tuple[str, ...] = ()) -> ShardResult:
    """A result that names its shard."""
    return ShardResult(INPUTS, failures, notes=(("shard", str(shard)),))


def told(folder: Path, deed: str, line: str) -> bool:
    """Whether a file tells to do it: once, or always."""
    once = folder / f"{deed} {line}"
    there = once.exists()
    once.unlink(missing_ok=True)
    return there or (folder / f"{deed} always {line}").exists()


def note(folder: Path, name: str, line: str) -> None:
    with (folder / name).open("a") as file:
        file.write(line + "\n")


def log(folder: Path, name: str = "log") -> list[str]:
    return (folder / name).read_text().splitlines() if (folder / name).exists() else []
