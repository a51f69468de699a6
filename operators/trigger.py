"""`RayJobTrigger`: waits for a Ray job and relays what it prints."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from paliflow.operators.hook import TERMINAL, RayJobError, RayJobHook
from paliflow.operators.outcome import outcome, relay

MAX_FAILURES = 10
"""Polls that may fail in a row before the job is given up as lost."""


class RayJobTrigger(BaseTrigger):
    """Polls a Ray job until it ends; the one event is its `outcome`.

    New lines of the job go to the trigger's log as they come, which Airflow shows within the
    task's. After the trigger moves to another triggerer they start over from the first.
    A job is stopped when a user ends the task (`on_kill`) or at `deadline`, and left alone when
    the triggerer shuts down.

    Args:
        ray_conn_id: the cluster's connection.
        submission_id: the job.
        poll_interval: seconds between polls.
        deadline: seconds since the epoch after which the job is stopped.
    """

    def __init__(
        self,
        *,
        ray_conn_id: str,
        submission_id: str,
        poll_interval: float,
        deadline: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ray_conn_id = ray_conn_id
        self.submission_id = submission_id
        self.poll_interval = poll_interval
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "paliflow.operators.trigger.RayJobTrigger",
            {
                "ray_conn_id": self.ray_conn_id,
                "submission_id": self.submission_id,
                "poll_interval": self.poll_interval,
                "deadline": self.deadline,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields one event: `status` is Ray's, or `UNREACHABLE` or `TIMEOUT`."""
        async with RayJobHook(self.ray_conn_id) as ray:
            yield TriggerEvent(await self._wait(ray))

    async def _wait(self, ray: RayJobHook) -> dict[str, Any]:
        seen = failures = 0
        while True:
            try:
                # The status first: what had ended by then has printed all it will.
                job = await ray.job(self.submission_id)
                text = await ray.logs(self.submission_id)
                failures = 0
            except RayJobError as error:
                failures += 1
                self.log.warning("Poll %d of at most %d failed: %s", failures, MAX_FAILURES, error)
                if failures == MAX_FAILURES:
                    return outcome("UNREACHABLE", str(error))
            else:
                ended = job["status"] in TERMINAL
                complete = len(text) if ended else text.rfind("\n") + 1
                relay(text[seen:complete].splitlines(), self.log)
                seen = complete
                if ended:
                    # Ray appends the log to its message; it has been relayed.
                    message = job["message"].partition(", last available logs")[0]
                    exit_code = job["driver_exit_code"]
                    return outcome(job["status"], message, exit_code, text.splitlines())
            if self.deadline and time.time() > self.deadline:
                await self.on_kill()
                return outcome("TIMEOUT", "stopped at the task's execution_timeout")
            await asyncio.sleep(self.poll_interval)

    async def on_kill(self) -> None:
        """Stops the job. Airflow calls it when a user clears the task or sets its state."""
        async with RayJobHook(self.ray_conn_id) as ray:
            await ray.stop(self.submission_id)
        self.log.info("Ray job %s was asked to stop", self.submission_id)
