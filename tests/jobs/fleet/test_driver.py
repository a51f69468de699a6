"""The driver: every shard done, whoever dies or hangs, and an end to it if they keep dying."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from paliflow.jobs.fleet import scheduler as driver
from paliflow.jobs.fleet.scheduler import (
    MAX_DEATHS,
    SUSPICIOUS,
    FleetStatus,
    ShardResult,
    drive,
)
from paliflow.tests.jobs.fleet.puppet import INPUTS, Worker, done_by, log, note

Run = Callable[..., list[ShardResult]]


@pytest.fixture
def run(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Drives shards with `actors` workers; returns what was reported."""
    monkeypatch.setattr(driver, "_SCALE_INTERVAL_S", 0.2)

    def run(
        shards: range,
        actors: int | Callable[[], int] = 1,
        stall_timeout: float = 30.0,
        fleets: list[FleetStatus] | None = None,
    ) -> list[ShardResult]:
        reports: list[ShardResult] = []

        def report(done: ShardResult, fleet: FleetStatus) -> None:
            reports.append(done)
            if done.inputs:
                note(tmp_path, "reported", f"shard {shard_of(done)}")
            if fleets is not None:
                fleets.append(fleet)

        worker: Any = ray.remote(Worker).options(num_cpus=0.4, max_concurrency=4)
        wanted = actors if callable(actors) else lambda: actors
        start = lambda: worker.remote(tmp_path)  # noqa: E731
        draining = partial(log, tmp_path, "draining")
        drive(start, shards, lambda shard: INPUTS, wanted, report, stall_timeout, draining)
        return sorted(done for done in reports if done.inputs)

    return run


def all_of(shards: range) -> list[ShardResult]:
    return [done_by(shard) for shard in shards]


def shard_of(done: ShardResult) -> int:
    return int(done.notes[0][1])


def test_actors_join_while_the_work_goes_on_and_every_shard_is_done_once(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "wait for two").touch()
    asked: list[int] = []
    fleets: list[FleetStatus] = []

    def wanted() -> int:
        asked.append(1)
        return 0 if len(asked) == 1 else 1 if len(asked) < 5 else 2

    assert run(range(7), actors=wanted, fleets=fleets) == all_of(range(7))
    assert sorted(log(tmp_path)) == sorted(["load"] * 2 + [f"shard {shard}" for shard in range(7)])
    assert max(fleet.actors for fleet in fleets) == 2


def test_who_dies_hangs_or_is_lost_is_replaced_and_every_shard_done(
    run: Run, tmp_path: Path
) -> None:
    for deed in ("hang load", "lose load", "kill shard 1", "hang shard 3"):
        (tmp_path / deed).touch()
    assert run(range(4), stall_timeout=3.0) == all_of(range(4))
    begun = log(tmp_path)
    assert begun.count("load") == 5
    assert [begun.count(f"shard {shard}") for shard in range(4)] == [1, 2, 1, 2]


def test_the_input_that_kills_is_found_and_the_rest_of_its_shard_done(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "deadly 1.2").touch()
    done = {shard_of(result): result for result in run(range(3))}
    assert [done[0], done[2]] == [done_by(0), done_by(2)]
    assert done[1].inputs == INPUTS
    (reason,) = done[1].failures
    assert reason.startswith("kills the worker: ")
    begun = log(tmp_path)
    assert begun.count("shard 1") == SUSPICIOUS + 1
    probes = [line for line in begun if line.startswith("probe 1.")]
    assert probes == ["probe 1.0", "probe 1.1", *["probe 1.2"] * MAX_DEATHS]


@pytest.mark.slow
def test_a_draining_node_loses_its_actor_at_once_and_its_shards_to_others(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "drain shard 1").touch()
    (tmp_path / "notice").touch()
    (tmp_path / "wait for two").touch()
    fleets: list[FleetStatus] = []
    assert run(range(4), actors=2, fleets=fleets) == all_of(range(4))
    assert log(tmp_path).count("shard 1") == 2
    assert fleets[-1].preemptions == 1


@pytest.mark.slow
def test_deaths_on_draining_nodes_are_nobodys_fault(run: Run, tmp_path: Path) -> None:
    """A shard that lost so many actors otherwise would be searched for the culprit."""
    (tmp_path / "drain always shard 1").touch()
    (tmp_path / "kill always shard 1").touch()

    def wanted() -> int:
        if log(tmp_path).count("shard 1") > SUSPICIOUS:
            for deed in ("drain", "kill"):
                (tmp_path / f"{deed} always shard 1").unlink(missing_ok=True)
        return 1

    assert run(range(2), actors=wanted) == all_of(range(2))
    begun = log(tmp_path)
    assert begun.count("shard 1") > SUSPICIOUS
    assert not [line for line in begun if line.startswith("probe")]


@pytest.mark.slow
@pytest.mark.slow
def test_loads_that_keep_dying_end_the_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "kill always load").touch()
    with pytest.raises(RuntimeError, match=f"{MAX_DEATHS} workers in a row died loading"):
        run(range(2))
    assert log(tmp_path).count("load") == MAX_DEATHS


@pytest.mark.slow
def test_a_shard_that_kills_without_a_culprit_ends_the_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "kill always shard 1").touch()
    with pytest.raises(RuntimeError, match=f"{MAX_DEATHS} workers in a row died at shard 1"):
        run(range(2))
    begun = log(tmp_path)
    assert begun.count("shard 1") == SUSPICIOUS + MAX_DEATHS
    assert [begun.count(f"probe 1.{place}") for place in range(INPUTS)] == [1] * INPUTS


def test_what_an_actor_raises_ends_the_run_as_it_was_raised(run: Run, tmp_path: Path) -> None:
    (tmp_path / "raise load").touch()
    with pytest.raises(ValueError, match=r"^told to raise at load$"):
        run(range(3))
    assert log(tmp_path) == ["load"]
