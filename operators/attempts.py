"""Which Ray job a try of a task follows: the one that an earlier try left, or a new one; and
whether another try comes."""

import uuid
from typing import Any

from paliflow.operators.hook import RayJobHook

STATE = "ray_job"
"""The key in Airflow's task state store of `{"submission_id", "max_tries"}`."""


def is_last_try(ti: Any) -> bool:
    """Whether Airflow makes no further try of a task instance if this one fails."""
    return bool(ti.try_number > ti.max_tries)


async def job_for(ray: RayJobHook, left: Any, max_tries: int) -> dict[str, Any]:
    """The state to store before anything is submitted under its `submission_id`.

    Airflow raises a task's `max_tries` when a user clears it, unless a worker is running it at that
    moment: it then ends the task, which stops its job (`on_kill`), and leaves the number. So the
    same number means a retry, a lost worker or such a clear. That try goes on with the job that was
    left, if nobody has stopped it. After another clear that job is stopped and has a successor
    under another id, because Airflow may tell the old trigger to stop its job when the new try runs
    already.

    Args:
        ray: not open yet.
        left: what an earlier try stored; None if there was none.
        max_tries: of the task instance, now.

    Raises:
        RayJobError: Ray could not be reached.
    """
    async with ray:
        if left and left["max_tries"] != max_tries:
            await ray.stop(left["submission_id"])
        # A job that Ray does not know may be on its way, if its submission broke off: under the
        # same id it cannot become two.
        elif left and await ray.status(left["submission_id"]) not in ("FAILED", "STOPPED"):
            return dict(left)
    return {"submission_id": f"paliflow-{uuid.uuid4()}", "max_tries": max_tries}
