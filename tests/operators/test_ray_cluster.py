"""A cluster that several tasks share: made, used by its RayJobs, and gone whatever happens."""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.bases.operator import TriggerFailureReason
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    TaskDeferralTimeout,
    TaskDeferred,
)

from paliflow.operators import CreateRayClusterOperator, DeleteRayClusterOperator, kubernetes
from paliflow.operators.hook import RayJobError
from paliflow.operators.ray_cluster_trigger import RayClusterTrigger
from paliflow.operators.rayjob_trigger import RayClusterJobTrigger
from paliflow.tests.operators import dag_run
from paliflow.tests.operators.fake_kubernetes import FakeKubernetes
from paliflow.tests.operators.fake_kubernetes import kubernetes as served
from paliflow.tests.operators.test_on_ray import Store
from paliflow.tests.operators.test_rayjob import CLUSTER, JOB, context, follow, operator


@pytest.fixture
def fake() -> Iterator[FakeKubernetes]:
    with served([sys.executable, "-c", JOB]) as fake:
        yield fake


def create(**fields: Any) -> CreateRayClusterOperator:
    given: dict[str, Any] = {"cluster": CLUSTER, "poll_interval": 0.01, "deferrable": True} | fields
    return CreateRayClusterOperator(task_id="create", **given)


def deferred(store: Store, max_tries: int = 0, **fields: Any) -> RayClusterTrigger:
    """What a try of the task waits with."""
    with pytest.raises(TaskDeferred) as left:
        create(**fields).execute(context(store, max_tries))
    path, kwargs = left.value.trigger.serialize()
    assert path == f"{RayClusterTrigger.__module__}.RayClusterTrigger"
    return RayClusterTrigger(**json.loads(json.dumps(kwargs)))


def test_tasks_share_a_cluster_which_ends_with_the_last(fake: FakeKubernetes) -> None:
    with DAG("on_a_shared_cluster", schedule=None) as dag:
        made = create()
        used = operator(cluster=made.output)
        ended = DeleteRayClusterOperator(task_id="delete", cluster=made.output)
        made >> used >> ended.as_teardown(setups=made)
    finished = dag_run.run(dag)
    assert finished.state == "success"
    assert not fake.rayclusters
    assert not fake.rayjobs
    assert fake.asked["POST"] == fake.asked["DELETE"] == 2
    (name,) = {ti.xcom_pull(task_ids="create")["name"] for ti in finished.get_task_instances()}
    assert fake.chosen == [name]


def test_a_try_after_a_lost_worker_adopts_the_cluster(fake: FakeKubernetes) -> None:
    store = Store()
    first, second = deferred(store), deferred(store)
    assert [*fake.rayclusters] == [first.cluster["name"]] == [second.cluster["name"]]
    event = follow(second)
    assert event == {"name": first.cluster["name"], "error": None}
    made = create().execute_complete(context(store), event)
    assert made == first.cluster
    assert made["deadline"] == CLUSTER.deadline
    # Once a user clears the task, another is made in its place.
    third = deferred(store, max_tries=1)
    assert [*fake.rayclusters] == [third.cluster["name"]] != [first.cluster["name"]]


def test_hosts_that_do_not_come_fail_the_task_and_leave_no_cluster(fake: FakeKubernetes) -> None:
    fake.hosts_come = False
    store = Store()
    trigger = deferred(store)
    trigger.until = 0.0
    event = follow(trigger)
    with pytest.raises(AirflowException, match=r"did not come .* 1 of 4 hosts are ready"):
        create().execute_complete(context(store), event)
    assert not fake.rayclusters
    assert not store


def test_a_cluster_whose_task_is_ended_or_given_up_is_deleted(
    fake: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "STARTING_S", 0.2)
    store = Store()
    trigger = deferred(store)
    asyncio.run(trigger.on_kill())
    assert not fake.rayclusters
    assert follow(trigger)["error"].startswith("somebody has deleted it")
    deferred(store)
    lost = {"error": TriggerFailureReason.TRIGGER_TIMEOUT}
    with pytest.raises(TaskDeferralTimeout):
        create().resume_execution("__fail__", lost, context(store))
    assert not fake.rayclusters


def test_a_creation_whose_answer_is_lost_leaves_no_cluster(fake: FakeKubernetes) -> None:
    fake.faults.append(("POST", 0))
    store = Store()
    with pytest.raises(RayJobError):
        create().execute(context(store))
    assert not fake.rayclusters
    assert not store


