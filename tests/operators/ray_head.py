"""A real Ray head with dashboard and token, started once for all tests that need a cluster."""

import atexit
import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from paliflow.tests.waiting import until

TOKEN = "a-token-for-tests-that-is-long-enough"
# Never the same port twice: Ray binds some of its own long after it answers. Two processes of tests
# take turns among the numbers.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_FIRST = 7000 + os.getpid() % 2000
_PORTS = iter(range(_FIRST - _FIRST % _WORKERS + _WORKER, 10000, _WORKERS))
_OBJECT_STORE_BYTES = 2**28


@functools.cache
def ray_head() -> int:
    """The port of its dashboard. Two CPUs, in its own session and folder; ended at exit."""
    folder = tempfile.mkdtemp(prefix="ray-")
    dashboard = free_port()
    log = Path(folder, "start.log")
    with log.open("wb") as output:
        head = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                *("--num-cpus", "2", "--disable-usage-stats", "--temp-dir", folder),
                *("--object-store-memory", str(_OBJECT_STORE_BYTES)),
                *("--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1"),
                *("--dashboard-port", str(dashboard), "--port", str(free_port())),
                *("--dashboard-agent-listen-port", str(free_port())),
                *("--dashboard-agent-grpc-port", str(free_port())),
                *("--metrics-export-port", str(free_port())),
                *("--ray-client-server-port", str(free_port())),
                *("--min-worker-port", "0", "--max-worker-port", "0"),
            ],
            env={
                **os.environ,
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": TOKEN,
                "RAY_USAGE_STATS_ENABLED": "0",
                # A raylet gives up when its agent is late; on a busy machine it is.
                "RAY_agent_register_timeout_ms": "300000",
                # A job's `python` is the cluster's.
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @atexit.register
    def end() -> None:
        end_session(head)
        shutil.rmtree(folder, ignore_errors=True)

    # The dashboard answers long before, while the node may still fail to start.
    started = "Ray runtime started"
    until(lambda: started in log.read_text(), 240, running=head, said=log.read_text, every_s=0.5)
    return dashboard


def free_port() -> int:
    """A free TCP port below 10000, where Ray's workers never look for theirs."""
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise RuntimeError("no free port")


def end_session(leader: subprocess.Popen[bytes], grace_s: float = 10.0) -> None:
    """Ends every process of the session that `leader` was started in."""
    for number, patience in ((signal.SIGTERM, grace_s), (signal.SIGKILL, grace_s)):
        deadline = time.monotonic() + patience
        while members := session_members(leader.pid):
            for pid in members:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
            leader.poll()
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)


def session_members(session: int) -> list[int]:
    """Processes of a session that are alive; zombies are not."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, member_of = stat.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(member_of) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found
