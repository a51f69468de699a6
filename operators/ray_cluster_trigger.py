"""`RayClusterTrigger`: waits until all hosts of a RayCluster are there."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from paliflow.operators.hook import RayJobError
from paliflow.operators.rayjob import SharedRayCluster
from paliflow.operators.trigger import MAX_FAILURES

_PROVISIONED = "RayClusterProvisioned"
"""KubeRay's condition that all pods have been ready."""


class RayClusterTrigger(BaseTrigger):
    """Polls a RayCluster until its hosts are there; the one event has its `name` and an `error`,
    which is null if they are.

    When a user ends the task (`on_kill`), the RayCluster is deleted.

    Args:
        cluster: the fields of a `SharedRayCluster`.
        until: when to give up, in seconds of `time.time`.
        poll_interval: seconds between polls.
    """

    def __init__(self, *, cluster: dict[str, Any], until: float, poll_interval: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cluster, self.until, self.poll_interval = cluster, until, poll_interval
        self._spec = SharedRayCluster.parse(cluster)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "paliflow.operators.ray_cluster_trigger.RayClusterTrigger",
            {"cluster": self.cluster, "until": self.until, "poll_interval": self.poll_interval},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields the one event."""
        yield TriggerEvent(await self.follow())

    async def on_kill(self) -> None:
        """Deletes the RayCluster: Airflow calls it when a user clears or marks the task."""
        async with self._spec.hook() as kubernetes:
            await kubernetes.delete("RayCluster", self._spec.name, awaited=True)
        self.log.info("RayCluster %s was deleted", self._spec.name)

    async def follow(self) -> dict[str, Any]:
        """The event, once there is one."""
        return {"name": self._spec.name, "error": await self._awaited()}

    async def _awaited(self) -> str | None:
        failures, said = 0, ""
        while True:
            try:
                async with self._spec.hook() as kubernetes:
                    found = await kubernetes.get("RayCluster", self._spec.name)
                if found is None:
                    return "somebody has deleted it"
                state, ready = _state(found.get("status", {}))
                if ready:
                    return None
                if state != said:
                    said = state
                    self.log.info("RayCluster %s: %s", self._spec.name, state)
                failures = 0
            except RayJobError as error:
                failures += 1
                self.log.warning("Poll %d of at most %d failed: %s", failures, MAX_FAILURES, error)
                if failures == MAX_FAILURES:
                    return f"it cannot be looked at: {error}"
            if time.time() > self.until:
                return f"its hosts did not come within start_deadline: {said or 'not seen'}"
            await asyncio.sleep(self.poll_interval)


def _state(status: dict[str, Any]) -> tuple[str, bool]:
    """What KubeRay says of it, and whether all hosts are there."""
    conditions = status.get("conditions", ())
    ready = any(each["type"] == _PROVISIONED and each["status"] == "True" for each in conditions)
    there, wanted = (status.get(f"{word}WorkerReplicas", 0) for word in ("ready", "desired"))
    reason = f", {status['reason']}" if status.get("reason") else ""
    return f"{there} of {wanted} hosts are ready{reason}", ready
