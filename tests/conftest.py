"""Settings of all tests, and what keeps two processes of tests apart."""

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec

import hypothesis
import pytest

# How long an example takes says nothing on a shared machine.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Each process of tests has a folder for its clusters, where Ray notes which one is the current: in
# the one folder of all, a cluster could be another checkout's. Its name is short: Ray's sockets lie
# in it, whose paths may have 107 bytes.
os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
atexit.register(shutil.rmtree, os.environ["RAY_TMPDIR"], ignore_errors=True)

if "PYTEST_XDIST_WORKER" in os.environ:  # a core for each worker's arithmetic
    os.environ.setdefault("PJRT_NPROC", "1")

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # The same small models are compiled in dozens of processes: commands, actors, tasks.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

# XLA takes longer over these small programs than they run: it passes over what makes them faster
# and nothing that they compute. Its older way of making code of fusions takes half the time, and
# one piece of code for a program less than many; a version that does not know the flags would end
# the process.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if version("jaxlib").startswith(("0.10.", "0.12.")):
    _FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    if _FLAGS not in os.environ.get("XLA_FLAGS", ""):  # as in a worker, which inherits them
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}".strip()

if find_spec("jaxtyping") and find_spec("beartype"):  # else tests/model/test_shapes.py fails
    from paliflow.tests.checked_shapes import check_shapes

    check_shapes()

# Millions of objects are made as tests are collected and stay: looking through them again and again
# for what may go takes a tenth of the tests' time.
gc.disable()


def pytest_collection_finish() -> None:
    """Leaves them out of the search from now on."""
    gc.freeze()
    gc.enable()


_SHARED = {"cluster": "jobs", "ray": "operators", "services": "operators"}
"""Fixtures that take long to start: all files with a test that wants one are of this group, and
run in one process."""


@pytest.fixture(scope="session")
def gcs() -> Iterator[None]:
    """A GCS server that clients in this process and in Ray's find, with a bucket `images`."""
    from paliflow.tests.gcs import serve

    with serve() as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        from google.cloud import storage

        storage.Client().create_bucket("images")
        yield


@pytest.hookimpl(wrapper=True)  # xdist looks at the marks in a hook of its own, which comes first
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Keeps a file's tests in one process, for `--dist loadgroup`; the longest files come first."""
    groups = {
        item.path: _SHARED[fixture]
        for item in items
        for fixture in _SHARED.keys() & set(getattr(item, "fixturenames", ()))
        if not item.get_closest_marker("slow")
    }
    airflow = {item.path for item in items if item.path.parent.name in ("dags", "operators")}
    groups |= dict.fromkeys(airflow, "operators")  # which starts once
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups.get(item.path, str(item.path))))
    items.sort(
        key=lambda item: (
            item.path not in groups,
            groups.get(item.path, ""),
            item.path.parent.name not in ("model", "storage", "tests"),  # long files
        )
    )
    yield
