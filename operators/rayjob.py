"""`RayJobCluster` and `SharedRayCluster`: Ray clusters that KubeRay starts, and jobs on them."""

import uuid
from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowFailException
from pydantic import Field, PositiveInt

from paliflow.configs.base import Spec, SpecError
from paliflow.configs.cluster import ClusterSpec, Name
from paliflow.configs.manifests import ray_job, ray_job_on
from paliflow.configs.summary import SPEC_VARIABLE_BYTES
from paliflow.operators.hook import RayJobError
from paliflow.operators.kubernetes import Kind, KubernetesError, KubernetesHook
from paliflow.operators.waiting import in_thread

ENDED = frozenset({"Complete", "Failed", "ValidationFailed"})
"""A RayJob's `jobDeploymentStatus` after which it changes no more."""


class OnKubernetes(Spec):
    """Where a job's RayJob is, and how long it may be there."""

    namespace: Name = "default"
    """Of Kubernetes."""
    kubernetes_conn_id: str = "kubernetes_default"
    """The connection to the Kubernetes API."""
    deadline: PositiveInt = 86_400
    """Seconds that the job may take, from when it is no longer queued."""

    def hook(self) -> KubernetesHook:
        """A client of the Kubernetes that this is of, not open yet."""
        return KubernetesHook(self.kubernetes_conn_id, self.namespace)


class SharedRayCluster(OnKubernetes):
    """What an operator's `cluster` is where several tasks have one: what the task returns that made
    it. The cluster stays when a job ends."""

    name: Name
    """Of the RayCluster."""

    def manifest(
        self, name: str, job: str, run: Spec, variables: Mapping[str, str]
    ) -> dict[str, Any]:
        """The RayJob to make."""
        return ray_job_on(name, self.name, self.namespace, job, run, variables)


class RayJobCluster(OnKubernetes, ClusterSpec):
    """What an operator's `cluster` is: hosts, their image, and the Kubernetes that has them.

    A task makes one RayJob, under a name that is stored before it is asked for, so that a worker
    that dies leaves none that its successor does not find. The task's end deletes it; where Airflow
    itself is lost, its deadlines end it.
    """

    ray_version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    """Of the image, e.g. `2.60.0`: KubeRay has to know it."""
    start_deadline: PositiveInt = 7200
    """Seconds in which the hosts have to come."""

    def manifest(
        self, name: str, job: str, run: Spec, variables: Mapping[str, str]
    ) -> dict[str, Any]:
        """The RayJob to make."""
        made = ray_job(name, self, self.ray_version, job, run, variables)
        made["spec"]["preRunningDeadlineSeconds"] = self.start_deadline
        return made


JobCluster = RayJobCluster | SharedRayCluster


def cluster_of(given: object) -> JobCluster:
    """What an operator's `cluster` is when its task runs.

    Raises:
        AirflowFailException: it is none.
    """
    if isinstance(given, RayJobCluster | SharedRayCluster):
        return given
    if not isinstance(given, Mapping):
        raise AirflowFailException(
            f"cluster={given!r}: a RayJobCluster, or what CreateRayClusterOperator returns"
        )
    kind = SharedRayCluster if "name" in given else RayJobCluster
    try:
        return kind.parse(dict(given))
    except SpecError as error:
        raise AirflowFailException(f"cluster: {error}") from None


async def name_for(cluster: OnKubernetes, kind: Kind, left: str | None, *, cleared: bool) -> str:
    """The name to store before an object is made under it, as `job_for` does: that which an earlier
    try left, or a new one.

    An object that is being deleted has a successor of another name, and so has a job that did not
    succeed, or whose log is gone. So has one whose task a user has cleared, and one that is not
    there, unless it is a RayJob with a cluster of its own: what may be on its way is deleted.

    Args:
        cluster: where it is.
        kind: of the object.
        left: the name that an earlier try stored; None if there was none.
        cleared: whether a user has cleared the task since.

    Raises:
        KubernetesError: Kubernetes could not be reached, or refused.
    """
    if left:
        async with cluster.hook() as kubernetes:
            found = await kubernetes.get(kind, left)
            if found is None:
                # It may be on its way, if its creation broke off: under the same name it cannot
                # become two. But it may have been deleted, too, as by a task that was cleared while
                # it ran: a shared head then remembers a job of its name as stopped, and of a
                # RayCluster there may be pods yet.
                reusable = kind == "RayJob" and not isinstance(cluster, SharedRayCluster)
            else:
                reusable = await _is_of_use(kubernetes, found)
            if reusable and not cleared:
                return left
            await kubernetes.delete(kind, left, awaited=found is None)
    return f"paliflow-{uuid.uuid4().hex[:16]}"


async def _is_of_use(kubernetes: KubernetesHook, found: Mapping[str, Any]) -> bool:
    status = found.get("status", {})
    if "deletionTimestamp" in found["metadata"]:
        return False
    if status.get("jobDeploymentStatus") not in ENDED:
        return True
    if status.get("jobStatus") != "SUCCEEDED":
        return False
    try:  # for its summary, while its cluster is there
        async with await kubernetes.ray_of(status["rayClusterName"]) as ray:
            return bool(await ray.logs(found["metadata"]["name"]))
    except RayJobError as error:
        return error.http_status != 404  # else it may answer yet, and the trigger asks again


async def create_rayjob(
    cluster: JobCluster, name: str, job: str, run: Spec, variables: Mapping[str, str]
) -> None:
    """Makes the RayJob; does nothing if it is there.

    Args:
        cluster: its hosts.
        name: as stored.
        job: `python -m paliflow.jobs JOB` runs it.
        run: the job's spec.
        variables: of the job's environment, besides the spec's.

    Raises:
        AirflowFailException: the spec is too long, or Kubernetes refuses what it is given; trying
            again would not help.
        KubernetesError: Kubernetes could not be reached, or did not let us.
    """
    if (size := len(run.given().encode())) > SPEC_VARIABLE_BYTES:
        raise AirflowFailException(
            f"the spec has {size} bytes, and Kubernetes passes {SPEC_VARIABLE_BYTES} on to a job; "
            "name files that list its sources, or give a ray_conn_id"
        )
    manifest = cluster.manifest(name, job, run, variables)
    manifest["spec"]["activeDeadlineSeconds"] = cluster.deadline
    async with cluster.hook() as kubernetes:
        try:
            await kubernetes.create(manifest)
        except KubernetesError as error:
            if error.http_status in (400, 422):
                raise AirflowFailException(str(error)) from None
            raise


def delete_object(cluster: OnKubernetes, kind: Kind, name: str) -> None:
    """Deletes an object, and what belongs to it; from synchronous code.

    Raises:
        KubernetesError: Kubernetes could not be reached, or refused.
    """

    async def delete() -> None:
        async with cluster.hook() as kubernetes:
            await kubernetes.delete(kind, name)

    in_thread(delete())


def leftover(cluster: OnKubernetes, kind: Kind, name: str) -> str:
    """What the log says of an object that could not be deleted."""
    return (
        f"{kind} {name} may still be there, and cost. Unless a retry of this task follows, see to "
        f"it by `kubectl -n {cluster.namespace} delete {kind.lower()} {name}`"
    )