def test_a_creation_that_comes_after_its_answer_was_given_up_leaves_no_cluster(
    fake: FakeKubernetes,
) -> None:
    tasks = [(create(), "RayCluster", fake.rayclusters), (operator(), "RayJob", fake.rayjobs)]
    for task, kind, objects in tasks:
        store = Store()
        fake.asked.clear()
        # What was asked for is not done yet as the client stops waiting for it.
        fake.late = []

        def arrive() -> None:
            while fake.asked["DELETE"] < 1:
                time.sleep(0.01)
            fake.arrive()

        arriving = threading.Thread(target=arrive)
        arriving.start()
        with pytest.raises(RayJobError, match="HTTP 504"):
            task.execute(context(store))
        arriving.join()
        assert fake.made.pop()[0] == kind
        assert not objects
        assert not store


def test_a_cluster_is_kept_for_the_next_try_where_it_cannot_be_asked_for(
    fake: FakeKubernetes,
) -> None:
    store = Store()
    trigger = deferred(store, max_tries=1)
    for max_tries, left in ((1, [trigger.cluster["name"]]), (0, [])):
        store["ray_cluster"]["max_tries"] = max_tries
        fake.faults.append(("GET", 503))
        with pytest.raises(RayJobError, match="HTTP 503"):
            create().execute(context(store, max_tries))
        # Without another try, nobody would end it.
        assert [*fake.rayclusters] == left


def test_a_job_whose_cluster_is_gone_says_which_task_to_clear(fake: FakeKubernetes) -> None:
    made = create().execute_complete(context(Store()), {"name": "gone", "error": None})
    with pytest.raises(TaskDeferred) as left:
        operator(cluster=made).execute(context(Store()))
    event = follow(left.value.trigger)
    assert event["status"] == "LOST"
    assert "Clear the task that makes it" in event["message"]


SLEEP = [sys.executable, "-c", "import time; time.sleep(300)"]


def on_shared(store: Store, name: str) -> RayClusterJobTrigger:
    """What a try of a task on a shared cluster waits with."""
    made = create().execute_complete(context(Store()), {"name": name, "error": None})
    with pytest.raises(TaskDeferred) as left:
        operator(cluster=made).execute(context(store))
    trigger = left.value.trigger
    assert isinstance(trigger, RayClusterJobTrigger)
    return trigger


def test_a_job_that_was_stopped_on_a_shared_cluster_has_a_successor_of_another_name(
    fake: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "STARTING_S", 0.2)
    name = deferred(Store()).cluster["name"]
    fake.command = SLEEP
    store = Store()
    stopped = on_shared(store, name)
    while stopped.submission_id not in fake.processes:
        fake.look(stopped.submission_id)
    # A user clears the task while it waits on a worker, which leaves its `max_tries` as it is.
    asyncio.run(stopped.on_kill())
    fake.command = [sys.executable, "-c", JOB]
    assert follow(on_shared(store, name))["status"] == "SUCCEEDED"
    # So has a shared cluster itself, whose pods may not all be gone yet.
    store = Store()
    first = deferred(store)
    asyncio.run(first.on_kill())
    assert deferred(store).cluster["name"] != first.cluster["name"]


def test_a_job_under_which_its_shared_cluster_is_deleted_is_lost(fake: FakeKubernetes) -> None:
    name = deferred(Store()).cluster["name"]
    fake.command = SLEEP
    trigger = on_shared(Store(), name)
    while trigger.submission_id not in fake.processes:
        fake.look(trigger.submission_id)
    del fake.rayclusters[name]
    event = follow(trigger)
    assert (event["status"], event["exit_code"]) == ("LOST", None)


def test_a_cluster_that_cannot_be_deleted_is_not_forgotten(fake: FakeKubernetes) -> None:
    store = Store()
    trigger = deferred(store, max_tries=1)
    fake.faults.append(("DELETE", 403))
    event = {"name": trigger.cluster["name"], "error": "it cannot be looked at"}
    with pytest.raises(AirflowException, match="it cannot be looked at"):
        create().execute_complete(context(store, max_tries=1), event)
    assert deferred(store, max_tries=1).cluster == trigger.cluster
    assert len(fake.made) == 1


def test_an_object_that_the_schema_refuses_is_not_tried_again(fake: FakeKubernetes) -> None:
    fake.faults.append(("POST", 422))
    with pytest.raises(AirflowFailException, match="HTTP 422; the object is not what KubeRay's"):
        create().execute(context(Store()))


def test_what_is_no_cluster_is_refused(fake: FakeKubernetes) -> None:
    with pytest.raises(ValueError, match="cluster='gke': a RayJobCluster, which says"):
        create(cluster="gke")
    refused: list[tuple[Any, str]] = [
        ({"name": "A B"}, "name='A B': .*Kubernetes takes lower-case letters"),
        (CLUSTER.model_dump(), "give the output of a CreateRayClusterOperator"),
        ("gke", "cluster='gke': a RayJobCluster, or what CreateRayClusterOperator returns"),
    ]
    for given, said in refused:
        delete: Any = DeleteRayClusterOperator(task_id="delete", cluster=given)
        with pytest.raises(AirflowFailException, match=said):
            delete.execute(context(Store()))
