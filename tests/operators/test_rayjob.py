"""Operators whose cluster is made for them: made once, followed, and gone in the end."""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowTaskTimeout,
    TaskDeferred,
)

from paliflow.configs.base import SpecError
from paliflow.operators import (
    AnnotateOperator,
    CreateRayClusterOperator,
    RayJobCluster,
    process,
    rayjob_trigger,
)
from paliflow.operators import kubernetes as kubernetes_hook
from paliflow.operators.attempts import STATE
from paliflow.operators.hook import RayJobError
from paliflow.operators.rayjob import create_rayjob, delete_object, name_for
from paliflow.operators.rayjob_trigger import RayClusterJobTrigger
from paliflow.operators.readiness import readiness
from paliflow.tests.operators import dag_run
from paliflow.tests.operators.fake_kubernetes import FakeKubernetes, kubernetes
from paliflow.tests.operators.test_on_ray import Store

SUMMARY = {"run_id": "r", "location": "gs://out/run_id=r", "rows": 4, "errors": 0}
JOB = f"""
import os
print("warning: slow")
assert os.environ["PALIFLOW_SPEC"] and os.environ["PALIFLOW_LABELS"]
print('paliflow-summary: {json.dumps(SUMMARY)}')
"""
CLUSTER = RayJobCluster(
    image="i:1", accelerator_type="v5e", topology="4x4", namespace="vision", ray_version="2.60.0"
)


@pytest.fixture
def fake() -> Iterator[FakeKubernetes]:
    with kubernetes([sys.executable, "-c", JOB]) as fake:
        yield fake


def operator(**fields: Any) -> AnnotateOperator:
    defaults = {"input": "gs://in", "output": "gs://out", "prompts": ["ocr"], "run_id": "r"}
    return AnnotateOperator(
        **{"task_id": "annotate", "cluster": CLUSTER, "poll_interval": 0.01, "deferrable": True}
        | defaults
        | fields
    )


class Instance:
    """What an operator asks of its task instance."""

    dag_id, task_id, run_id, map_index, try_number = "d", "annotate", "r", -1, 1
    is_mapped = False
    max_tries = 0

    def xcom_push(self, key: str, value: Any) -> None: ...


def context(store: Store, max_tries: int = 0) -> Any:
    ti = Instance()
    ti.max_tries = max_tries
    return {"ti": ti, "task_state_store": store}


def follow(trigger: Any) -> dict[str, Any]:
    async def go() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(go())
    return dict(payload)


def deferred(store: Store, max_tries: int = 0) -> RayClusterJobTrigger:
    """What a try of the task waits with."""
    with pytest.raises(TaskDeferred) as left:
        operator().execute(context(store, max_tries))
    path, kwargs = left.value.trigger.serialize()
    assert path == f"{RayClusterJobTrigger.__module__}.RayClusterJobTrigger"
    return RayClusterJobTrigger(**json.loads(json.dumps(kwargs)))


def test_a_task_makes_a_cluster_follows_its_job_and_deletes_it(fake: FakeKubernetes) -> None:
    with DAG("on_a_cluster_of_its_own", schedule=None) as dag:
        operator()
    finished = dag_run.run(dag)
    assert finished.state == "success"
    (ti,) = finished.get_task_instances()
    assert ti.xcom_pull(key="rows", task_ids="annotate") == SUMMARY["rows"]
    assert not fake.rayjobs
    assert fake.asked["POST"] == fake.asked["DELETE"] == 1


def test_a_try_after_a_lost_worker_adopts_what_its_predecessor_made(fake: FakeKubernetes) -> None:
    store = Store()
    first, second = deferred(store), deferred(store)
    assert first.submission_id == second.submission_id
    assert len(fake.rayjobs) == 1
    ended = follow(second)
    assert ended["summary"] == SUMMARY
    assert follow(first) == ended  # the trigger of another triggerer


def test_a_try_after_a_lost_worker_takes_up_a_job_that_has_succeeded(fake: FakeKubernetes) -> None:
    store = Store()
    first = deferred(store)
    ended = follow(first)  # and nobody came to hear of it
    second = deferred(store)
    assert follow(second) == ended
    assert fake.made == [("RayJob", first.submission_id)]
    # Its summary is in its log, which goes with its cluster.
    del fake.processes[first.submission_id]
    third = deferred(store)
    assert [*fake.rayjobs] == [third.submission_id] != [first.submission_id]


