"""Two hosts, one of them in a network of its own: losing it does not lose the run."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pyarrow.parquet as pq
import pytest

from paliflow.configs.summary import SPEC_VARIABLE
from paliflow.tests.jobs.conftest import small_spec
from paliflow.tests.jobs.files import write_mixed
from paliflow.tests.operators.ray_head import free_port
from paliflow.tests.waiting import until

_HERE, _THERE = "10.213.7.1", "10.213.7.2"
_NAMESPACE = "paliflow-test"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("ip"), reason="network namespaces need root and `ip`"
    ),
]


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


@pytest.fixture(scope="module")
def other_host() -> Iterator[list[str]]:
    """A network namespace with a cable to this one; the command that runs another in it."""
    with contextlib.suppress(subprocess.CalledProcessError):
        ip(f"netns del {_NAMESPACE}")
    ip(f"netns add {_NAMESPACE}")
    try:
        ip(f"link add pali0 type veth peer name pali1 netns {_NAMESPACE}")
        ip(f"addr add {_HERE}/24 dev pali0")
        ip("link set pali0 up")
        ip(f"-n {_NAMESPACE} addr add {_THERE}/24 dev pali1")
        ip(f"-n {_NAMESPACE} link set pali1 up")
        ip(f"-n {_NAMESPACE} link set lo up")
        yield ["ip", "netns", "exec", _NAMESPACE]
    finally:
        ip(f"netns del {_NAMESPACE}")  # and with it the cable


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {
        **os.environ,
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        # A host that is cut off is to be missed soon.
        "RAY_health_check_initial_delay_ms": "2000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_failure_threshold": "15",
    }


@contextlib.contextmanager
def started(
    command: list[str], environment: dict[str, str], says: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, once it has said that; in the end it and all that it started are killed."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=output if says else None
        )
        try:
            if says:

                def said() -> str:
                    return os.pread(output.fileno(), 2**20, 0).decode(errors="replace")

                until(lambda: says in said(), 120, running=process, said=said)
            yield process
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and all that it has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()
    process.wait()


def ray_start(*options: str) -> list[str]:
    return [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options]


@pytest.fixture
def cluster_of_two(
    other_host: list[str], environment: dict[str, str]
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of a head without cores, and the process of a node on the other host.

    A second node is here, so that there is somewhere to go on.
    """
    address = f"{_HERE}:{free_port()}"
    head = ray_start(
        *("--head", "--num-cpus", "0", "--node-ip-address", _HERE, "--include-dashboard=false"),
        *("--port", address.rpartition(":")[2], "--ray-client-server-port", str(free_port())),
    )
    join = ray_start("--address", address, "--num-cpus", "1", "--node-ip-address")
    # One after the other: nodes of one machine that start at once take each other's sockets.
    with (
        started(head, environment, "Ray runtime started"),
        started([*other_host, *join, _THERE], environment, "Ray runtime started") as there,
        started([*join, _HERE], environment, "Ray runtime started"),
    ):
        yield address, there


def annotators_of(host: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [
        child for child in psutil.Process(host.pid).children(recursive=True) if annotates(child)
    ]


def annotates(process: psutil.Process) -> bool:
    try:
        return "ray::Annotator" in (process.cmdline() or [""])[0]
    except psutil.Error:  # it has just ended
        return False


@pytest.mark.parametrize("loss", ["killed", "cut off"])
def test_losing_a_host_does_not_lose_the_run(
    cluster_of_two: tuple[str, subprocess.Popen[bytes]],
    environment: dict[str, str],
    tmp_path: Path,
    loss: str,
) -> None:
    address, there = cluster_of_two
    write_mixed(tmp_path / "images", 200)
    spec = small_spec(
        tmp_path / "output", input=str(tmp_path / "images"), shard_size=4, batch_size=2, actors=2
    )
    job_environment = {
        **environment,
        "RAY_ADDRESS": address,
        SPEC_VARIABLE: spec.model_dump_json(),
    }
    command = [sys.executable, "-m", "paliflow.jobs", "annotate"]
    location = tmp_path / "output" / "run_id=test"
    with started(command, job_environment) as job:
        until(
            lambda: annotators_of(there) and len([*location.glob("part-*")]) >= 5, 300, running=job
        )
        if loss == "killed":
            end(there)
        else:
            ip(f"-n {_NAMESPACE} link set pali1 down")
        assert job.wait(300) == 0
    if loss == "cut off":
        ip(f"-n {_NAMESPACE} link set pali1 up")
    rows = [row for part in location.glob("part-*") for row in pq.read_table(part).to_pylist()]
    assert len(rows) == len({(row["source_uri"], row["prompt"]) for row in rows}) == 400
