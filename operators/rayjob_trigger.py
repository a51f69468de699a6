"""`RayClusterJobTrigger`: waits for a RayJob of KubeRay and relays what its job prints."""

import asyncio
import time
from typing import Any

from paliflow.operators.hook import RayJobError
from paliflow.operators.kubernetes import KubernetesHook, Outage
from paliflow.operators.outcome import lines_of, outcome
from paliflow.operators.rayjob import ENDED, SharedRayCluster, cluster_of, leftover
from paliflow.operators.readiness import readiness
from paliflow.operators.trigger import LOG_BYTES_PER_S, RayJobTrigger

LAST_LOOK_S = 120.0
"""How long the head is asked for the log of a job that has ended; a cluster of the job's own stays
for 300 s."""
_CLUSTER_LOST = (
    "its RayCluster is gone: somebody has deleted it. Clear the task that makes it, and those after"
)


class RayClusterJobTrigger(RayJobTrigger):
    """Polls a RayJob until it ends; the one event is its `outcome`.

    What becomes of the job the RayJob says: its cluster may be gone before the next look. The log
    and the exit code are Ray's, as long as there is a cluster to ask. When a user ends the task
    (`on_kill`), the RayJob is deleted, and with it a cluster of its own.

    Args:
        cluster: the fields of a `RayJobCluster` or of a `SharedRayCluster`.
        submission_id: the RayJob's name, and the job's.
        poll_interval: seconds between polls.
    """

    def __init__(
        self, *, cluster: dict[str, Any], submission_id: str, poll_interval: float
    ) -> None:
        self.cluster = cluster
        self._spec = cluster_of(cluster)
        conn_id = self._spec.kubernetes_conn_id
        super().__init__(
            ray_conn_id=conn_id, submission_id=submission_id, poll_interval=poll_interval
        )
        self.leftover = leftover(self._spec, "RayJob", submission_id)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "paliflow.operators.rayjob_trigger.RayClusterJobTrigger",
            {
                "cluster": self.cluster,
                "submission_id": self.submission_id,
                "poll_interval": self.poll_interval,
            },
        )

    async def on_kill(self) -> None:
        """Deletes the RayJob. Airflow calls it when a user clears the task or sets its state."""
        async with self._spec.hook() as kubernetes:
            await kubernetes.delete("RayJob", self.submission_id, awaited=True)
        self.log.info("RayJob %s was deleted", self.submission_id)

    async def follow(self) -> dict[str, Any]:
        """The job's `outcome`, once there is one: `status` is Ray's, `LOST` where the RayJob is
        gone, or `UNREACHABLE`."""
        seen, outage, said, log_due = await self._relayed(), Outage(self.log), "", 0.0
        while True:
            try:
                # A token ends after an hour, so that each look has a client of its own.
                async with self._spec.hook() as kubernetes:
                    found = await kubernetes.get("RayJob", self.submission_id)
                    if found is None:
                        return outcome("LOST", _lost(said))
                    status = found.get("status", {})
                    if status.get("jobDeploymentStatus") in ENDED:
                        job, text, unread = await self._last_of_ray(kubernetes, status)
                        await self._relay(text, seen, ended=True)
                        return _ended(status, job, text, said, unread)
                    if status.get("jobStatus") and time.monotonic() >= log_due:
                        text = await self._log_so_far(kubernetes, status["rayClusterName"])
                        log_due = time.monotonic() + len(text) / LOG_BYTES_PER_S
                        seen = await self._relay(text, seen, ended=False)
                    said = await self._say(kubernetes, status, said)
                    if await self._has_lost_its_cluster(kubernetes):
                        return outcome("LOST", _CLUSTER_LOST)
                outage.over()
            except RayJobError as error:
                if outage.given_up(error):
                    return outcome("UNREACHABLE", str(error))
            await asyncio.sleep(self.poll_interval)

    async def _say(self, kubernetes: KubernetesHook, status: dict[str, Any], before: str) -> str:
        """Logs how far the RayJob is, where that is not what was said before; returns it."""
        said, stuck = _described(status), False
        cluster = status.get("rayClusterName")
        if cluster and status.get("jobDeploymentStatus") == "Initializing":
            of = await readiness(kubernetes, cluster, status.get("rayClusterStatus", {}))
            said, stuck = f"{said}: {of.said}", of.stuck
        if said != before:
            say = self.log.warning if stuck else self.log.info
            say("RayJob %s: %s", self.submission_id, said)
        return said

    async def _has_lost_its_cluster(self, kubernetes: KubernetesHook) -> bool:
        """Whether it is of a shared cluster that is gone. KubeRay looks for that before anything
        else, until the job's deadline, whether or not the job has started."""
        if not isinstance(self._spec, SharedRayCluster):
            return False
        return await kubernetes.get("RayCluster", self._spec.name) is None

    async def _log_so_far(self, kubernetes: KubernetesHook, cluster: str) -> str:
        """What the job has printed; nothing if the head does not answer."""
        try:
            async with await kubernetes.ray_of(cluster) as ray:
                return await ray.logs(self.submission_id)
        except RayJobError as error:
            self.log.warning("No log of RayJob %s: %s", self.submission_id, error)
            return ""

    async def _last_of_ray(
        self, kubernetes: KubernetesHook, status: dict[str, Any]
    ) -> tuple[dict[str, Any], str, str]:
        """Ray's details of a job that has ended, all that it has printed, and why that is not known
        if it is not. A head that does not answer is asked again for `LAST_LOOK_S` seconds, unless
        it, or what it knew of the job, is gone."""
        until = time.monotonic() + LAST_LOOK_S
        while status.get("jobStatus"):
            try:
                async with await kubernetes.ray_of(status["rayClusterName"]) as ray:
                    job = await ray.job(self.submission_id)
                    return job, await ray.logs(self.submission_id), ""
            except RayJobError as error:
                if error.http_status == 404 or time.monotonic() >= until:
                    return {}, "", str(error)
                self.log.warning("No log yet of RayJob %s: %s", self.submission_id, error)
            await asyncio.sleep(min(self.poll_interval, LAST_LOOK_S / 10))
        return {}, "", ""


def _described(status: dict[str, Any]) -> str:
    """E.g. `Initializing`, or `Failed, DeadlineExceeded: ...`."""
    parts = [status.get("jobDeploymentStatus") or "not seen by KubeRay yet"]
    if reason := status.get("reason"):
        parts.append(reason)
    text = ", ".join(parts)
    return f"{text}: {message}" if (message := status.get("message")) else text


def _lost(said: str) -> str:
    was = f"; it was last seen {said}" if said else ""
    return f"somebody has deleted its RayJob{was}. A retry makes another, and the run resumes"


def _ended(
    status: dict[str, Any], job: dict[str, Any], text: str, said: str, unread: str
) -> dict[str, Any]:
    """A job that was stopped is `Complete` as well: it is `jobStatus` that says how it went.

    `said` is how far it was before, `unread` why its log, `text`, is not known.
    """
    went = status.get("jobStatus") or status["jobDeploymentStatus"]
    code = job.get("driver_exit_code")
    message = _described(status)
    if unread:
        message = f"{message}; its log, and in it how it ended, could not be read: {unread}"
    elif went == "SUCCEEDED":
        code = 0
    elif status["jobDeploymentStatus"] == "ValidationFailed":
        code = 2  # of the object that it was given: the next try would give the same
    elif code == 0:  # the deadline, say, came before the end was noticed
        code = None
    if not status.get("jobStatus") and said:
        message = f"{message}; before that: {said}"
    return outcome(went, message, code, lines_of(text))
