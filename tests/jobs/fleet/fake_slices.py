"""Ray nodes that look like hosts of TPU slices, and what an actor on each finds. A script.

`python -m paliflow.tests.jobs.fleet.fake_slices` prints what actors find in each case, as JSON,
then what `paliflow doctor` says of the cluster.
"""

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from paliflow.configs import AnnotateSpec
from paliflow.jobs.annotate.checkup import examine
from paliflow.jobs.fleet.cluster import actor_options, target_actor_count
from paliflow.jobs.fleet.process import ShardProcess
from paliflow.jobs.fleet.scheduler import Heartbeat, ShardResult

HOSTS = [
    ("slice-a", 3, "4x4", "v5litepod-16", 4),
    ("alone", 0, "2x4", "v5litepod-8", 8),
]
"""Slice, number of the host, topology, type and chips."""


class Reporter:
    """A `ShardWorker` that tells its environment and whether JAX was there before it."""

    def load(self) -> tuple[tuple[str, str], ...]:
        found = {name: value for name, value in os.environ.items() if name.startswith("TPU_")}
        here = ray.get_runtime_context().get_node_id()
        (labels,) = (node["Labels"] for node in ray.nodes() if node["NodeID"] == here)
        return (*found.items(), ("jax", str("jax" in sys.modules)), *labels.items())

    def heartbeat(self) -> Heartbeat:
        return Heartbeat(0, 0)

    def process(self, shard: int, quarantined: Mapping[int, str] | None = None) -> ShardResult:
        return ShardResult()

    def probe(self, shard: int, place: int) -> None:
        pass


Host = tuple[str, int, str, str, int]


def start(cluster: Cluster, hosts: Sequence[Host]) -> None:
    """A head without chips, and the hosts."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "JAX_PLATFORMS": "cpu"}
    cluster.add_node(num_cpus=1, include_dashboard=False)
    for host in hosts:
        add(cluster, host)


def add(cluster: Cluster, host: Host) -> Any:
    """A host, with the environment that GKE gives it."""
    name, number, topology, kind, chips = host
    gke = {"TPU_NAME": name, "TPU_WORKER_ID": str(number), "TPU_TOPOLOGY": topology}
    count = prod(map(int, topology.split("x"))) // chips
    names = ",".join(f"{name}-{other}" for other in range(count))
    gke |= {"TPU_ACCELERATOR_TYPE": kind, "TPU_WORKER_HOSTNAMES": names}
    os.environ |= gke
    try:
        # Ray starts a worker for each core
        return cluster.add_node(num_cpus=1, resources={"TPU": chips})
    finally:
        for variable in gke:
            del os.environ[variable]


HIDES_FLAX = """
import importlib.metadata

found = importlib.metadata.version


def version(name: str) -> str:
    if name == "flax":
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)


importlib.metadata.version = version
"""


def plant(cluster: Cluster, folder: Path) -> None:
    """Two hosts more: one has another JAX than this process, to one the extra `ray` is missing."""
    other, less = folder / "other", folder / "less"
    (other / "jax-0.4.1.dist-info").mkdir(parents=True)
    metadata = "Metadata-Version: 2.1\nName: jax\nVersion: 0.4.1\n"
    (other / "jax-0.4.1.dist-info" / "METADATA").write_text(metadata)
    less.mkdir()
    (less / "sitecustomize.py").write_text(HIDES_FLAX)
    for path in (other, less):
        os.environ["PYTHONPATH"] = str(path)
        cluster.add_node(num_cpus=1)
    del os.environ["PYTHONPATH"]


def found(**fields: Any) -> dict[str, Any]:
    """What the actors of such a spec report, and how many there are room for."""
    spec = AnnotateSpec.parse(
        {"input": "in", "output": "out", "run_id": "r", "prompts": ["ocr"], "cpus_per_actor": 0.1}
        | fields
    )
    worker = f"{__spec__.name}:{Reporter.__name__}"
    options = actor_options(spec.actor_resources, spec.actor_labels)
    remote: Any = ray.remote(ShardProcess).options(**options)
    actors = [
        remote.remote(worker, spec.accelerators_per_actor["TPU"])
        for _ in range(target_actor_count(spec))
    ]
    try:
        reports = [dict(report) for report in ray.get([a.load.remote() for a in actors])]
        return {"reports": reports}
    except Exception as error:
        return {"error": str(error.__cause__ or error)}
    finally:
        for actor in actors:
            ray.kill(actor)


if __name__ == "__main__":
    cluster = Cluster()
    start(cluster, HOSTS)
    ray.init(cluster.address, log_to_driver=False)
    host = {"placement": "host", "accelerator_type": "v5e"}
    chip = {"placement": "chip", "accelerator_type": "v5e"}
    cases: list[dict[str, Any]] = [
        {**host, "topology": "4x4"},
        {**chip, "topology": "4x4"},
        {**host, "topology": "2x4"},
        {"accelerators_per_actor": {"TPU": 2}, "accelerator_type": "v5e", "topology": "2x4"},
        {"accelerators_per_actor": {"TPU": 2}, "actors": 6},  # two of them on the larger slice
    ]
    print(json.dumps([found(**case) for case in cases]))
    with tempfile.TemporaryDirectory() as folder:
        plant(cluster, Path(folder))
        print(json.dumps(examine(None, None)))
    ray.shutdown()
    cluster.shutdown()
