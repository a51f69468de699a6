"""Chaos: whoever is killed and whatever storage does, a run's rows are those of a quiet one."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from paliflow import storage
from paliflow.configs import AnnotateSpec, RunSummary
from paliflow.jobs.runs.outputs import read_summary
from paliflow.tests.jobs.chaos import INPUTS, SHARD_SIZE, Arena, arena, faulty_bucket, rows_of
from paliflow.tests.jobs.conftest import small_spec

_SHARDS = INPUTS // SHARD_SIZE


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STORAGE_EMULATOR_HOST", "JAX_COMPILATION_CACHE_DIR"):
            patch.setenv(name, "")  # restores it in the end
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        folder = tmp_path_factory.mktemp("chaos")
        with faulty_bucket(folder / "images", seed=0), arena(folder / "compiled") as place:
            yield place


def spec(name: str) -> AnnotateSpec:
    return small_spec(
        Path("unused"),
        input="gs://images/in",
        output=f"gs://images/{name}",
        shard_size=SHARD_SIZE,
        batch_size=2,
        actors=2,
    )


@pytest.fixture(scope="module")
def quiet(place: Arena) -> RunSummary:
    """The undisturbed run."""
    assert place.annotate(spec("quiet")) == []
    return summary_of("quiet")


def summary_of(name: str) -> RunSummary:
    summary = read_summary(f"gs://images/{name}/run_id=test")
    assert summary
    return summary


def nothing_is_lost_doubled_or_changed(place: Arena, quiet: RunSummary, seed: int) -> None:
    name = f"chaos-{seed}"
    victims = place.annotate(spec(name), random.Random(seed))
    print(f"seed {seed}: killed {', '.join(victims) or 'nobody'}")
    summary = summary_of(name)
    assert rows_of(summary.location, _SHARDS).equals(rows_of(quiet.location, _SHARDS))
    counts = {"inputs", "rows", "ok", "errors", "shards", "error_reasons", "checkpoint_sha256"}
    assert summary.model_dump(include=counts) == quiet.model_dump(include=counts)
    names = {entry.uri.rpartition("/")[2] for entry in storage.list_files(summary.location)}
    parts = {f"part-{shard:05d}.parquet" for shard in range(_SHARDS)}
    assert {file for file in names if not file.startswith("0")} == parts | {
        "_manifest.json",
        "plan.json",
    }


@pytest.mark.slow  # a cluster of three nodes of its own, and four runs on it
def test_a_disturbed_run_ends_as_the_quiet_one(place: Arena, quiet: RunSummary) -> None:
    nothing_is_lost_doubled_or_changed(place, quiet, 0)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(1, 51))
def test_fifty_disturbed_runs_end_as_the_quiet_one(
    place: Arena, quiet: RunSummary, seed: int
) -> None:
    nothing_is_lost_doubled_or_changed(place, quiet, seed)
