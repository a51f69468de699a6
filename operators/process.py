"""A job as a child process of the task, with Ray started inside it."""

import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from importlib.metadata import version
from typing import Any

from paliflow.configs.base import Spec
from paliflow.configs.log_lines import FORMAT_VARIABLE
from paliflow.configs.summary import VERSION_VARIABLE
from paliflow.operators.outcome import TAIL_LINES, Logger, outcome, relay

GRACE_S = 3.0
"""Between SIGTERM and SIGKILL; Airflow itself kills a task 5 s after it asked it to end."""


INHERITED = (
    *("HOME", "USER", "LOGNAME", "PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV"),
    *("PYTHON*", "TMPDIR", "TZ", "LANG", "LANGUAGE", "LC_*"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("GOOGLE_*", "CLOUDSDK_*", "GCE_METADATA_*", "STORAGE_EMULATOR_HOST"),
    *("JAX_*", "XLA_*", "PJRT_*", "LIBTPU_*", "TPU_*", "CUDA_*", "NVIDIA_*", "NCCL_*"),
    *("RAY_*", "OMP_*", FORMAT_VARIABLE),
)
"""Patterns of the worker's variables that a job gets; Airflow's own hold its secrets."""


def start(
    job: str, spec: Spec, environment: Mapping[str, str], pass_env: Iterable[str] = ()
) -> subprocess.Popen[str]:
    """Starts `python -m paliflow.jobs JOB` as the leader of a process group.

    Args:
        job: its name.
        spec: what it does; what of it was given goes to the job's standard input.
        environment: variables besides those of this process that it inherits.
        pass_env: patterns of those besides `INHERITED`.
    """
    patterns = (*INHERITED, *pass_env)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    own = {VERSION_VARIABLE: version("paliflow"), "PYTHONUNBUFFERED": "1"}
    # A variable or an argument would hold 128 KiB at most, and a pipe would have to be fed.
    with tempfile.TemporaryFile() as file:
        file.write(spec.given().encode())
        file.seek(0)
        return subprocess.Popen(
            [sys.executable, "-m", "paliflow.jobs", job, "-"],
            env={**inherited, **environment, **own},
            stdin=file,
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
