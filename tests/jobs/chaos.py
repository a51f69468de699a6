"""A place to do harm in: a cluster of three nodes and a faulty bucket, in their own processes."""

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
from ray._private.ray_constants import PROCESS_TYPE_RAYLET
from ray.cluster_utils import Cluster

from paliflow import storage
from paliflow.configs import AnnotateSpec
from paliflow.configs.summary import SPEC_VARIABLE
from paliflow.jobs.media.decoder_pool import DECODER_MODULE
from paliflow.jobs.runs.parts import part_uri
from paliflow.storage import gs
from paliflow.tests.jobs.files import write_mixed

INPUTS, SHARD_SIZE = 60, 4
FAULTS = "429=0.01,503=0.02,reset=0.02,cut=0.01,lost=0.01,slow=0.02"
MAX_KILLS = 4
_PAUSE_S = 0.1, 8.0
"""Between two kills."""
_PATIENCE_S = 240
_COMMANDS = {
    "actor": "ray::Annotator",
    "decoder": f".* -m {re.escape(DECODER_MODULE)} ",  # or the server that forks them
    "worker": "ray::",
}


class Arena:
    """The cluster (a head without cores, two nodes with one each) and what can be killed."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]

    def annotate(self, spec: AnnotateSpec, disturb: random.Random | None = None) -> list[str]:
        """Runs jobs until one of them succeeds; returns whom it killed on the way."""
        dice = disturb or random.Random(0)
        kills = dice.randint(1, MAX_KILLS) if disturb else 0
        victims: list[str] = []
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            job = self._start(spec)
            try:
                kill_at = time.monotonic() + dice.uniform(*_PAUSE_S)
                while job.poll() is None:
                    assert time.monotonic() < deadline, f"no end after {victims}"
                    time.sleep(0.3)
                    self._replace_the_dead()
                    if len(victims) < kills and time.monotonic() > kill_at:
                        kill_at = time.monotonic() + dice.uniform(*_PAUSE_S)
                        if victim := self._kill_one(dice, job):
                            victims.append(victim)
            finally:
                job.kill()
            if job.wait() == 0:
                return victims
            assert victims, "a job failed before anything was killed"

    def _start(self, spec: AnnotateSpec) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "paliflow.jobs", "annotate"],
            env={
                **os.environ,
                "RAY_ADDRESS": self._cluster.address,
                SPEC_VARIABLE: spec.model_dump_json(),
            },
        )

    def _kill_one(self, dice: random.Random, job: subprocess.Popen[bytes]) -> str | None:
        kind = dice.choice(["actor", "actor", "decoder", "worker", "raylet", "driver"])
        if kind == "driver":
            job.kill()
            return kind
        if kind == "raylet":
            self._replace(dice.choice(self._nodes))
            return kind
        if not (found := [*self._processes(_COMMANDS[kind])]):
            return None
        dice.choice(sorted(found, key=lambda process: process.pid)).kill()
        return kind

    def _replace(self, node: Any) -> None:
        self._nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._cluster.add_node(num_cpus=1))

    def _replace_the_dead(self) -> None:
        """A raylet ends with some of its helpers."""
        for node in [*self._nodes]:
            if node.dead_processes():
                self._replace(node)

    def _processes(self, pattern: str) -> Iterator[psutil.Process]:
        """Of the nodes; killing one of the head's own would be to lose the cluster."""
        for node in self._nodes:
            for info in node.all_processes[PROCESS_TYPE_RAYLET]:
                with suppress(psutil.Error):  # some have just ended
                    for process in psutil.Process(info.process.pid).children(recursive=True):
                        if re.match(pattern, " ".join(process.cmdline())):
                            yield process


@contextmanager
def arena(folder: Path) -> Iterator[Arena]:
    """Sets up the cluster; its processes share what they compile, in `folder`."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        yield Arena(cluster)
    finally:
        cluster.shutdown()


@contextmanager
def faulty_bucket(images: Path, seed: int) -> Iterator[str]:
    """A bucket `images` with mixed good and broken files, on a server with faults; its URL."""
    command = [sys.executable, "-m", "paliflow.tests.gcs", "--bucket", "images"]
    server = subprocess.Popen(
        [*command, "--faults", FAULTS, "--seed", str(seed)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout
        os.environ["STORAGE_EMULATOR_HOST"] = server.stdout.readline().strip()
        gs._client.cache_clear()  # of another server
        write_mixed(images, INPUTS)
        for path in sorted(images.rglob("*.*")):
            with path.open("rb") as file:
                storage.commit_if_absent(f"gs://images/in/{path.relative_to(images)}", file)
        yield os.environ["STORAGE_EMULATOR_HOST"]
    finally:
        gs._client.cache_clear()
        server.kill()


def rows_of(location: str, shards: int) -> pa.Table:
    """All rows of a run, part after part."""
    tables = []
    for shard in range(shards):
        with storage.open_binary(part_uri(location, shard)) as file:
            tables.append(pq.read_table(file))
    return pa.concat_tables(tables)
