"""What a Ray cluster that KubeRay starts still waits for, in words for a task's log."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from paliflow.configs.base import brief
from paliflow.operators.kubernetes import KubernetesError, KubernetesHook

_STARTING = frozenset({"PodInitializing", "ContainerCreating"})
"""Why containers wait in a pod that is about to run."""
_CHARACTERS = 300


class Readiness(NamedTuple):
    """How far a cluster is."""

    said: str
    """E.g. `1 of 4 hosts are ready; 3 x Unschedulable: 0/2 nodes are available`."""
    stuck: bool
    """Whether a container cannot start, as where its image cannot be pulled: more hosts would not
    help."""


async def readiness(
    kubernetes: KubernetesHook, cluster: str, status: Mapping[str, Any]
) -> Readiness:
    """How many hosts of a cluster are there, and what its pods wait for.

    Args:
        kubernetes: open.
        cluster: the RayCluster's name.
        status: the RayCluster's.

    Raises:
        KubernetesError: Kubernetes could not be reached.
    """
    there, wanted = (status.get(f"{word}WorkerReplicas", 0) for word in ("ready", "desired"))
    parts = [f"{there} of {wanted} hosts are ready"]
    if status.get("reason"):
        parts.append(str(status["reason"]))
    stuck = False
    waiting: Counter[str] = Counter()
    try:
        for pod in await kubernetes.pods(cluster):
            for reason, message, of_container in _reasons(pod):
                waiting[_said(reason, message)] += 1
                stuck |= of_container
    except KubernetesError as error:
        if error.http_status != 403:
            raise
        parts.append("why the others are not, the right to list pods would tell")
    parts += [f"{count} x {said}" for said, count in waiting.most_common()]
    parts += [_said(*said) for said in _conditions(status, pods_known=bool(waiting))]
    return Readiness("; ".join(parts), stuck)


def is_provisioned(status: Mapping[str, Any]) -> bool:
    """Whether all pods of a RayCluster with this status have been ready."""
    conditions = status.get("conditions", ())
    return any(
        each["type"] == "RayClusterProvisioned" and each["status"] == "True" for each in conditions
    )


def _reasons(pod: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """The first reason for which a pod does not run, its message, and whether a container has it;
    nothing if there is none."""
    status = pod.get("status", {})
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind, ()):
            waiting = container.get("state", {}).get("waiting")
            if waiting and waiting.get("reason") not in _STARTING:
                yield waiting.get("reason", "waiting"), waiting.get("message", ""), True
                return
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield condition.get("reason", "not scheduled"), condition.get("message", ""), False
            return


def _conditions(status: Mapping[str, Any], *, pods_known: bool) -> Iterator[tuple[str, str]]:
    """What KubeRay itself knows: that pods cannot be made, and why the head is not ready."""
    for each in status.get("conditions", ()):
        refused = each["type"] == "ReplicaFailure" and each["status"] == "True"
        headless = each["type"] == "HeadPodReady" and each["status"] == "False"
        if refused or (headless and not pods_known):
            yield f"{each['type']}: {each.get('reason', '')}", each.get("message", "")


def _said(reason: str, message: str) -> str:
    return brief(f"{reason}: {message}" if message else reason, _CHARACTERS)
