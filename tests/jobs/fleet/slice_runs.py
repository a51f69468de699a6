"""Runs on two hosts of one TPU slice and two single hosts, faked on a CPU. A script.

`python -m paliflow.tests.jobs.fleet.slice_runs PART FOLDER` annotates what is in FOLDER/images or
in FOLDER/few or trains on FOLDER/train.jsonl, on single hosts and on the slice. Meanwhile it kills
and stops the slice's processes; or hosts are held by others and taken away. It prints what came of
it as JSON, in the last line.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]
import pyarrow.parquet as pq
import ray
from ray._private import state
from ray.cluster_utils import Cluster
from rich.console import Console

from paliflow.configs import FineTuneSpec
from paliflow.jobs.finetune import worker_group
from paliflow.jobs.finetune.job import finetune
from paliflow.jobs.finetune.log import read_log
from paliflow.jobs.fleet import shards
from paliflow.jobs.fleet.slice_process import SliceProcess
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


class Impatient(SliceProcess):
    """Notices silence sooner, since it is awaited four times."""

    SILENCE_S = 8.0


class Event(NamedTuple):
    """What befalls a process of the slice."""

    rank: int
    signal: signal.Signals
    computing: bool
    """Whether in a collective; else while nothing is computed."""


EVENTS = [
    Event(rank, kill, computing)
    for computing in (False, True)
    for kill in (signal.SIGKILL, signal.SIGSTOP)
    for rank in (0, 1)
]
SLICE: dict[str, Any] = {"placement": "slice", "topology": "2x2x2", "model_parallel": 4}


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


def members() -> dict[str, int]:
    """The pids of the slice's processes, by the host's number."""
    return {number: each["Pid"] for number, each in on_slice()}


def disturb(location: Path, seconds: list[float], seen: set[int]) -> None:
    """Kills or stops a process for each event, and takes the time until others have done a part."""
    pause, steps = location.parent / "pause", location.parent / "steps"
    steps.parent.mkdir(parents=True, exist_ok=True)
    steps.touch()
    for event in EVENTS:
        pause.touch()
        while not (location.parent / f"paused {members().get('0')}").exists():
            time.sleep(0.1)
        before = members()
        seen |= set(before.values())
        if event.computing:  # the first process waits in a collective for the second
            os.kill(before["1"], signal.SIGSTOP)
            pause.unlink()
        time.sleep(1.0)
        begun = time.monotonic()
        os.kill(before[str(event.rank)], event.signal)
        if event.computing and event.rank == 0:  # now the second does for the first
            os.kill(before["1"], signal.SIGCONT)
        pause.unlink(missing_ok=True)
        while members().get("0") in (None, before["0"]):
            time.sleep(0.3)
        done = parts(location)
        while parts(location) == done:
            time.sleep(0.1)
        # As it would be on a machine that has nothing else to do.
        busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        seconds.append((time.monotonic() - begun) / busy)
        print(f"{event}: {seconds[-1]:.1f} s, times {busy:.1f}", flush=True)
    steps.unlink()


def runs(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def parts(location: Path) -> int:
    """How many shards are done."""
    return len([*location.glob("part-*")])


def rows(location: str) -> list[Any]:
    """What a run has answered, in its order; without the images' folder."""
    names = ["source_uri", "prompt", "text", "status", "error"]
    files = sorted(Path(location).glob("part-*"))
    found = [row for part in files for row in pq.read_table(part, columns=names).to_pylist()]
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
    while parts(location) < 3:
        time.sleep(0.1)
    drain(dict(on_slice())["1"]["Address"]["NodeID"])


def hosts(cluster: Cluster, name: str) -> list[Any]:
    """The nodes of a slice."""
    labels = {node["NodeID"]: node["Labels"] for node in ray.nodes()}
    return [
        node
        for node in cluster.worker_nodes
        if labels[node.node_id].get("ray.io/tpu-slice-name") == name
    ]


def preempt(cluster: Cluster, waits: Path) -> None:
    """Takes a single host away, with a notice, from a training that has a worker on each of two."""
    (host,) = hosts(cluster, "c")
    while not waits.exists():
        time.sleep(0.1)
    drain(host.node_id)
    time.sleep(14)
    cluster.remove_node(host)


def trained(folder: Path, run_id: str, **fields: Any) -> dict[str, Any]:
    """What comes of a training on TPU hosts of four chips."""
    spec = training(folder, run_id, **fields)
    finetune(spec, Console(force_terminal=False))
    return {
        "losses": [line["loss"] for line in read_log(spec.location) if "loss" in line],
        "workers": Path(spec.location, "workers").read_text().splitlines(),
    }