def test_a_creation_whose_answer_is_lost_is_not_made_twice(fake: FakeKubernetes) -> None:
    fake.faults.append(("POST", 0))
    store = Store()
    with pytest.raises(RayJobError):
        operator().execute(context(store, max_tries=1))
    assert len(fake.rayjobs) == 1
    trigger = deferred(store, max_tries=1)
    assert fake.made == [("RayJob", trigger.submission_id)]
    # Without another try, nobody would adopt it.
    fake.faults.append(("POST", 0))
    with pytest.raises(RayJobError):
        operator().execute(context(Store()))
    assert [*fake.rayjobs] == [trigger.submission_id]
    # Neither is what an earlier try made, if it cannot be looked at.
    fake.faults.append(("GET", 403))
    with pytest.raises(RayJobError):
        operator().execute(context(store))
    assert not fake.rayjobs


def test_a_try_passes_over_an_object_that_is_being_deleted(fake: FakeKubernetes) -> None:
    store = Store()
    old = deferred(store)
    fake.lingering = True
    asyncio.run(old.on_kill())
    assert [*fake.rayjobs] == [old.submission_id]
    new = deferred(store)
    assert [name for _, name in fake.made] == [old.submission_id, new.submission_id]
    assert old.submission_id != new.submission_id


def test_an_object_that_is_out_of_sight_for_long_is_taken_up_by_the_next_try(
    fake: FakeKubernetes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store()
    trigger = deferred(store, max_tries=1)
    fake.faults.extend([("GET", 403)] * 3)
    monkeypatch.setattr(kubernetes_hook, "OUTAGE_S", 0.0)
    event = follow(trigger)
    assert event["status"] == "UNREACHABLE"
    with pytest.raises(AirflowException, match=r"The job is UNREACHABLE: GET .* HTTP 403; the acc"):
        operator().execute_complete(context(store, max_tries=1), event)
    fake.faults.clear()
    assert deferred(store, max_tries=1).submission_id == trigger.submission_id
    # The last try deletes it; where that is refused, the log says by what it can be.
    fake.faults.append(("DELETE", 403))
    with pytest.raises(AirflowException, match="The job is UNREACHABLE"):
        operator().execute_complete(context(store), event)
    assert (
        f"`kubectl -n vision delete rayjob {trigger.submission_id}`: DELETE http"
        in capsys.readouterr().out
    )
    assert STATE in store


def time_out(task: Any, store: Store, fake: FakeKubernetes) -> None:
    """As Airflow does with a task whose time is up while it waits on a worker."""

    def ring(*_: Any) -> None:
        raise AirflowTaskTimeout

    def pull() -> None:
        while fake.asked["GET"] < 3:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, ring)
    threading.Thread(target=pull).start()
    try:
        with pytest.raises(AirflowTaskTimeout):
            task.execute(context(store, max_tries=1))
    finally:
        signal.signal(signal.SIGALRM, before)
    task.on_kill()


def test_what_cannot_be_deleted_as_a_task_times_out_is_not_forgotten(
    fake: FakeKubernetes, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.hosts_come = False
    cluster: dict[str, Any] = {"cluster": CLUSTER, "deferrable": False, "poll_interval": 0.01}
    tasks = [
        (operator(deferrable=False), fake.rayjobs, "rayjob"),
        (CreateRayClusterOperator(task_id="create", **cluster), fake.rayclusters, "raycluster"),
    ]
    for task, objects, kind in tasks:
        store = Store()
        fake.asked.clear()
        fake.faults.append(("DELETE", 403))
        time_out(task, store, fake)
        (name,) = objects
        assert name in str(store)  # the next try goes on with it
        assert f"`kubectl -n vision delete {kind} {name}`: DELETE" in capsys.readouterr().out
        fake.asked.clear()
        time_out(task, store, fake)
        assert len(fake.made) == 1
        assert not objects
        assert not store
        fake.made.clear()


def test_a_task_that_is_killed_says_what_it_could_not_delete(
    fake: FakeKubernetes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process, "GRACE_S", 0.2)
    task, store = operator(), Store()
    with pytest.raises(TaskDeferred):
        task.execute(context(store))
    fake.held = {"DELETE"}
    fake.hold.clear()
    try:
        task.on_kill()
    finally:
        fake.hold.set()
    assert f"delete rayjob {store[STATE]['submission_id']}`: no answer" in capsys.readouterr().out


def pod(kind: str, **status: Any) -> dict[str, Any]:
    return {"metadata": {"labels": {"ray.io/node-type": kind}}, "status": status}


UNSCHEDULED = pod(
    "worker",
    conditions=[
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/2 nodes are available: 2 Insufficient google.com/tpu",
        }
    ],
)
PULLING = pod(
    "head",
    containerStatuses=[
        {"state": {"waiting": {"reason": "ImagePullBackOff", "message": 'image "i:1": not found'}}}
    ],
)
STARTING = pod(
    "worker", initContainerStatuses=[{"state": {"waiting": {"reason": "PodInitializing"}}}]
)


