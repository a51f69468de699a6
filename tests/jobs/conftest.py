"""One Ray cluster for all tests of jobs; specs of the bundled checkpoint."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from paliflow.configs import AnnotateSpec
from paliflow.tests.jobs.labelled import write_scenes

SpecFactory = Callable[..., AnnotateSpec]


@pytest.fixture(scope="session")
def cluster(gcs: None) -> Iterator[str]:
    """The address of a Ray cluster with two cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            "local",
            num_cpus=2,
            object_store_memory=2**28,
            include_dashboard=False,
            log_to_driver=False,
        )
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `train.jsonl` of 24 scenes and `test.jsonl` of 6."""
    folder = tmp_path_factory.mktemp("labelled")
    write_scenes(folder / "train.jsonl", "train", 24)
    write_scenes(folder / "test.jsonl", "test", 6)
    return folder


@pytest.fixture
def make_spec(tmp_path: Path) -> SpecFactory:
    """Makes specs like `small_spec` that write below `tmp_path`."""
    return partial(small_spec, tmp_path / "output")


def small_spec(output: Path, /, **fields: Any) -> AnnotateSpec:
    """A spec that runs fast, sampled so that seeds matter; any field may be given otherwise."""
    defaults = {
        "output": str(output),
        "prompts": ["caption en", "detect digit"],
        "run_id": "test",
        "sampling": {"temperature": 1.0},
        "max_new_tokens": 6,
        "max_error_fraction": 1.0,
        "report": False,
    }
    return AnnotateSpec.parse(defaults | fields)
