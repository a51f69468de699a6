"""Runs on two hosts of one TPU slice and two single hosts, faked on a CPU. A script.

`python -m paliflow.tests.jobs.fleet.slice_runs FOLDER` annotates what is in FOLDER/images and in
FOLDER/few and trains on FOLDER/train.jsonl, on single hosts and on the slice, of which hosts are
held by others and taken away meanwhile. It prints what came of it as JSON, in the last line.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import ray
from ray._private import state
from ray.cluster_utils import Cluster
from rich.console import Console

from paliflow.configs import RunSummary
from paliflow.jobs.finetune import worker_group
from paliflow.jobs.finetune.job import finetune
from paliflow.jobs.finetune.log import read_log
from paliflow.tests.jobs.conftest import small_spec
from paliflow.tests.jobs.fleet.fake_slices import add, start
from paliflow.tests.jobs.fleet.preempted import drain
from paliflow.tests.jobs.labelled import finetune_spec

HOSTS = [
    ("slice-a", 0, "2x2x2", "v4-16", 4),
    ("slice-a", 1, "2x2x2", "v4-16", 4),
    ("b", 0, "2x2x1", "v4-8", 4),
    ("c", 0, "2x2x1", "v4-8", 4),
]


def on_slice() -> list[tuple[str, dict[str, Any]]]:
    """The actors on hosts of the slice, and the number of each one's host."""
    labels = {node["NodeID"]: node["Labels"] for node in ray.nodes()}
    alive = [each for each in state.actors().values() if each["State"] == "ALIVE"]
    on = [(labels[each["Address"]["NodeID"]], each) for each in alive]
    return [
        (own["ray.io/tpu-worker-id"], each)
        for own, each in on
        if own.get("ray.io/tpu-slice-name") == "slice-a"
    ]


def rows(location: str) -> list[Any]:
    """What a run has answered, in its order; without the images' folder."""
    names = ["source_uri", "prompt", "text", "status", "error"]
    parts = sorted(Path(location).glob("part-*"))
    found = [row for part in parts for row in pq.read_table(part, columns=names).to_pylist()]
    return [row | {"source_uri": Path(row["source_uri"]).name} for row in found]


class Tenant:
    """Another job's actor on a host of the slice."""

    def here(self) -> None:
        pass


def leave(tenant: Any) -> None:
    """Ends the tenant after a while."""
    time.sleep(13)
    ray.kill(tenant)


def drain_second(location: Path) -> None:
    """Drains the host of the second process, once some parts are there; there is a spare one."""
    while len([*location.glob("part-*")]) < 3:
        time.sleep(0.1)
    drain(dict(on_slice())["1"]["Address"]["NodeID"])


def main(folder: Path) -> dict[str, Any]:
    os.environ["JAX_NUM_CPU_DEVICES"] = "2"
    cluster = Cluster()
    start(cluster, HOSTS)
    ray.init(cluster.address, log_to_driver=False)
    found: dict[str, Any] = {}

    def annotated(run_id: str, **fields: Any) -> RunSummary:
        common = {
            "input": str(folder / "images"),
            "run_id": run_id,
            "shard_size": 1,
            "batch_size": 2,
            "dtype": "float32",
            "sampling": {},
            "cpus_per_actor": 0.5,
            "accelerator_type": "v4",
            "prompts": ["caption en", "detect digit", {"ask": "how many?", "choices": ["1", "2"]}],
        }
        spec = small_spec(folder / run_id, **common | fields)
        if run_id in meanwhile:
            act, *more = meanwhile[run_id]
            threading.Thread(target=act, args=(Path(spec.location), *more), daemon=True).start()
        summary = annotate(spec, Console(force_terminal=False))
        found[run_id] = {"rows": rows(spec.location), "preemptions": summary.preemptions}
        return summary

    meanwhile: dict[str, Any] = {
        "drained": (drain_second,),
    }
    host = {"placement": "host", "topology": "2x2x1", "model_parallel": 2}
    slice_ = {"placement": "slice", "topology": "2x2x2"}
    annotated("host", **host)
    few = str(folder / "few")
    annotated("copies", **slice_, model_parallel=2, input=few)  # two, each on a host
    annotated("slice", **slice_, model_parallel=4)
    where = {"ray.io/tpu-slice-name": "slice-a", "ray.io/tpu-worker-id": "1"}
    options: dict[str, Any] = {"num_cpus": 0, "resources": {"TPU": 1}, "label_selector": where}
    tenant: Any = ray.remote(**options)(Tenant).remote()
    ray.get(tenant.here.remote())
    threading.Thread(target=leave, args=(tenant,), daemon=True).start()
    annotated("tenant", **slice_, model_parallel=4, input=few)
    add(cluster, HOSTS[1])
    annotated("drained", **slice_, model_parallel=4, input=few)
    for name, fields in (
        ("one", {"topology": "2x2x1"}),
        ("two", {"topology": "2x2x2", "workers": 2}),
    ):
        spec = finetune_spec(
            folder,
            run_id=name,
            accelerators_per_worker={"TPU": 4},
            accelerator_type="v4",
            cpus_per_worker=0.5,
            validation={},
            **fields,
        )
        finetune(spec, Console(force_terminal=False))
        found[name] = [line["loss"] for line in read_log(spec.location) if "loss" in line]
    ray.shutdown()
    cluster.shutdown()
    return found


if __name__ == "__main__":
    # Only here: whoever imports it accepts CPUs for TPUs.
    from paliflow.jobs.annotate import actor
    from paliflow.tests.jobs.fleet import cpu_slices

    actor.Annotator = cpu_slices.CpuAnnotator  # type: ignore[misc]
    vars(worker_group).update(work=cpu_slices.work)
    from paliflow.jobs.annotate.job import annotate

    print(json.dumps(main(Path(sys.argv[1]))))
