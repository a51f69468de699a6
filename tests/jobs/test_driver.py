"""The driver: every shard done, whoever dies, and an end to it if they keep dying."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from paliflow.jobs.driver import MAX_DEATHS, Done, drive


class Worker:
    """Writes a line for each shard it begins; dies or raises as told by files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _note(self, line: str) -> None:
        with (self._folder / "log").open("a") as log:
            log.write(line + "\n")
        for deed in (f"kill {line}", f"kill always {line}"):
            if (self._folder / deed).exists():
                if "always" not in deed:
                    (self._folder / deed).unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        if (self._folder / f"raise {line}").exists():
            raise ValueError(f"told to raise at {line}")

    def load(self) -> None:
        self._note("load")

    def annotate(self, shard: int) -> Done:
        self._note(f"shard {shard}")
        while (self._folder / "wait for two").exists() and log(self._folder).count("load") < 2:
            time.sleep(0.05)
        return Done(10, shard)


@pytest.fixture
def run(cluster: str, tmp_path: Path) -> Callable[..., list[Done]]:
    """Drives shards with `actors` workers; returns what was reported."""

    def run(shards: range, actors: int = 1) -> list[Done]:
        reports: list[Done] = []
        worker: Any = ray.remote(Worker).options(num_cpus=0.5)
        drive(lambda: worker.remote(tmp_path), shards, actors, reports.append)
        return [done for done in reports if done.inputs]

    return run


def log(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


def test_every_shard_is_done_once_by_as_many_actors_as_wanted(
    run: Callable[..., list[Done]], tmp_path: Path
) -> None:
    (tmp_path / "wait for two").touch()
    assert sorted(run(range(7), actors=2)) == [Done(10, shard) for shard in range(7)]
    assert sorted(log(tmp_path)) == sorted(["load"] * 2 + [f"shard {shard}" for shard in range(7)])


def test_the_dead_are_replaced_and_their_shards_done(
    run: Callable[..., list[Done]], tmp_path: Path
) -> None:
    for deed in ("kill load", "kill shard 1", "kill shard 3"):
        (tmp_path / deed).touch()
    assert sorted(run(range(4))) == [Done(10, shard) for shard in range(4)]
    begun = log(tmp_path)
    assert begun == [
        *("load", "load", "shard 0", "shard 1"),
        *("load", "shard 1", "shard 2", "shard 3"),
        *("load", "shard 3"),
    ]


@pytest.mark.parametrize(("where", "what"), [("load", "loading"), ("shard 1", "at shard 1")])
def test_if_they_keep_dying_the_run_ends(
    run: Callable[..., list[Done]], tmp_path: Path, where: str, what: str
) -> None:
    (tmp_path / f"kill always {where}").touch()
    with pytest.raises(RuntimeError, match=f"{MAX_DEATHS} annotators died {what}"):
        run(range(2))
    assert log(tmp_path).count(where) == MAX_DEATHS


def test_what_an_actor_raises_ends_the_run_as_it_was_raised(
    run: Callable[..., list[Done]], tmp_path: Path
) -> None:
    (tmp_path / "raise load").touch()
    with pytest.raises(ValueError, match=r"^told to raise at load$"):
        run(range(3))
    assert log(tmp_path) == ["load"]
