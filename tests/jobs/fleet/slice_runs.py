"""Runs on two hosts of one TPU slice and two single hosts, faked on a CPU. A script.

`python -m paliflow.tests.jobs.fleet.slice_runs FOLDER` annotates what is in FOLDER/images and in
FOLDER/few and trains on FOLDER/train.jsonl, on single hosts and on the slice, whose processes it
kills and stops meanwhile. It prints what came of it as JSON, in the last line.
"""

import json
import os
import signal
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
EVENTS = [
    (rank, kill, idle)
    for idle in (True, False)
    for kill in (signal.SIGKILL, signal.SIGSTOP)
    for rank in (0, 1)
]
"""Of which process, which signal, and whether while nothing is computed or in a collective."""


def members() -> dict[str, int]:
    """The pids of the processes on hosts of the slice, by the host's number."""
    return {number: each["Pid"] for number, each in on_slice()}


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


def disturb(location: Path, seconds: list[float], seen: set[int]) -> None:
    """Kills or stops a process for each event, waits for others, and for four parts by them."""
    pause = location.parent / "pause"
    pause.parent.mkdir(parents=True)
    for number, (rank, kill, idle) in enumerate(EVENTS):
        while len([*location.glob("part-*")]) < 4 * number:
            time.sleep(0.1)
        pause.touch()
        before = members()
        while not (location.parent / f"paused {before.get('0')}").exists():
            time.sleep(0.1)
            before = members()
        seen |= set(before.values())
        if not idle:
            if rank == 0:  # it waits in a collective for the other
                os.kill(before["1"], signal.SIGSTOP)
            pause.unlink()
            time.sleep(1.0 if rank == 0 else 0.1)
        os.kill(before[str(rank)], kill)
        if not idle and rank == 0:
            os.kill(before["1"], signal.SIGCONT)
        begun = time.monotonic()
        while len(now := members()) < 2 or set(now.values()) & set(before.values()):
            time.sleep(0.1)
        seconds.append(round(time.monotonic() - begun, 1))
        print("event", number, rank, kill, idle, seconds[-1], flush=True)
        pause.unlink(missing_ok=True)


def rows(location: str) -> list[Any]:
    """What a run has answered, in its order; without the images' folder."""
    names = ["source_uri", "prompt", "text", "status", "error"]
    parts = sorted(Path(location).glob("part-*"))
    found = [row for part in parts for row in pq.read_table(part, columns=names).to_pylist()]
    return [row | {"source_uri": Path(row["source_uri"]).name} for row in found]


def orphans(pids: set[int]) -> list[int]:
    """Those that still run."""

    def runs(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    return [pid for pid in pids if runs(pid)]


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

    seconds, seen = list[float](), set[int]()
    meanwhile: dict[str, Any] = {
        "disturbed": (disturb, seconds, seen),
        "drained": (drain_second,),
    }
    host = {"placement": "host", "topology": "2x2x1", "model_parallel": 2}
    slice_ = {"placement": "slice", "topology": "2x2x2"}
    annotated("host", **host)
    few = str(folder / "few")
    annotated("copies", **slice_, model_parallel=2, input=few)  # two, each on a host
    annotated("disturbed", **slice_, model_parallel=4)
    time.sleep(1)
    found |= {"seconds": seconds, "orphans": orphans(seen)}
    where = {"ray.io/tpu-slice-name": "slice-a", "ray.io/tpu-worker-id": "1"}
    options = {"num_cpus": 0, "resources": {"TPU": 1}, "label_selector": where}
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
    worker_group.work = cpu_slices.work
    from paliflow.jobs.annotate.job import annotate

    print(json.dumps(main(Path(sys.argv[1]))))
