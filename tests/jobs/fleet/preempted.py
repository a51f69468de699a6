"""An annotation run on two nodes, one of which is drained as a preemption is. A script.

`python -m paliflow.tests.jobs.fleet.preempted FOLDER` annotates what is in FOLDER/images, and
prints what of its metrics Prometheus would find on the nodes, then its summary.
"""

import json
import os
import re
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray._private import state
from ray.cluster_utils import Cluster
from rich.console import Console

from paliflow.configs.summary import LABELS_VARIABLE
from paliflow.jobs.annotate.job import annotate
from paliflow.jobs.fleet.cluster import draining_nodes
from paliflow.tests.jobs.conftest import small_spec

_PREEMPTION = 2
"""`DRAIN_NODE_REASON_PREEMPTION`."""


def drain_one(location: Path) -> None:
    """Once some parts are there, drains a node that has an actor, with 15 seconds' notice."""
    while len([*location.glob("part-*")]) < 3:
        time.sleep(0.1)
    alive = [each for each in state.actors().values() if each["State"] == "ALIVE"]
    drain(alive[0]["Address"]["NodeID"])


def drain(node: str) -> None:
    """Announces that a node is taken away in 15 seconds."""
    deadline_ms = int((time.time() + 15) * 1000)
    worker: Any = ray._private.worker.global_worker
    client = worker.gcs_client
    accepted, why = client.drain_node(node, _PREEMPTION, "a test", deadline_ms)
    assert accepted, why
    print("drained", node, draining_nodes(), flush=True)


def scraped() -> list[str]:
    """The lines of Paliflow's metrics on all nodes, once they are no more than a minute late."""
    deadline, found = time.monotonic() + 60, set[str]()
    while time.monotonic() < deadline and "ray_paliflow_preemptions_total" not in str(found):
        time.sleep(1)
        for node in ray.nodes():
            url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            with suppress(OSError), urllib.request.urlopen(url, timeout=5) as response:
                found.update(re.findall(r"^ray_paliflow_.*", response.read().decode(), re.M))
    return sorted(found)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    os.environ |= {"RAY_AUTH_MODE": "disabled", "JAX_PLATFORMS": "cpu"}
    os.environ |= {"RAY_metrics_report_interval_ms": "1000"}
    os.environ[LABELS_VARIABLE] = '{"dag": "weekly", "task": "annotate"}'
    cluster = Cluster()
    cluster.add_node(num_cpus=0)
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    spec = small_spec(
        folder / "output", input=str(folder / "images"), shard_size=4, batch_size=2, actors=2
    )
    ray.init(cluster.address, log_to_driver=False)
    threading.Thread(target=drain_one, args=(Path(spec.location),), daemon=True).start()
    summary = annotate(spec, Console(force_terminal=False))
    print(json.dumps(scraped()))
    print(summary.model_dump_json())
    ray.shutdown()
    cluster.shutdown()
