"""Actors on nodes that look to Ray like hosts of TPU slices: where they run, what they are told."""

import json
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # a Ray cluster of its own


@pytest.fixture(scope="module")
def printed() -> list[Any]:
    run = subprocess.run(
        [sys.executable, "-m", "paliflow.tests.jobs.fleet.fake_slices"],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()[-2:]]


@pytest.fixture
def found(printed: list[Any]) -> list[dict[str, Any]]:
    """What the actors of each case report."""
    cases: list[dict[str, Any]] = printed[0]
    return cases


def test_actors_on_hosts_of_a_larger_slice_are_told_that_they_are_alone(
    found: list[dict[str, Any]],
) -> None:
    (host,), chips = found[0]["reports"], found[1]["reports"]
    assert host["TPU_VISIBLE_CHIPS"] == "0,1,2,3"
    assert host["TPU_CHIPS_PER_PROCESS_BOUNDS"] == "2,2,1"
    assert sorted(each["TPU_VISIBLE_CHIPS"] for each in chips) == ["0", "1", "2", "3"]
    for each in [host, *chips]:
        assert each["ray.io/tpu-worker-id"] == "3"
        assert each["TPU_PROCESS_BOUNDS"] == each["TPU_HOST_BOUNDS"] == "1,1,1"
        assert each["TPU_WORKER_ID"] == "0"
        assert each["TPU_WORKER_HOSTNAMES"] == "localhost"
        assert each["ray.io/tpu-topology"] == "4x4"


def test_actors_on_single_hosts_find_what_gke_and_ray_have_set(found: list[dict[str, Any]]) -> None:
    (whole,), quarters = found[2]["reports"], found[3]["reports"]
    assert whole["ray.io/tpu-slice-name"] == "alone"
    assert "TPU_PROCESS_BOUNDS" not in whole
    assert len(quarters) == 4
    assert {each["TPU_CHIPS_PER_HOST_BOUNDS"] for each in quarters} == {"1,2,1"}


def test_the_environment_is_set_before_jax_is_imported(found: list[dict[str, Any]]) -> None:
    reports = [each for case in found[:4] for each in case["reports"]]
    assert {each["jax"] for each in reports} == {"False"}


def test_an_actor_that_nobody_has_seen_work_refuses_to_load(found: list[dict[str, Any]]) -> None:
    assert "nobody has seen a process take 2 of the 4 chips" in found[4]["error"]


def test_doctor_finds_each_planted_fault_and_names_the_remedy(printed: list[Any]) -> None:
    nodes = [text for grade, text in printed[1] if grade == "ok"]
    faults = [text for grade, text in printed[1] if grade == "fault"]
    assert len(nodes) == 3
    jax, flax, *on_cpu = sorted(faults, key=lambda text: ("jax 0." not in text, "flax" not in text))
    remedy = "install paliflow[ray] (paliflow[tpu] on TPU hosts) with -c constraints.txt there"
    assert f": jax 0.4.1, and the driver has {version('jax')}; {remedy}" in jax
    assert f": flax is missing, and the driver has {version('flax')}; {remedy}" in flax
    asked = sorted(text.partition("an actor with ")[2].partition(":")[0] for text in on_cpu)
    assert asked == ["TPU 1", "TPU 1", "TPU 4", "TPU 8"]
    assert all("JAX finds 1 x cpu; install paliflow[tpu]" in text for text in on_cpu)
