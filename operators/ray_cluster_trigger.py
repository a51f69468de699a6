"""`RayClusterTrigger`: waits until all hosts of a RayCluster are there."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from paliflow.operators.hook import RayJobError
from paliflow.operators.kubernetes import Outage
from paliflow.operators.rayjob import SharedRayCluster, leftover
from paliflow.operators.readiness import is_provisioned, readiness


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
        self.leftover = leftover(self._spec, "RayCluster", self._spec.name)

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
        outage, said = Outage(self.log), ""
        while True:
            try:
                async with self._spec.hook() as kubernetes:
                    found = await kubernetes.get("RayCluster", self._spec.name)
                    if found is None:
                        return (
                            f"somebody has deleted it; it was last seen {said or 'as it was made'}"
                        )
                    status = found.get("status", {})
                    if is_provisioned(status):
                        return None
                    state = await readiness(kubernetes, self._spec.name, status)
                if state.said != said:
                    said = state.said
                    say = self.log.warning if state.stuck else self.log.info
                    say("RayCluster %s: %s", self._spec.name, said)
                outage.over()
            except RayJobError as error:
                if outage.given_up(error):
                    return f"it cannot be looked at: {error}"
            if time.time() > self.until:
                return f"its hosts did not come within start_deadline: {said or 'not seen'}"
            await asyncio.sleep(self.poll_interval)