def training(folder: Path, run_id: str, **fields: Any) -> FineTuneSpec:
    """A short one, on TPU hosts of four chips."""
    common: dict[str, Any] = {
        "run_id": run_id,
        "topology": "2x2x1",
        "accelerators_per_worker": {"TPU": 4},
        "accelerator_type": "v4",
        "cpus_per_worker": 0.5,
        "batch_size": 8,
        "validation": {},
    }
    return finetune_spec(folder, **common | fields)


def annotated(
    folder: Path, run_id: str, meanwhile: Callable[[Path], None] | None = None, **fields: Any
) -> dict[str, Any]:
    """What comes of a run over images, while something else is done to it in a thread."""
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
    if meanwhile:
        threading.Thread(target=meanwhile, args=(Path(spec.location),), daemon=True).start()
    summary = annotate(spec, Console(force_terminal=False))
    return {"rows": rows(spec.location), "preemptions": summary.preemptions}


def disturbances(_: Cluster, folder: Path) -> dict[str, Any]:
    """Annotates on the slice while its processes are killed and stopped."""
    found: dict[str, Any] = {"seconds": list[float](), "left": set[int]()}
    meanwhile = partial(disturb, seconds=found["seconds"], seen=found["left"])
    found["disturbed"] = annotated(folder, "disturbed", meanwhile, **SLICE, prompts=["caption en"])
    time.sleep(1)
    return found | {"left": [pid for pid in found["left"] if runs(pid)]}


def losses_of_hosts(cluster: Cluster, folder: Path) -> dict[str, Any]:
    """Annotates on single hosts, and few images on two hosts, which others have, or of which one
    goes; then trains on one host and on the slice."""
    host: dict[str, Any] = {"placement": "host", "topology": "2x2x1", "model_parallel": 2}
    found = {"host": annotated(folder, "host", **host)}
    few: dict[str, Any] = {**SLICE, "input": str(folder / "few")}
    where = {"ray.io/tpu-slice-name": "slice-a", "ray.io/tpu-worker-id": "1"}
    options: dict[str, Any] = {"num_cpus": 0, "resources": {"TPU": 1}, "label_selector": where}
    tenant: Any = ray.remote(**options)(Tenant).remote()
    ray.get(tenant.here.remote())
    threading.Thread(target=leave, args=(tenant,), daemon=True).start()
    found["copies"] = annotated(folder, "copies", **few | {"model_parallel": 2})  # one on each
    add(cluster, HOSTS[1])
    found["drained"] = annotated(folder, "drained", drain_second, **few)
    found["one"] = trained(folder, "one")
    return found | {"two": trained(folder, "two", topology="2x2x2", workers=2)}


def lost_worker(cluster: Cluster, folder: Path) -> dict[str, Any]:
    """Trains on one host, and on two single ones of which one is lost."""
    found = {"one": trained(folder, "one")}
    fields: dict[str, Any] = {"workers": 2, "min_workers": 1, "save_every": {"steps": 12}}
    waits = Path(training(folder, "elastic", **fields).location, "waits")
    threading.Thread(target=preempt, args=(cluster, waits), daemon=True).start()
    return found | {"elastic": trained(folder, "elastic", **fields)}


PARTS = {
    "disturbances": (disturbances, HOSTS[:2]),
    "losses of hosts": (losses_of_hosts, HOSTS),
    "lost worker": (lost_worker, HOSTS[2:]),
}
"""Each in a process and on a cluster of its own, of such hosts."""


def main(part: str, folder: Path) -> dict[str, Any]:
    os.environ["JAX_NUM_CPU_DEVICES"] = "2"
    cluster = Cluster()
    act, hosts = PARTS[part]
    start(cluster, hosts)
    ray.init(cluster.address, log_to_driver=False)
    found = act(cluster, folder)
    ray.shutdown()
    cluster.shutdown()
    return found


if __name__ == "__main__":
    # Only here: whoever imports it accepts CPUs for TPUs.
    from paliflow.jobs.annotate import actor
    from paliflow.tests.jobs.fleet import cpu_slices, cpu_training

    actor.Annotator = cpu_slices.CpuAnnotator  # type: ignore[misc]
    vars(worker_group).update(work=cpu_training.work)
    vars(shards).update(SliceProcess=Impatient)
    from paliflow.jobs.annotate.job import annotate

    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
