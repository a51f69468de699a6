"""A slice's processes without JAX: the second has to do its part before the first has a result."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from paliflow.configs.tpus import Slice
from paliflow.jobs.fleet.scheduler import Heartbeat, ShardResult
from paliflow.jobs.fleet.slice_process import Seat, SliceProcess

SHARDS = 6


def events(seeds: Sequence[int]) -> dict[str, int]:
    """A signal for each seed, at a shard of its own; the seed draws which it is, and for whom.

    The first process may have it before it has begun or while it waits for the second, and the
    second while the first waits.
    """
    found = dict[str, int]()
    for number, seed in enumerate(seeds):
        draw = random.Random(seed)
        moment = draw.choice(("before", "first", "second"))
        signals = signal.SIGKILL, signal.SIGSTOP
        found[f"{moment} {SHARDS // len(seeds) * number}"] = draw.choice(signals)
    return found


class Member:
    """As `SliceMember`; the folder tells which signal comes when, once."""

    def __init__(self) -> None:
        self._done = 0

    def start(
        self,
        seats: Sequence[Seat],
        rank: int,
        worker: str,
        folder: Path,
        repeat: Callable[[int], None] | None = None,
    ) -> None:
        self._folder, self._repeat = folder, repeat
        with (folder / "pids").open("a") as file:
            file.write(f"{os.getpid()}\n")

    def repeat(self, arguments: tuple[int]) -> None:
        (shard,) = arguments
        self._befall(f"second {shard}")
        (self._folder / f"half {shard}").touch()

    @ray.method(concurrency_group="work")
    def heartbeat(self) -> Heartbeat:
        return Heartbeat(self._done, self._done)

    @ray.method(concurrency_group="work")
    def process(self, shard: int, quarantined: Mapping[int, str] | None) -> ShardResult:
        assert self._repeat
        self._befall(f"before {shard}")
        self._repeat(shard)
        self._befall(f"first {shard}")
        while not (self._folder / f"half {shard}").exists():
            time.sleep(0.01)
        self._done += 1
        return ShardResult(1, notes=(("shard", str(shard)),))

    @ray.method(concurrency_group="watch")
    def stay(self) -> None:
        threading.Event().wait()

    def _befall(self, moment: str) -> None:
        told = self._folder / moment
        if told.exists():
            number = int(told.read_text())
            told.unlink()
            # To this thread: another might take it, and this one go on for a moment.
            signal.pthread_kill(threading.get_ident(), number)


class Gang(SliceProcess):
    """A `SliceProcess` both of whose processes are on one node, whatever its labels."""

    MEMBER = f"{__name__}:{Member.__name__}"
    SILENCE_S = 1.0

    def _placed(
        self, remote: Any, slice_: Slice, labels: Mapping[str, str]
    ) -> tuple[list[Any], list[Seat]]:
        here = Seat("s", ray.get_runtime_context().get_node_id(), "")
        return [remote.options(resources={}).remote() for _ in range(2)], [here] * 2
