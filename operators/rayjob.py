"""`RayJobCluster`: a Ray cluster that KubeRay starts for one task and that ends with it."""

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowFailException
from pydantic import Field, PositiveInt

from paliflow.configs.base import Spec
from paliflow.configs.cluster import ClusterSpec
from paliflow.configs.manifests import ray_job
from paliflow.operators.kubernetes import KubernetesError, KubernetesHook

SPEC_BYTES = 100_000
"""What an environment variable is trusted to hold."""
ENDED = frozenset({"Complete", "Failed", "ValidationFailed"})
"""A RayJob's `jobDeploymentStatus` after which it changes no more."""


class RayJobCluster(ClusterSpec):
    """What an operator's `cluster` is: hosts, their image, and the Kubernetes that has them.

    A task makes one RayJob, under a name that is stored before it is asked for, so that a worker
    that dies leaves none that its successor does not find. The task's end deletes it; where Airflow
    itself is lost, its deadlines end it.
    """

    kubernetes_conn_id: str = "kubernetes_default"
    """The connection to the Kubernetes API."""
    ray_version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    """Of the image, e.g. `2.60.0`: KubeRay has to know it."""
    start_deadline: PositiveInt = 7200
    """Seconds in which the hosts have to come."""
    deadline: PositiveInt = 86_400
    """Seconds that the job may take, from when it is no longer queued."""

    def hook(self) -> KubernetesHook:
        """A client of the Kubernetes that this is of, not open yet."""
        return KubernetesHook(self.kubernetes_conn_id, self.namespace)


async def rayjob_for(cluster: RayJobCluster, left: Any, max_tries: int) -> dict[str, Any]:
    """The state to store before a RayJob is made under its `submission_id`, as `job_for` does.

    Args:
        cluster: what is asked for.
        left: what an earlier try stored; None if there was none.
        max_tries: of the task instance, now: Airflow raises it when a user clears the task.

    Raises:
        KubernetesError: Kubernetes could not be reached, or refused.
    """
    if left:
        name = left["submission_id"]
        async with cluster.hook() as kubernetes:
            found = await kubernetes.rayjob(name)
            ended = found and found.get("status", {}).get("jobDeploymentStatus") in ENDED
            # One that is not there may be on its way, if its creation broke off: under the same
            # name it cannot become two.
            if left["max_tries"] == max_tries and not ended:
                return dict(left)
            await kubernetes.delete(name)
    return {"submission_id": f"paliflow-{uuid.uuid4().hex[:16]}", "max_tries": max_tries}


async def create_rayjob(
    cluster: RayJobCluster, name: str, job: str, run: Spec, variables: Mapping[str, str]
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
    if (size := len(run.given().encode())) > SPEC_BYTES:
        raise AirflowFailException(
            f"the spec has {size} bytes, and Kubernetes passes {SPEC_BYTES} on to a job; name "
            "files that list its sources, or give a ray_conn_id"
        )
    manifest = ray_job(name, cluster, cluster.ray_version, job, run, variables)
    manifest["spec"]["activeDeadlineSeconds"] = cluster.deadline
    manifest["spec"]["preRunningDeadlineSeconds"] = cluster.start_deadline
    async with cluster.hook() as kubernetes:
        try:
            await kubernetes.create(manifest)
        except KubernetesError as error:
            if error.http_status in (400, 422):
                raise AirflowFailException(str(error)) from None
            raise


def delete_rayjob(cluster: RayJobCluster, name: str) -> None:
    """Deletes the RayJob, and with it its cluster; from synchronous code.

    Raises:
        KubernetesError: Kubernetes could not be reached, or refused.
    """

    async def delete() -> None:
        async with cluster.hook() as kubernetes:
            await kubernetes.delete(name)

    asyncio.run(delete())
