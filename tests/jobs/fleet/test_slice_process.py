"""A slice's processes are lost together, whichever of them dies or stops, and at what moment."""

from concurrent.futures import ThreadPoolExecutor, TimeoutError
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from paliflow.configs.placement import slice_of
from paliflow.jobs.fleet.scheduler import ShardResult, WorkerLostError
from paliflow.tests.jobs.fleet.gang import Gang, events
from paliflow.tests.waiting import until

SEEDS = 5, 7, 8


def watched(gang: Gang, shard: int) -> ShardResult:
    """Has a shard done as the scheduler does, which asks for signs of life meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(gang.process, shard)
        while True:
            with suppress(TimeoutError):
                return doing.result(timeout=0.1)
            gang.heartbeat()


def go_on(gang: Gang, done: list[int]) -> None:
    """Has one shard after the other done, for ever."""
    while True:
        watched(gang, len(done))
        done.append(len(done))


def test_processes_of_which_one_is_killed_or_stopped_are_lost_at_once_and_leave_none(
    cluster: str, tmp_path: Path
) -> None:
    slice_ = slice_of("v4", "2x2x2")
    assert slice_

    def loaded() -> Gang:
        gang = Gang(f"{Gang.__module__}:Worker", slice_, {}, 0, tmp_path)
        gang.load()
        return gang

    for moment, number in events(SEEDS).items():
        (tmp_path / moment).write_text(str(int(number)))
    lost, done = list[int](), list[int]()
    for _ in SEEDS:
        gang = loaded()
        with pytest.raises(WorkerLostError):
            go_on(gang, done)
        lost.append(len(done))
    assert lost == [0, 2, 4]
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2 * len(SEEDS)
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids), 20)