def test_log_says_what_pods_wait_for(
    fake: FakeKubernetes, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.pods = [UNSCHEDULED, UNSCHEDULED, PULLING, STARTING]
    assert follow(deferred(Store()))["status"] == "SUCCEEDED"
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "hosts are ready" in line]
    assert "[warning" in said
    assert (
        ": Initializing: 1 of 4 hosts are ready; 2 x Unschedulable: 0/2 nodes are available: 2 "
        'Insufficient google.com/tpu; 1 x ImagePullBackOff: image "i:1": not found' in said
    )
    # And so does the error, where that is how it ended.
    fake.hosts_come = False
    fake.asked.clear()
    trigger = deferred(Store())

    async def failed() -> dict[str, Any]:
        followed = asyncio.create_task(trigger.follow())
        while fake.asked["GET"] < 4:
            await asyncio.sleep(0.01)
        late = {"jobDeploymentStatus": "Failed", "reason": "PreRunningDeadlineExceeded"}
        fake.rayjobs[trigger.submission_id]["status"] |= late
        return await followed

    said_last = asyncio.run(failed())["message"]
    assert said_last.startswith(
        "Failed, PreRunningDeadlineExceeded; before that: Initializing: 1 o"
    )
    assert 'ImagePullBackOff: image "i:1": not found' in said_last


def test_log_says_that_pods_may_not_be_seen_and_what_kuberay_knows_itself(
    fake: FakeKubernetes,
) -> None:
    fake.pods = None
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateWorkerPod"}
    head = {"type": "HeadPodReady", "status": "False", "reason": "ImagePullBackOff"}
    conditions = [refused | {"message": "exceeded quota"}, head | {"message": "i:1"}]

    async def ask() -> str:
        async with CLUSTER.hook() as kubernetes:
            return (await readiness(kubernetes, "c", {"conditions": conditions})).said

    assert asyncio.run(ask()) == (
        "0 of 0 hosts are ready; why the others are not, the right to list pods would tell; "
        "ReplicaFailure: FailedCreateWorkerPod: exceeded quota; HeadPodReady: ImagePullBackOff: i:1"
    )


@pytest.mark.slow
def test_clearing_the_task_deletes_the_cluster_and_makes_another(fake: FakeKubernetes) -> None:
    store = Store()
    old = deferred(store)
    new = deferred(store, max_tries=1)
    assert old.submission_id != new.submission_id
    assert [*fake.rayjobs] == [new.submission_id]
    asyncio.run(old.on_kill())  # which may come late
    assert [*fake.rayjobs] == [new.submission_id]


def test_ending_the_task_deletes_the_cluster(
    fake: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_hook, "STARTING_S", 0.2)
    trigger = deferred(Store())
    asyncio.run(trigger.on_kill())
    assert not fake.rayjobs
    assert follow(trigger)["status"] == "LOST"
    asyncio.run(trigger.on_kill())


@pytest.mark.parametrize(
    ("final", "error", "said"),
    [
        ({"jobStatus": "STOPPED"}, AirflowException, "The job is STOPPED: Complete"),
        (
            {"jobDeploymentStatus": "Failed", "jobStatus": "RUNNING", "reason": "DeadlineExceeded"},
            AirflowException,
            "The job is RUNNING: Failed, DeadlineExceeded",
        ),
        (
            {"jobDeploymentStatus": "ValidationFailed", "message": "no such field"},
            AirflowFailException,
            "ValidationFailed: no such field",
        ),
    ],
)
def test_a_job_that_did_not_succeed_fails_the_task_and_leaves_no_cluster(
    fake: FakeKubernetes, final: dict[str, Any], error: type[Exception], said: str
) -> None:
    fake.final = final
    store = Store()
    event = follow(deferred(store))
    with pytest.raises(AirflowException, match=said) as failed:
        operator().execute_complete(context(store), event)
    assert type(failed.value) is error
    assert not fake.rayjobs
    assert STATE not in store


