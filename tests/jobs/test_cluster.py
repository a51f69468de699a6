"""What an actor takes of the cluster that it finds."""

import os

import pytest

from paliflow.jobs.cluster import share_cores
from paliflow.tests.jobs.conftest import SpecFactory


def test_an_actor_starts_threads_for_its_share_of_the_cores(
    cluster: str, make_spec: SpecFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a cluster with two."""

    def threads(**fields: object) -> str | None:
        monkeypatch.setenv("PJRT_NPROC", "")  # so that it is restored
        monkeypatch.delenv("PJRT_NPROC")
        share_cores(make_spec(input="-", **fields))
        return os.environ.get("PJRT_NPROC")

    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert threads() == "2"
    assert threads(actors=2) == "1"
    assert threads(actors=3, cpus_per_actor=4) == "4"
    assert threads(actors=1, cpus_per_actor=16) == "8"  # a host has no more
    assert threads(accelerators_per_actor={"TPU": 4}, actors=1) is None
    monkeypatch.setenv("PJRT_NPROC", "5")
    share_cores(make_spec(input="-"))
    assert os.environ["PJRT_NPROC"] == "5"
