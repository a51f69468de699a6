"""`RayJobTrigger`: waits for a Ray job and relays what it prints."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.triggers.base import BaseTrigger, TriggerEvent

from paliflow.operators.hook import TERMINAL, RayJobError, RayJobHook
from paliflow.operators.outcome import lines_of, outcome, relay

MAX_FAILURES = 30
"""Polls that may fail in a row before the job is given up as lost."""
LOG_BYTES_PER_S = 50_000
"""Ray has only whole logs to give, so the longer one is, the more rarely it is fetched."""
RELAYED = "ray_log_relayed"
"""The XCom that counts the characters of the job's log that are in the task's log already."""


class RayJobTrigger(BaseTrigger):
    """Polls a Ray job until it ends; the one event is its `outcome`.

    New lines of the job go to the trigger's log as they come, which Airflow shows within the
    task's. How far that is, an XCom of the task remembers, because a trigger can write nothing
    else that outlives its triggerer: whoever takes over goes on there. Airflow deletes the XCom as
    the next try starts, whose own log has the job's lines from the first.
    A job is stopped when a user ends the task (`on_kill`), and left alone when the triggerer shuts
    down.

    Args:
        ray_conn_id: the cluster's connection.
        submission_id: the job.
        poll_interval: seconds between polls.
    """

    def __init__(self, *, ray_conn_id: str, submission_id: str, poll_interval: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ray_conn_id = ray_conn_id
        self.submission_id = submission_id
        self.poll_interval = poll_interval
        self.leftover = f"Ray job {submission_id} may still run"

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "paliflow.operators.trigger.RayJobTrigger",
            {
                "ray_conn_id": self.ray_conn_id,
                "submission_id": self.submission_id,
                "poll_interval": self.poll_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields the one event."""
        yield TriggerEvent(await self.follow())

    async def follow(self) -> dict[str, Any]:
        """The job's `outcome`, once there is one: `status` is Ray's, or `UNREACHABLE`."""
        async with RayJobHook(self.ray_conn_id) as ray:
            return await self._wait(ray)

    async def _wait(self, ray: RayJobHook) -> dict[str, Any]:
        seen = await self._relayed()
        failures, log_due = 0, 0.0
        while True:
            try:
                # The status first: what had ended by then has printed all it will.
                job = await ray.job(self.submission_id)
                ended = job["status"] in TERMINAL
                if ended or time.monotonic() >= log_due:
                    text = await ray.logs(self.submission_id)
                    log_due = time.monotonic() + len(text) / LOG_BYTES_PER_S
                    seen = await self._relay(text, seen, ended)
                if ended:
                    # Ray appends the log to its message; it has been relayed.
                    message = job["message"].partition(", last available logs")[0]
                    exit_code = job["driver_exit_code"]
                    return outcome(job["status"], message, exit_code, lines_of(text))
                failures = 0
            except RayJobError as error:
                failures += 1
                self.log.warning("Poll %d of at most %d failed: %s", failures, MAX_FAILURES, error)
                if failures == MAX_FAILURES:
                    return outcome("UNREACHABLE", str(error))
            await asyncio.sleep(self.poll_interval)

    async def on_kill(self) -> None:
        """Stops the job. Airflow calls it when a user clears the task or sets its state."""
        async with RayJobHook(self.ray_conn_id) as ray:
            await ray.stop(self.submission_id)
        self.log.info("Ray job %s was asked to stop", self.submission_id)

    async def _relay(self, text: str, seen: int, ended: bool) -> int:
        """Relays the lines of a log that are new and whole, or new where the job has ended.

        Returns:
            How many of its characters have been relayed by now; `seen` were before.
        """
        complete = len(text) if ended else text.rfind("\n") + 1
        if complete <= seen:
            return seen
        relay(lines_of(text[seen:complete]), self.log)
        await self._remember(complete)
        return complete

    # Without a task instance this runs on a worker, whose log ends with it.

    async def _relayed(self) -> int:
        if self.task_instance:
            from airflow.sdk.execution_time.xcom import XCom

            with contextlib.suppress(AirflowRuntimeError):
                return int(await XCom.aget_value(ti_key=self.task_instance, key=RELAYED) or 0)
        return 0

    async def _remember(self, characters: int) -> None:
        if ti := self.task_instance:
            from airflow.sdk.execution_time.xcom import XCom

            # A line that is shown twice is a small matter; failing the task for it is not.
            with contextlib.suppress(AirflowRuntimeError):
                await XCom.aset(
                    RELAYED,
                    characters,
                    dag_id=ti.dag_id,
                    task_id=ti.task_id,
                    run_id=ti.run_id,
                    map_index=-1 if ti.map_index is None else ti.map_index,
                )
