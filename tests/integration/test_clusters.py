"""Clusters that Airflow's real parts make at a Kubernetes API: none is left, whoever is killed."""

import json
import sys
from collections import Counter
from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest

from paliflow.tests.integration.conftest import Services
from paliflow.tests.integration.test_airflow_and_ray import PATIENCE_S, Run, restart
from paliflow.tests.operators.fake_kubernetes import FakeKubernetes

pytestmark = pytest.mark.slow

SUMMARY = {"run_id": "r", "location": "gs://out/run_id=r", "rows": 1, "errors": 0}
BRIEF = f"import time; time.sleep(8); print('paliflow-summary: {json.dumps(SUMMARY)}')"
"""Stands for a job, where what it writes is not looked at."""


@pytest.fixture
def fake(services: Services) -> Iterator[FakeKubernetes]:
    """With nothing of other tests; its jobs are brief."""
    fake = services.kubernetes
    assert not fake.rayjobs
    assert not fake.rayclusters
    fake.made.clear()
    fake.command = [sys.executable, "-c", BRIEF]
    yield fake
    fake.hold.set()
    fake.held, fake.delay_s, fake.hosts_come = {"POST"}, 0.0, True
    fake.faults.clear()
    for name in [*fake.rayjobs]:
        fake.delete(name)
    fake.rayclusters.clear()


def until_made(services: Services, kind: str = "RayJob") -> str:
    """The name of the one object, once it is there."""
    found = services.kubernetes.rayjobs if kind == "RayJob" else services.kubernetes.rayclusters
    services.until(lambda: found, PATIENCE_S)
    (name,) = found
    return name


def until_gone(services: Services) -> None:
    fake = services.kubernetes
    services.until(lambda: not fake.rayjobs and not fake.rayclusters, PATIENCE_S)


def until_running(services: Services, name: str) -> None:
    """Waits until the job of a RayJob has a process."""
    fake = services.kubernetes
    services.until(lambda: fake.rayjobs[name]["status"].get("jobStatus") == "RUNNING", PATIENCE_S)


def until_polled(services: Services) -> None:
    """Waits until the trigger has looked at the object: the triggerer has it, and not only a row.

    Of a task that is marked before, Airflow runs no trigger, and calls nobody's `on_kill`.
    """
    fake = services.kubernetes
    seen = fake.asked["GET"]
    services.until(lambda: fake.asked["GET"] > seen + 1, PATIENCE_S)


def rows(services: Services, dag: str) -> Counter[str]:
    """How often each image has an answer in what a DAG has written."""
    parts = (services.clusters / dag).glob("run_id=*/part-*.parquet")
    found = [row for part in parts for row in pq.read_table(part).to_pylist()]
    assert {row["status"] for row in found} == {"ok"}
    return Counter(row["source_uri"].rpartition("/")[2] for row in found)


def images(services: Services) -> Counter[str]:
    """Each image once."""
    return Counter(path.name for path in (services.clusters / "images").iterdir())


def test_worker_killed_as_it_creates_and_triggerer_as_it_waits_leave_one_cluster_and_all_rows(
    services: Services, fake: FakeKubernetes
) -> None:
    fake.command = None  # the job itself
    fake.hold.clear()
    run = Run(services, "cluster_killed")
    name = until_made(services)  # and the answer is on its way
    restart(services, "scheduler")
    fake.hold.set()
    services.until(lambda: run.task()["try_number"] == 2, PATIENCE_S)
    until_running(services, name)
    restart(services, "triggerer")
    run.until("success", "failed")
    assert fake.made == [("RayJob", name)]
    until_gone(services)
    assert rows(services, "killed") == images(services)
    assert "hosts are ready" in run.log()


def test_worker_killed_as_it_waits_leaves_its_successor_the_cluster(
    services: Services, fake: FakeKubernetes
) -> None:
    run = Run(services, "cluster_waiting")
    name = until_made(services)
    until_running(services, name)
    restart(services, "scheduler")
    services.until(lambda: run.task()["try_number"] == 2, PATIENCE_S)
    run.until("success", "failed")
    assert fake.made == [("RayJob", name)]
    until_gone(services)


def test_worker_killed_as_it_deletes_leaves_nothing(
    services: Services, fake: FakeKubernetes
) -> None:
    fake.held = {"DELETE"}
    fake.hold.clear()
    run = Run(services, "cluster_finishing")
    name = until_made(services)
    until_gone(services)  # and nobody has heard of it
    restart(services, "scheduler")
    fake.hold.set()
    run.until("success", "failed")
    # The next try cannot know that its predecessor's job had succeeded: it asks again, under the
    # same name, and a run that is finished is told at once.
    assert {*fake.made} == {("RayJob", name)}
    until_gone(services)


def test_marking_a_deferred_task_as_failed_leaves_no_cluster(
    services: Services, fake: FakeKubernetes
) -> None:
    run = Run(services, "cluster_marked")
    run.until("deferred", "failed")
    until_made(services)
    until_polled(services)
    services.airflow.patch(
        f"{run.url}/taskInstances/annotate", json={"new_state": "failed"}
    ).raise_for_status()
    until_gone(services)
    assert len(fake.made) == 1


def test_lost_answers_delays_refusals_and_a_vanished_cluster_cost_no_row(
    services: Services, fake: FakeKubernetes
) -> None:
    fake.command = [sys.executable, "-c", "import time; time.sleep(600)"]
    fake.delay_s = 0.5
    fake.faults.append(("POST", 0))
    run = Run(services, "cluster_unlucky")
    first = until_made(services)
    until_running(services, first)
    fake.faults.extend([("GET", 500), ("GET", 0), ("GET", 403)])
    services.until(lambda: not fake.faults, PATIENCE_S)
    assert fake.made == [("RayJob", first)]
    fake.command = None  # the job itself, from now on
    with fake.lock:
        fake.delete(first)
    run.until("success", "failed")
    assert len(fake.made) > 1  # one more, and again where a busy machine starts no Ray in time
    until_gone(services)
    assert rows(services, "unlucky") == images(services)
    log = "".join(run.log(attempt) for attempt in range(1, run.task()["try_number"]))
    assert "HTTP 403; the account needs the rights of" in log
    assert "The job is LOST: somebody has deleted its RayJob; it was last seen Running" in log


def test_tasks_share_a_cluster_that_is_gone_in_the_end_though_its_deletion_is_refused_at_first(
    services: Services, fake: FakeKubernetes
) -> None:
    fake.faults.extend([("DELETE", 200), ("DELETE", 403)])  # of the RayJob, of the RayCluster
    run = Run(services, "cluster_shared")
    until_made(services, "RayCluster")
    restart(services, "triggerer")
    run.until("success", "failed")
    assert [kind for kind, _ in fake.made] == ["RayCluster", "RayJob"]
    until_gone(services)
    services.until(lambda: run.task(task="delete")["state"] == "success", PATIENCE_S)
    assert run.task(task="delete")["try_number"] == 2


def test_marking_the_creation_as_failed_leaves_no_cluster(
    services: Services, fake: FakeKubernetes
) -> None:
    fake.hosts_come = False
    run = Run(services, "cluster_unwanted")
    until_made(services, "RayCluster")
    services.until(lambda: run.task(task="create")["state"] == "deferred", PATIENCE_S)
    until_polled(services)
    services.airflow.patch(
        f"{run.url}/taskInstances/create", json={"new_state": "failed"}
    ).raise_for_status()
    until_gone(services)
