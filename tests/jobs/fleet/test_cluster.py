"""What an actor takes of the cluster that it finds, and what it waits for."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import ray
from rich.console import Console

from paliflow.configs.base import ClusterError, SpecError
from paliflow.jobs.annotate import job as run
from paliflow.jobs.annotate.actor import Annotator
from paliflow.jobs.finetune.job import finetune
from paliflow.jobs.fleet import shards
from paliflow.jobs.fleet.accelerators import require_accelerators, require_mesh
from paliflow.jobs.fleet.cluster import (
    actor_options,
    connected,
    described,
    places,
    require_room,
    share_cores,
    target_actor_count,
    whole_slices,
)
from paliflow.jobs.runs.plan import Plan
from paliflow.tests.jobs.conftest import SpecFactory
from paliflow.tests.jobs.files import encode
from paliflow.tests.jobs.labelled import finetune_spec, train_here


def test_an_actor_starts_threads_for_its_share_of_the_cores(
    cluster: str, make_spec: SpecFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a cluster with two."""

    def threads(**fields: object) -> str | None:
        monkeypatch.setenv("PJRT_NPROC", "")  # so that it is restored
        monkeypatch.delenv("PJRT_NPROC")
        share_cores(make_spec(input="-", **fields))
        return os.environ.get("PJRT_NPROC")

    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert threads() == "2"
    assert threads(actors=2) == "1"
    assert threads(actors=3, cpus_per_actor=4) == "4"
    assert threads(actors=1, cpus_per_actor=16) == "8"  # a host has no more
    assert threads(accelerators_per_actor={"TPU": 4}, actors=1) is None
    monkeypatch.setenv("PJRT_NPROC", "5")
    share_cores(make_spec(input="-"))
    assert os.environ["PJRT_NPROC"] == "5"


def test_two_nodes_of_four_chips_have_no_place_for_an_actor_of_eight(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = {"Alive": True, "Resources": {"CPU": 8.0}}
    host = {"Alive": True, "Resources": {"CPU": 8.0, "TPU": 4.0}}
    lost = {"Alive": False, "Resources": {"CPU": 8.0, "TPU": 8.0}}
    monkeypatch.setattr(ray, "nodes", lambda: [head, host, host, lost])
    assert places({"CPU": 1, "TPU": 8}) == 0
    assert places({"CPU": 1, "TPU": 4}) == 2
    assert places({"CPU": 5, "TPU": 1}) == 2
    said = described({"CPU": 1, "TPU": 8})
    assert "each takes CPU 1, TPU 8 of one node" in said
    assert "2 x CPU 8, TPU 4; 1 x CPU 8, TPU 0" in said


def test_a_tenth_of_a_core_fits_ten_times_into_one(cluster: str) -> None:
    assert places({"CPU": 0.1}) == 20


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        (None, Exception("The current node timed out during startup."), "Ray does not start on"),
        (None, TimeoutError("Timed out after 30 seconds."), "Ray does not start on this machine"),
        ("gcs", RuntimeError("Failed to connect to GCS."), "ray_address='gcs': no Ray cluster"),
    ],
)
def test_a_start_of_ray_that_takes_too_long_is_the_clusters_fault(
    address: str | None, error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(*args: object, **options: object) -> None:
        raise error

    stopped = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: stopped.append(True))
    with pytest.raises(ClusterError, match=rf"^{said}.*{error}"), connected(address):
        pass
    assert stopped


@pytest.fixture
def tenant(cluster: str) -> Iterator[None]:
    """Another job, which holds all of the cluster."""

    class Tenant:
        def here(self) -> None:
            pass

    actor: Any = ray.remote(Tenant).options(num_cpus=2).remote()
    ray.get(actor.here.remote())
    yield
    ray.kill(actor)


@pytest.mark.parametrize(
    ("fields", "takes"),
    [({"cpus_per_actor": 2}, "CPU 2"), ({"accelerators_per_actor": {"TPU": 8}}, "CPU 1, TPU 8")],
)
def test_an_actor_that_fits_nowhere_is_awaited_aloud_and_not_for_ever(
    tenant: None,
    make_spec: SpecFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fields: dict[str, Any],
    takes: str,
) -> None:
    monkeypatch.setattr(shards, "_PATIENCE_S", 0.1)
    (tmp_path / "a.png").write_bytes(encode("RGB", "PNG"))
    spec = make_spec(input=str(tmp_path), actors=1, start_timeout=1.5, **fields)
    with pytest.raises(ClusterError, match=rf"^start_timeout=1.5: .* takes {takes} of one node"):
        run.annotate(spec, Console(force_terminal=False))
    said = " ".join(capsys.readouterr().out.split())
    assert f"waiting: actors do not start: each takes {takes} of one node; nodes: 1 x" in said
    assert "0 actors and 1 awaited" in said


