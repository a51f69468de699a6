"""The hook and the trigger against a real Ray head."""

import asyncio
import json
import os
import shlex
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from airflow.cli.cli_parser import get_parser
from airflow.sdk.bases.operator import TriggerFailureReason
from airflow.sdk.exceptions import TaskDeferralTimeout

from paliflow.operators import AnnotateOperator, RayJobHook, RayJobTrigger, hook
from paliflow.operators.attempts import STATE, job_for
from paliflow.operators.hook import RayJobError
from paliflow.tests.servers import running

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
    # Ray writes which command it runs, sometimes after the first lines of that.
    own = [line for line in event["tail"] if not line.startswith("Running entrypoint")]
    assert own[-2:] == ["first", "last"]


def test_a_line_separator_in_a_name_does_not_end_the_summary(ray: str) -> None:
    code = 'print("paliflow-summary: {\\"location\\": \\"a" + chr(8232) + "b\\"}")'
    event = wait(trigger_for(ray, submit(ray, f"python -c {shlex.quote(code)}")))
    assert event["summary"] == {"location": "a\u2028b"}


def test_a_killed_trigger_stops_the_job(ray: str) -> None:
    trigger = trigger_for(ray, submit(ray, SLEEP))
    asyncio.run(trigger.on_kill())
    assert wait(trigger)["status"] == "STOPPED"


def test_a_job_that_is_stopped_while_its_submission_is_on_its_way_does_not_run(ray: str) -> None:
    job = f"paliflow-{uuid.uuid4()}"

    async def go() -> bool:
        async with RayJobHook(ray) as hook:
            stop = asyncio.create_task(hook.stop(job))
            await asyncio.sleep(0.5)  # the cluster does not know it yet
            await hook.submit(job, SLEEP, runtime_env={}, metadata={})
            return await stop

    assert asyncio.run(go())
    assert wait(trigger_for(ray, job))["status"] in ("STOPPED", "FAILED")


class Store(dict[str, Any]):
    """What `context["task_state_store"]` can do."""

    set = dict.__setitem__
    delete = dict.__delitem__


def test_a_job_that_airflow_has_given_up_is_stopped_and_forgotten(ray: str) -> None:
    job = submit(ray, SLEEP)
    store = Store({STATE: {"submission_id": job, "max_tries": 1}})
    task = AnnotateOperator(
        task_id="annotate", input="in", output="/out", prompts="ocr", ray_conn_id=ray
    )
    context: Any = {"task_state_store": store}
    with pytest.raises(TaskDeferralTimeout):
        task.resume_execution("__fail__", {"error": TriggerFailureReason.TRIGGER_TIMEOUT}, context)
    assert wait(trigger_for(ray, job))["status"] == "STOPPED"
    assert store == {}


def left(job: str) -> dict[str, Any]:
    return {"submission_id": job, "max_tries": 3}


def next_job(ray: str, job: str, max_tries: int) -> dict[str, Any]:
    return asyncio.run(job_for(RayJobHook(ray), left(job), max_tries))


def test_a_retry_goes_on_with_a_job_unless_it_failed_or_was_stopped(ray: str) -> None:
    succeeded, failed, running = (submit(ray, what) for what in ("true", "false", SLEEP))
    assert next_job(ray, running, 3) == left(running)
    assert wait(trigger_for(ray, succeeded))["status"] == "SUCCEEDED"
    assert next_job(ray, succeeded, 3) == left(succeeded)
    assert wait(trigger_for(ray, failed))["status"] == "FAILED"
    assert next_job(ray, failed, 3)["submission_id"] != failed
    asyncio.run(trigger_for(ray, running).on_kill())
    assert wait(trigger_for(ray, running))["status"] == "STOPPED"
    assert next_job(ray, running, 3)["submission_id"] != running


def test_an_id_that_ray_does_not_know_is_kept_in_case_it_is_on_its_way(ray: str) -> None:
    assert next_job(ray, "not-arrived-yet", 3) == left("not-arrived-yet")


def test_clearing_stops_the_job_and_names_another(
    ray: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(ray, SLEEP)
    new = next_job(ray, job, 5)
    assert new["submission_id"] != job
    assert new["max_tries"] == 5
    assert wait(trigger_for(ray, job))["status"] == "STOPPED"
    monkeypatch.setattr(hook, "STARTING_S", 0.0)
    assert next_job(ray, "long-forgotten", 5)["max_tries"] == 5


def test_a_submission_whose_answer_is_lost_becomes_one_job(
    ray: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = str(hook.base_url(RayJobHook.get_connection(ray)))
    posts: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {"Authorization": self.headers["Authorization"]}
            answer = httpx.post(upstream + self.path, content=body, headers=headers, timeout=60)
            posts.append(answer.text)
            if len(posts) == 1:
                return  # Ray has accepted it; the connection breaks before the answer
            self.send_response(answer.status_code)
            self.end_headers()
            self.wfile.write(answer.content)

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Proxy)) as port:
        _, password = os.environ["AIRFLOW_CONN_RAY_HEAD"].split("@")[0].rsplit(":", 1)
        uri = f"ray://:{password}@127.0.0.1:{port}"
        monkeypatch.setenv("AIRFLOW_CONN_LOSSY", uri)
        job = submit("lossy", "echo once")
    assert len(posts) == 2
    assert "already exists" in posts[1]
    assert "once" in wait(trigger_for(ray, job))["tail"]


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


@pytest.mark.slow
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
    works, message = RayJobHook("wrong_token").test_connection()
    assert not works
    assert "HTTP 403" in message
    assert "the-wrong-token" not in message


def test_airflows_command_line_tests_a_connection(
    ray: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # the command sets it for good
    arguments = get_parser().parse_args(["connections", "test", ray])
    arguments.func(arguments)
    assert "Connection success" in capsys.readouterr().out


def test_nobody_listening_is_an_error_that_says_what_to_check() -> None:
    os.environ["AIRFLOW_CONN_NOBODY"] = "ray://127.0.0.1:9"
    with pytest.raises(RayJobError, match=r"http://127\.0\.0\.1:9/.*'nobody'.*host, port"):
        submit("nobody", "echo")
