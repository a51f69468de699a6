"""The hook and the trigger against a real Ray head."""

import asyncio
import json
import os
import time
import uuid
from typing import Any

import pytest

from paliflow.operators import RayJobHook, RayJobTrigger
from paliflow.operators.hook import RayJobError

SLEEP = "python -c 'import time; time.sleep(300)'"


def submit(ray: str, entrypoint: str) -> str:
    submission_id = f"test-{uuid.uuid4()}"

    async def go() -> None:
        async with RayJobHook(ray) as hook:
            await hook.submit(submission_id, entrypoint, runtime_env={}, metadata={})

    asyncio.run(go())
    return submission_id


def wait(trigger: RayJobTrigger) -> dict[str, Any]:
    async def go() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(go())
    json.dumps(payload)
    return dict(payload)


def trigger_for(ray: str, submission_id: str, **kwargs: Any) -> RayJobTrigger:
    return RayJobTrigger(ray_conn_id=ray, submission_id=submission_id, poll_interval=0.2, **kwargs)


def test_a_job_is_followed_to_its_exit_code(ray: str) -> None:
    job = submit(ray, 'python -c \'print("first"); print("last"); raise SystemExit(2)\'')
    event = wait(trigger_for(ray, job))
    assert (event["status"], event["exit_code"]) == ("FAILED", 2)
    assert event["tail"][-2:] == ["first", "last"]


def test_a_killed_trigger_stops_the_job(ray: str) -> None:
    trigger = trigger_for(ray, submit(ray, SLEEP))
    asyncio.run(trigger.on_kill())
    assert wait(trigger)["status"] == "STOPPED"


def test_a_job_is_stopped_at_the_deadline(ray: str) -> None:
    job = submit(ray, SLEEP)
    assert wait(trigger_for(ray, job, deadline=time.time()))["status"] == "TIMEOUT"
    assert wait(trigger_for(ray, job))["status"] == "STOPPED"


def test_the_same_submission_twice_is_one_job(ray: str) -> None:
    async def go() -> list[str]:
        async with RayJobHook(ray) as hook:
            for entrypoint in ("echo once", "echo twice"):
                await hook.submit(job, entrypoint, runtime_env={}, metadata={})
            return [(await hook.job(job))["entrypoint"], await hook.version()]

    job = f"test-{uuid.uuid4()}"
    entrypoint, version = asyncio.run(go())
    assert entrypoint == "echo once"
    assert version.startswith("2.")


def test_a_job_that_the_cluster_does_not_know_is_given_up(ray: str) -> None:
    event = wait(trigger_for(ray, "nobody-submitted-this"))
    assert event["status"] == "UNREACHABLE"
    assert "HTTP 404" in event["message"]


def test_an_error_names_the_connection_and_not_its_token(ray: str) -> None:
    os.environ["AIRFLOW_CONN_WRONG_TOKEN"] = os.environ["AIRFLOW_CONN_RAY_HEAD"].replace(
        ":a-token", ":the-wrong-token"
    )
    with pytest.raises(RayJobError, match=r"'wrong_token'.*HTTP 403; .*password") as refused:
        submit("wrong_token", "echo")
    assert "the-wrong-token" not in str(refused.value)


def test_nobody_listening_is_an_error_that_says_what_to_check() -> None:
    os.environ["AIRFLOW_CONN_NOBODY"] = "ray://127.0.0.1:9"
    with pytest.raises(RayJobError, match=r"http://127\.0\.0\.1:9/.*'nobody'.*host, port"):
        submit("nobody", "echo")
