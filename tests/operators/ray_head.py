"""A real Ray head with dashboard and token, started once for all tests that need a cluster."""

import atexit
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

import httpx

TOKEN = "a-token-for-tests-that-is-long-enough"


@functools.cache
def ray_head() -> int:
    """The port of its dashboard. Two CPUs, in its own session and folder; ended at exit."""
    folder = tempfile.mkdtemp(prefix="ray-")
    ports = iter(free_ports(6))
    dashboard = next(ports)
    log = Path(folder, "start.log")
    with log.open("wb") as output:
        head = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                *("--num-cpus", "2", "--disable-usage-stats", "--temp-dir", folder),
                *("--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1"),
                *("--dashboard-port", str(dashboard), "--port", str(next(ports))),
                *("--dashboard-agent-listen-port", str(next(ports))),
                *("--dashboard-agent-grpc-port", str(next(ports))),
                *("--metrics-export-port", str(next(ports))),
                *("--ray-client-server-port", str(next(ports))),
                *("--min-worker-port", "0", "--max-worker-port", "0"),
            ],
            env={
                **os.environ,
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": TOKEN,
                "RAY_USAGE_STATS_ENABLED": "0",
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

    url = f"http://127.0.0.1:{dashboard}/api/jobs/"
    deadline = time.monotonic() + 90
    while True:
        try:
            if httpx.get(url, headers={"Authorization": f"Bearer {TOKEN}"}).is_success:
                return dashboard
        except httpx.TransportError:
            pass
        assert head.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)


def free_ports(count: int) -> list[int]:
    """Free TCP ports below 10000, where Ray's workers never look for theirs."""
    found: list[int] = []
    for port in range(7000 + os.getpid() % 2000, 9999):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


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
