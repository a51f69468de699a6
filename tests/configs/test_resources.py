"""Resources that no node can have are errors of the spec, and so of the DAG that names it."""

import tomllib
from pathlib import Path

import pytest

from paliflow.configs import AnnotateSpec, FineTuneSpec
from paliflow.configs.base import SpecError

ANNOTATE = {"input": "in", "output": "out", "prompts": ["ocr"], "run_id": "r"}
FINETUNE = {"output": "/out", "run_id": "r", "train": [{"path": "/in.jsonl"}]}


@pytest.mark.parametrize(
    ("resources", "complaint"),
    [
        ({"TPU": 3}, "TPU=3: a process has 1, 2, 4 or 8 chips"),
        ({"TPU": 0.5}, "TPU=0.5: a process has 1, 2, 4 or 8 chips"),
        ({"TPU": 16}, "TPU=16: "),
        ({"tpu": 4}, "Ray has no resource tpu, did you mean TPU?"),
        ({"Gpu": 1}, "Ray has no resource Gpu, did you mean GPU?"),
        ({"GPU": 1.5}, "GPU=1.5: above 1 only whole numbers"),
        ({"CPU": 2}, "CPU: CPUs are cpus_per_actor"),
        ({"memory": 2}, "memory: memory cannot be asked for"),
        ({"TPU": 4, "GPU": 1}, "give TPU or GPU"),
    ],
)
def test_resources_that_can_never_be_are_refused(
    resources: dict[str, float], complaint: str
) -> None:
    with pytest.raises(SpecError, match=r"accelerators_per_actor=.*") as caught:
        AnnotateSpec.parse(ANNOTATE | {"accelerators_per_actor": resources})
    assert complaint in str(caught.value)
    with pytest.raises(SpecError, match=r"accelerators_per_worker=.*"):
        FineTuneSpec.parse(FINETUNE | {"accelerators_per_worker": resources})


def test_resources_that_nodes_have_are_taken() -> None:
    for resources in ({"TPU": 1}, {"TPU": 8}, {"GPU": 0.5}, {"GPU": 2}, {"big-memory": 1}, {}):
        spec = AnnotateSpec.parse(ANNOTATE | {"accelerators_per_actor": resources})
        assert spec.accelerators_per_actor == resources


def test_a_worker_takes_whole_gpus() -> None:
    with pytest.raises(SpecError, match=r"accelerators_per_worker: GPU=0\.5: workers take"):
        FineTuneSpec.parse(FINETUNE | {"accelerators_per_worker": {"GPU": 0.5}})


def test_the_extra_of_a_tpu_host_brings_all_that_a_job_needs() -> None:
    pyproject = Path(__file__, "../../../pyproject.toml").resolve().read_text()
    extras = tomllib.loads(pyproject)["project"]["optional-dependencies"]
    assert any(each.startswith("jax[tpu]") for each in extras["tpu"])
    assert "paliflow[ray]" in extras["tpu"]
