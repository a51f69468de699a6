"""`RayClusterJobTrigger`: waits for a RayJob of KubeRay and relays what its job prints."""

import asyncio
import time
from typing import Any

from paliflow.operators.hook import RayJobError
from paliflow.operators.kubernetes import KubernetesHook
from paliflow.operators.outcome import lines_of, outcome
from paliflow.operators.rayjob import ENDED, cluster_of
from paliflow.operators.trigger import LOG_BYTES_PER_S, MAX_FAILURES, RayJobTrigger


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
        seen, failures, said, log_due = await self._relayed(), 0, "", 0.0
        while True:
            try:
                # A token ends after an hour, so that each look has a client of its own.
                async with self._spec.hook() as kubernetes:
                    found = await kubernetes.get("RayJob", self.submission_id)
                    if found is None:
                        return outcome("LOST", "somebody has deleted its RayJob")
                    status = found.get("status", {})
                    state = status.get("jobDeploymentStatus", "")
                    if state != said:
                        said = state
                        self.log.info("RayJob %s: %s", self.submission_id, _described(status))
                    ended = state in ENDED
                    job: dict[str, Any] = {}
                    text = ""
                    if status.get("jobStatus") and (ended or time.monotonic() >= log_due):
                        job, text = await self._of_ray(kubernetes, status["rayClusterName"])
                        log_due = time.monotonic() + len(text) / LOG_BYTES_PER_S
                        seen = await self._relay(text, seen, ended)
                    if ended:
                        return _ended(status, job, text)
                failures = 0
            except RayJobError as error:
                failures += 1
                self.log.warning("Poll %d of at most %d failed: %s", failures, MAX_FAILURES, error)
                if failures == MAX_FAILURES:
                    return outcome("UNREACHABLE", str(error))
            await asyncio.sleep(self.poll_interval)

    async def _of_ray(self, kubernetes: KubernetesHook, cluster: str) -> tuple[dict[str, Any], str]:
        """Ray's details of the job and what it has printed; nothing if the head does not answer."""
        try:
            async with await kubernetes.ray_of(cluster) as ray:
                return await ray.job(self.submission_id), await ray.logs(self.submission_id)
        except RayJobError as error:
            self.log.warning("No log of RayJob %s: %s", self.submission_id, error)
            return {}, ""


def _described(status: dict[str, Any]) -> str:
    """E.g. `Initializing`, or `Failed, DeadlineExceeded: ...`."""
    parts = [status.get("jobDeploymentStatus") or "not seen by KubeRay yet"]
    if reason := status.get("reason"):
        parts.append(reason)
    text = ", ".join(parts)
    return f"{text}: {message}" if (message := status.get("message")) else text


def _ended(status: dict[str, Any], job: dict[str, Any], text: str) -> dict[str, Any]:
    """A job that was stopped is `Complete` as well: it is `jobStatus` that says how it went."""
    went = status.get("jobStatus") or status["jobDeploymentStatus"]
    code = job.get("driver_exit_code")
    if went == "SUCCEEDED":
        code = 0
    elif status["jobDeploymentStatus"] == "ValidationFailed":
        code = 2  # of the object that it was given: the next try would give the same
    elif code == 0:  # the deadline, say, came before the end was noticed
        code = None
    return outcome(went, _described(status), code, lines_of(text))
