"""A job as a child process of the task, with Ray started inside it."""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from paliflow.configs.base import Spec
from paliflow.configs.summary import SPEC_VARIABLE
from paliflow.operators.outcome import TAIL_LINES, Logger, outcome, relay

GRACE_S = 3.0
"""Between SIGTERM and SIGKILL; Airflow itself kills a task 5 s after it asked it to end."""


def start(job: str, spec: Spec, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Starts `python -m paliflow.jobs JOB` as the leader of a process group.

    Args:
        job: its name.
        spec: what it does.
        environment: variables besides this process's own.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "paliflow.jobs", job],
        env={
            **os.environ,
            **environment,
            SPEC_VARIABLE: spec.model_dump_json(),
            "PYTHONUNBUFFERED": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


def follow(process: subprocess.Popen[str], log: Logger) -> dict[str, Any]:
    """Relays the output until the process ends; its `outcome`."""
    assert process.stdout
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    for line in process.stdout:
        tail.append(line.rstrip("\n"))
        relay([tail[-1]], log)
    code = process.wait()
    return outcome("SUCCEEDED" if code == 0 else "FAILED", f"exit code {code}", code, [*tail])


def terminate(process: subprocess.Popen[str]) -> None:
    """Ends the whole process group: SIGTERM, then SIGKILL for whoever is left."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    # The leader's end is not the group's: Ray's agents outlive SIGTERM while they look for a GCS
    # that ended before them, for up to a minute.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
