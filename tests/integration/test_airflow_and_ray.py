"""From gs:// to gs:// by Airflow's real parts and a real Ray cluster, and what can end either."""

import io
from collections import Counter
from typing import Any

import pyarrow.parquet as pq
import pytest

from paliflow.tests.integration.conftest import IMAGES, PROMPTS, Services
from paliflow.tests.operators.ray_head import TOKEN

pytestmark = pytest.mark.slow
PATIENCE_S = 240.0
KEY = ("source_uri", "prompt")


class Run:
    """A DAG run of one task, triggered as it is made."""

    def __init__(self, services: Services, dag: str) -> None:
        self.services, self.dag = services, dag
        services.until(lambda: services.airflow.get(f"dags/{dag}").is_success, PATIENCE_S)
        run = services.airflow.post(f"dags/{dag}/dagRuns", json={"logical_date": None})
        self.url = f"dags/{dag}/dagRuns/{run.raise_for_status().json()['dag_run_id']}"

    def task(self, what: str = "", task: str = "annotate") -> Any:
        answer = self.services.airflow.get(
            f"{self.url}/taskInstances/{task}{what}", headers={"Accept": "application/json"}
        )
        return answer.raise_for_status().json()

    def until(self, *states: str) -> None:
        self.services.until(lambda: self.task()["state"] in states, PATIENCE_S)
        assert self.task()["state"] == states[0], self.log()

    def jobs(self) -> list[dict[str, Any]]:
        """Its Ray jobs, the oldest first."""
        jobs = self.services.ray.get("").raise_for_status().json()
        mine = [job for job in jobs if (job["metadata"] or {}).get("dag_id") == self.dag]
        return sorted(mine, key=lambda job: job["start_time"])

    def until_job(self, status: str, number: int = 0) -> str:
        """Waits until one of its jobs has this status; the job's id."""

        def found() -> str:
            jobs = self.jobs()[number : number + 1]
            return "".join(job["submission_id"] for job in jobs if job["status"] == status)

        return str(self.services.until(found, PATIENCE_S))

    def log(self, attempt: int = 0) -> str:
        entries = self.task(f"/logs/{attempt or self.task()['try_number']}")["content"]
        raised = [error["exc_value"] for e in entries for error in e.get("error_detail") or ()]
        return "\n".join([*(str(entry.get("event", entry)) for entry in entries), *raised])

    def check_output(self) -> dict[str, Any]:
        """The task's summary, after a look at what is in the bucket."""
        from google.cloud import storage

        summary: dict[str, Any] = self.task("/xcomEntries/return_value?deserialize=true")["value"]
        assert (summary["inputs"], summary["rows"]) == (len(IMAGES), len(PROMPTS) * len(IMAGES))
        prefix = summary["location"].removeprefix("gs://annotations/")
        rows: Counter[tuple[str, str]] = Counter()
        for blob in storage.Client().bucket("annotations").list_blobs(prefix=f"{prefix}/part-"):
            part = pq.read_table(
                io.BytesIO(blob.download_as_bytes()), columns=["source_uri", "prompt"]
            )
            rows.update((row["source_uri"], row["prompt"]) for row in part.to_pylist())
        assert rows == Counter(
            (f"gs://images/sample/{image.name}", prompt) for image in IMAGES for prompt in PROMPTS
        )
        return summary


def restart(services: Services, part: str) -> None:
    """Kills a part of Airflow and starts it again; the workers are the scheduler's."""
    services.kill(part)
    services.start(part, "airflow", part)


def times(log: str, line: str) -> int:
    return sum(line in entry for entry in log.splitlines())


PLANNED = f"{len(IMAGES)} images in 1 shards"


def test_a_task_is_deferred_until_its_job_has_written_parquet(services: Services) -> None:
    run = Run(services, "succeeds")
    run.until("deferred", "failed")
    job = run.until_job("RUNNING")
    links = str(run.task("/links"))
    assert f"/#/jobs/{job}" in links
    assert "console.cloud.google.com/storage/browser/annotations/succeeds/run_id=" in links
    run.until("success", "failed", "up_for_retry")
    summary = run.check_output()
    assert len(run.jobs()) == 1
    log = run.log()
    assert times(log, PLANNED) == 1
    assert TOKEN not in log

    asked = services.airflow.get("assets/events", params={"source_dag_id": "succeeds"})
    (event,) = asked.raise_for_status().json()["asset_events"]
    counts = ("rows", "errors", "accepted", "not_accepted")
    announced = (*counts, "tokens", "chip_seconds", "usd", "stages")
    extra = {key: summary[key] for key in ("run_id", "location", *announced)}
    assert event["extra"] == {**extra, "output": "gs://annotations/succeeds"}


def test_clearing_a_deferred_task_stops_its_job_and_starts_another(services: Services) -> None:
    run = Run(services, "cleared")
    run.until("deferred", "failed")
    restart(services, "scheduler")
    old = run.until_job("RUNNING")
    services.airflow.post(
        "dags/cleared/clearTaskInstances",
        json={
            "dry_run": False,
            "dag_run_id": run.url.rpartition("/")[2],
            "task_ids": ["annotate"],
            "only_failed": False,
        },
    ).raise_for_status()
    assert run.until_job("STOPPED") == old
    # Airflow tells the old trigger to stop its job when the new one runs.
    assert run.until_job("SUCCEEDED", number=1) != old
    run.until("success", "failed", "up_for_retry")
    run.check_output()
    assert len(run.jobs()) == 2


def test_ending_a_dag_run_stops_the_job_of_its_deferred_task(services: Services) -> None:
    run = Run(services, "ended")
    run.until("deferred", "failed")
    job = run.until_job("RUNNING")
    services.airflow.patch(run.url, json={"state": "failed"}).raise_for_status()
    assert run.until_job("STOPPED") == job
    assert run.task()["state"] in ("failed", "skipped")
    assert len(run.jobs()) == 1


def test_a_retry_after_a_lost_worker_goes_on_with_the_running_job(services: Services) -> None:
    run = Run(services, "lost")
    job = run.until_job("RUNNING")
    restart(services, "scheduler")
    services.until(lambda: run.task()["try_number"] == 2, PATIENCE_S)
    run.until("success", "failed")
    run.check_output()
    assert [found["submission_id"] for found in run.jobs()] == [job]
    assert times(run.log(), PLANNED) == 1


def test_another_triggerer_takes_over_and_repeats_no_line(services: Services) -> None:
    run = Run(services, "moved")
    run.until("deferred", "failed")
    services.until(lambda: times(run.log(), PLANNED), PATIENCE_S)
    restart(services, "triggerer")
    run.until("success", "failed", "up_for_retry")
    run.check_output()
    assert len(run.jobs()) == 1
    assert times(run.log(1), PLANNED) == 1