@pytest.mark.slow  # Ray Train alone takes long to start
@pytest.mark.parametrize("asked", [{"workers": 1}, {"workers": 2, "min_workers": 1}])
def test_workers_that_fit_nowhere_are_awaited_aloud_and_not_for_ever(
    cluster: str, folder: Path, capsys: pytest.CaptureFixture[str], asked: dict[str, int]
) -> None:
    fields: dict[str, Any] = {"cpus_per_worker": 64, "start_timeout": 1, **asked}
    spec = finetune_spec(folder, run_id=f"waits-{len(asked)}", **fields)
    *_, fewest = asked
    said = rf"^start_timeout=1: .* {fewest}=1 did not start: each takes CPU 64 of one node"
    with pytest.raises(ClusterError, match=said):
        finetune(spec, Console(force_terminal=False))
    assert f"waiting for room for {fewest}=1: each takes CPU 64" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wanted", "remedy"),
    [({"TPU": 4}, r"paliflow\[tpu\]"), ({"GPU": 1}, "jax.cuda12"), ({"GPU": 0.5}, "jax.cuda12")],
)
def test_an_actor_without_the_accelerators_it_asked_for_refuses_to_load(
    make_spec: SpecFactory, tmp_path: Path, wanted: dict[str, float], remedy: str
) -> None:
    spec = make_spec(input=str(tmp_path), accelerators_per_actor=wanted)
    plan = Plan(kind="annotate", spec=spec.model_dump(), folder="", inputs=1, rows=1, shards=1)
    found = rf"^accelerators_per_actor=\{{.*\}}: JAX finds 1 x cpu; install {remedy}"
    with pytest.raises(SpecError, match=found):
        Annotator(spec, spec.location, plan).load()


def test_a_worker_without_the_accelerators_it_asked_for_refuses_to_train(folder: Path) -> None:
    spec = finetune_spec(folder, run_id="none", accelerators_per_worker={"TPU": 4})
    with pytest.raises(SpecError, match=r"accelerators_per_worker=.*JAX finds 1 x cpu; install"):
        train_here(spec)


def test_other_resources_ask_for_no_devices() -> None:
    require_accelerators("accelerators_per_actor", {"big-memory": 1})


def test_actors_are_placed_on_nodes_of_the_slice_that_the_spec_names(
    cluster: str, make_spec: SpecFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def node(kind: str, topology: str) -> dict[str, Any]:
        labels = {"ray.io/accelerator-type": kind, "ray.io/tpu-topology": topology}
        return {"Alive": True, "Resources": {"CPU": 8.0, "TPU": 4.0}, "Labels": labels}

    spec = make_spec(input="-", placement="host", accelerator_type="v5e", topology="4x4")
    other = [node("TPU-V6E", "4x4"), node("TPU-V5LITEPOD", "2x2")]
    monkeypatch.setattr(ray, "nodes", lambda: [*other, node("TPU-V5LITEPOD", "4x4")])
    options = actor_options(spec.actor_resources, spec.actor_labels)
    assert options["label_selector"] == ray.nodes()[2]["Labels"]
    assert target_actor_count(spec) == 1
    chips = make_spec(input="-", placement="chip", accelerator_type="v5e", topology="4x4")
    assert target_actor_count(chips) == 4
    monkeypatch.setattr(ray, "nodes", lambda: other)
    where = "labelled ray.io/accelerator-type=TPU-V5LITEPOD, labelled ray.io/tpu-topology=4x4;"
    with pytest.raises(ClusterError, match=where):
        require_room(spec)


def test_a_slice_is_whole_when_all_its_hosts_are_there(
    cluster: str, make_spec: SpecFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hosts(name: str, count: int, alive: bool = True) -> list[dict[str, Any]]:
        labels = {"ray.io/accelerator-type": "TPU-V5LITEPOD", "ray.io/tpu-topology": "4x4"}
        labels["ray.io/tpu-slice-name"] = name
        node = {"Resources": {"CPU": 8.0, "TPU": 4.0}, "Alive": alive}
        numbers = ({"ray.io/tpu-worker-id": str(number)} for number in range(count))
        return [node | {"Labels": labels | number} for number in numbers]

    spec = make_spec(input="-", placement="slice", accelerator_type="v5e", topology="4x4")
    assert spec.actor_slice
    nodes = [*hosts("a", 4), *hosts("b", 3), *hosts("b", 1), *hosts("c", 4)]
    nodes += hosts("d", 4, alive=False)
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert whole_slices(spec.actor_slice, spec.actor_labels) == ["a", "c"]
    assert target_actor_count(spec) == 2
    monkeypatch.setattr(ray, "nodes", lambda: hosts("b", 3))
    each = "each takes CPU 1, TPU 4 of each of the 4 hosts of one slice, labelled"
    with pytest.raises(ClusterError, match=each):
        require_room(spec)


class Chip(NamedTuple):
    """What is looked at of one of JAX's devices."""

    coords: tuple[int, int, int]


@pytest.mark.parametrize(
    ("shape", "topology"), [((2, 2, 1), "2x2"), ((4, 2, 1), "2x4"), ((1, 1, 1), "1x1")]
)
def test_chips_that_form_another_mesh_than_the_spec_says_are_refused(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], topology: str
) -> None:
    chips = [Chip((x + 2, y, z)) for x, y, z in np.ndindex(*shape)]
    monkeypatch.setattr(jax, "local_devices", lambda: chips)
    require_mesh("accelerators_per_actor", topology)
    require_mesh("accelerators_per_actor", None)
    with pytest.raises(SpecError, match=r"form a mesh of .x.x1, and not of 4x4"):
        require_mesh("accelerators_per_actor", "4x4")
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(SpecError, match="JAX sees the chips of 4 processes, where an actor is 1"):
        require_mesh("accelerators_per_actor", topology)
    monkeypatch.setattr(jax, "devices", lambda: [*chips, Chip((0, 0, 0))])
    with pytest.raises(SpecError, match="the actor's chips form a mesh of"):
        require_mesh("accelerators_per_actor", topology, processes=4)