def test_a_head_that_is_silent_as_a_job_ends_is_asked_again(
    fake: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.silent = 3
    assert follow(deferred(Store()))["summary"] == SUMMARY
    assert fake.silent == 0
    fake.silent = 3
    fake.command = [sys.executable, "-c", "raise SystemExit(2)"]
    assert follow(deferred(Store()))["exit_code"] == 2
    # A try after a lost worker asks likewise, and not for another cluster.
    fake.command = [sys.executable, "-c", JOB]
    store = Store()
    first = deferred(store)
    follow(first)
    fake.silent = 3
    assert deferred(store).submission_id == first.submission_id
    # What it does not say in the end is not taken for an end without a summary.
    monkeypatch.setattr(rayjob_trigger, "LAST_LOOK_S", 0.0)
    fake.silent = 3
    with pytest.raises(AirflowException, match=r"SUCCEEDED: Complete; its log, .* HTTP 502") as no:
        operator().execute_complete(context(store), follow(first))
    assert "It printed no line" not in str(no.value)


def test_ending_the_task_deletes_a_cluster_whose_creation_is_on_its_way(
    fake: FakeKubernetes,
) -> None:
    trigger = deferred(Store())
    (rayjob,) = fake.rayjobs.values()
    asyncio.run(trigger.on_kill())

    async def late() -> None:
        killed = asyncio.create_task(trigger.on_kill())
        while fake.asked["DELETE"] < 2:
            await asyncio.sleep(0.01)
        fake.create({name: rayjob[name] for name in rayjob if name != "status"})
        await killed

    asyncio.run(late())
    assert not fake.rayjobs


def test_polls_that_fail_are_repeated(fake: FakeKubernetes) -> None:
    trigger = deferred(Store())
    fake.faults.extend([("GET", 500), ("GET", 0), ("GET", 403)])
    assert follow(trigger)["status"] == "SUCCEEDED"


def test_a_refusal_names_the_rights_that_are_needed(
    fake: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_hook, "STARTING_S", 0.0)
    fake.faults.append(("POST", 403))
    with pytest.raises(RayJobError, match=r"HTTP 403; the account needs the rights of docs/cl"):
        operator().execute(context(Store()))


def test_an_object_that_the_schema_refuses_is_not_tried_again(fake: FakeKubernetes) -> None:
    fake.faults.append(("POST", 422))
    with pytest.raises(AirflowFailException, match="HTTP 422; the object is not what KubeRay's"):
        operator().execute(context(Store()))


def test_a_connection_that_names_no_cluster_says_what_it_may_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", '{"conn_type": "kubernetes"}')
    with pytest.raises(RayJobError, match=r"give host and password .a token., or in_cl"):
        delete_object(CLUSTER, "RayJob", "a")
    in_pod = {"conn_type": "kubernetes", "extra": {"in_cluster": True}}
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps(in_pod))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(RayJobError, match="this process is in no pod"):
        asyncio.run(name_for(CLUSTER, "RayJob", "a", cleared=False))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"ray_conn_id": "ray"}, "cluster and ray_conn_id='ray': give one of them"),
        ({"runtime_env": {"pip": ["x"]}}, "with cluster it may have env_vars alone"),
        ({"ship": "package"}, "needs a ray_conn_id"),
        ({"pass_env": ["AWS_*"]}, "it is of a job on the worker"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        operator(**fields)


def test_a_version_that_is_none_and_a_spec_that_is_too_long_are_refused(
    fake: FakeKubernetes,
) -> None:
    with pytest.raises(SpecError, match="ray_version='latest'"):
        RayJobCluster.parse(CLUSTER.model_dump() | {"ray_version": "latest"})
    long = AnnotateOperator.SPEC.parse(
        {"input": "x" * 100_001, "output": "gs://out", "run_id": "r", "prompts": ["ocr"]}
    )
    with pytest.raises(AirflowFailException, match=r"the spec has .* bytes, and Kubernetes"):
        asyncio.run(create_rayjob(CLUSTER, "a", "annotate", long, {}))
