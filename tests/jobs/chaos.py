"""A place to do harm in: a cluster of three nodes and a faulty bucket, in their own processes."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
from ray.cluster_utils import Cluster

from paliflow.configs import AnnotateSpec
from paliflow.configs.summary import SPEC_VARIABLE
from paliflow.jobs import storage
from paliflow.jobs.sink import part_uri
from paliflow.jobs.storage import gs
from paliflow.tests.jobs.files import write_mixed

INPUTS, SHARD_SIZE = 60, 4
FAULTS = "429=0.01,503=0.02,reset=0.02,cut=0.01,lost=0.01,slow=0.02"
MAX_KILLS = 4
_PATIENCE_S = 240


class Arena:
    """The cluster (a head without cores, two nodes with one each) and what can be killed."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]

    def annotate(self, spec: AnnotateSpec, disturb: random.Random | None = None) -> list[str]:
        """Runs jobs until one of them succeeds; returns whom it killed on the way."""
        victims: list[str] = []
        kills = disturb.randint(1, MAX_KILLS) if disturb else 0
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            job = self._start(spec)
            try:
                while job.poll() is None and len(victims) < kills:
                    assert disturb
                    time.sleep(disturb.uniform(0.1, 8.0))
                    if victim := self._kill_one(disturb, job):
                        victims.append(victim)
                code = job.wait(max(1.0, deadline - time.monotonic()))
            finally:
                job.kill()
            if code == 0:
                return victims
            assert disturb, "an undisturbed job failed"
            assert len(victims) > 0, "a job failed before anything was killed"
            assert time.monotonic() < deadline, f"no end after {victims}"

    def _start(self, spec: AnnotateSpec) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "paliflow.jobs"],
            env={
                **os.environ,
                "RAY_ADDRESS": self._cluster.address,
                SPEC_VARIABLE: spec.model_dump_json(),
            },
        )

    def _kill_one(self, dice: random.Random, job: subprocess.Popen[bytes]) -> str | None:
        kind = dice.choice(["actor", "actor", "worker", "raylet", "driver"])
        if kind == "driver":
            job.kill()
            return kind
        if kind == "raylet":
            node = self._nodes.pop(dice.randrange(len(self._nodes)))
            self._cluster.remove_node(node, allow_graceful=False)
            self._nodes.append(self._cluster.add_node(num_cpus=1))
            return kind
        prefix = "ray::Annotator" if kind == "actor" else "ray::"
        found = [
            process
            for process in psutil.process_iter(["cmdline"])
            if (process.info["cmdline"] or [""])[0].startswith(prefix)
        ]
        if not found:
            return None
        dice.choice(sorted(found, key=lambda process: process.pid)).kill()
        return kind


@contextmanager
def arena(folder: Path) -> Iterator[Arena]:
    """Sets up the cluster; its processes share what they compile, in `folder`."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
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
