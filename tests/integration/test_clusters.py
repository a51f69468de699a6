"""Clusters that Airflow's real parts make at a Kubernetes API: none is left, whoever is killed."""

import pytest

from paliflow.tests.integration.conftest import Services
from paliflow.tests.integration.test_airflow_and_ray import PATIENCE_S, Run, restart
from paliflow.tests.operators.fake_kubernetes import FakeKubernetes

pytestmark = pytest.mark.slow


@pytest.fixture
def fake(services: Services) -> FakeKubernetes:
    """With nothing of other tests."""
    assert not services.kubernetes.rayjobs
    assert not services.kubernetes.rayclusters
    services.kubernetes.made.clear()
    return services.kubernetes


def until_gone(services: Services) -> None:
    fake = services.kubernetes
    services.until(lambda: not fake.rayjobs and not fake.rayclusters, PATIENCE_S)


def test_a_triggerer_that_is_killed_leaves_a_task_its_one_cluster(
    services: Services, fake: FakeKubernetes
) -> None:
    run = Run(services, "cluster_made")
    run.until("deferred", "failed")
    services.until(lambda: fake.rayjobs, PATIENCE_S)
    restart(services, "triggerer")
    run.until("success", "failed", "up_for_retry")
    assert len(fake.made) == 1
    until_gone(services)


def test_a_worker_that_is_killed_as_it_creates_leaves_its_successor_the_cluster(
    services: Services, fake: FakeKubernetes
) -> None:
    fake.hold.clear()
    run = Run(services, "cluster_held")
    services.until(lambda: fake.rayjobs, PATIENCE_S)  # made, and the answer is on its way
    restart(services, "scheduler")
    fake.hold.set()
    services.until(lambda: run.task()["try_number"] == 2, PATIENCE_S)
    run.until("success", "failed")
    assert len(fake.made) == 1
    until_gone(services)


def test_marking_a_deferred_task_as_failed_leaves_no_cluster(
    services: Services, fake: FakeKubernetes
) -> None:
    run = Run(services, "cluster_marked")
    run.until("deferred", "failed")
    services.until(lambda: fake.rayjobs, PATIENCE_S)
    services.airflow.patch(
        f"{run.url}/taskInstances/annotate", json={"new_state": "failed"}
    ).raise_for_status()
    until_gone(services)
    assert len(fake.made) == 1


def test_tasks_share_a_cluster_that_is_gone_in_the_end(
    services: Services, fake: FakeKubernetes
) -> None:
    run = Run(services, "cluster_shared")
    services.until(lambda: fake.rayclusters, PATIENCE_S)
    restart(services, "triggerer")
    run.until("success", "failed", "up_for_retry")
    assert [kind for kind, _ in fake.made] == ["RayCluster", "RayJob"]
    until_gone(services)


def test_marking_the_creation_as_failed_leaves_no_cluster(
    services: Services, fake: FakeKubernetes
) -> None:
    fake.hosts_come = False
    run = Run(services, "cluster_unwanted")
    services.until(lambda: fake.rayclusters, PATIENCE_S)
    services.until(lambda: run.task(task="create")["state"] == "deferred", PATIENCE_S)
    services.airflow.patch(
        f"{run.url}/taskInstances/create", json={"new_state": "failed"}
    ).raise_for_status()
    until_gone(services)
    fake.hosts_come = True
