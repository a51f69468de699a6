"""A slice's processes are lost together, whichever of them dies or stops, and at what moment."""

from concurrent.futures import ThreadPoolExecutor, TimeoutError
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from paliflow.configs.placement import slice_of
from paliflow.jobs.fleet.scheduler import ShardResult, WorkerLostError
from paliflow.tests.jobs.fleet.gang import SHARDS, Gang, events
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
    gang, lost, done = loaded(), list[int](), list[int]()
    while len(done) < SHARDS:
        try:
            watched(gang, len(done))
        except WorkerLostError:
            lost.append(len(done))
            gang = loaded()
        else:
            done.append(len(done))
    assert lost == [0, 2, 4]
    gang._lost("the end")
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2 * (1 + len(SEEDS))
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids), 20)
