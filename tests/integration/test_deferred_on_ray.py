"""Airflow's real scheduler, triggerer and workers beside a real Ray cluster."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.dataset as ds
import pytest

import paliflow.dags
from paliflow.tests.operators.ray_head import TOKEN, end_session, free_port, ray_head

SAMPLE = Path(str(paliflow.dags.__file__)).parent / "sample"
DAG = """
from airflow.sdk import DAG
from paliflow.operators import AnnotateOperator

with DAG("deferred", schedule="@once"):
    AnnotateOperator(
        task_id="annotate",
        input={input!r},
        output={output!r},
        prompts=["ocr", "detect digit"],
        ray_conn_id="cluster",
        poll_interval=1,
    )
"""


@pytest.fixture
def airflow(tmp_path: Path) -> Iterator[httpx.Client]:
    """Airflow's REST API; its one DAG writes to `tmp_path / "out"`."""
    (tmp_path / "dags").mkdir()
    dag = DAG.format(input=str(SAMPLE), output=str(tmp_path / "out"))
    (tmp_path / "dags" / "deferred.py").write_text(dag)
    cluster = f"ray://:{TOKEN}@127.0.0.1:{ray_head()}"
    api = str(free_port())
    url = f"http://127.0.0.1:{api}"
    settings = {
        "API__BASE_URL": url,
        "API__PORT": api,
        "API__WORKERS": "1",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__PARALLELISM": "2",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
    }
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        **{f"AIRFLOW__{name}": value for name, value in settings.items()},
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW_CONN_CLUSTER": cluster,
        # Standalone starts its parts as `airflow`.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    log = tmp_path / "airflow.log"
    with log.open("wb") as output:
        standalone = subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with httpx.Client(base_url=url, timeout=30) as client:
            until(lambda: answers(client), 240, log)
            token = client.get("/auth/token").raise_for_status().json()["access_token"]
            client.headers["Authorization"] = f"Bearer {token}"
            yield client
    finally:
        end_session(standalone)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/api/v2/version").is_success
    except httpx.TransportError:
        return False


def until(done: Any, seconds: float, log: Path) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, log.read_text()[-5000:]
        time.sleep(0.5)


@pytest.mark.slow
def test_a_task_is_deferred_until_its_ray_job_has_written_parquet(
    airflow: httpx.Client, tmp_path: Path
) -> None:
    states: list[str] = []

    def finished() -> bool:
        tasks = airflow.get("/api/v2/dags/deferred/dagRuns/~/taskInstances").json()
        for task in tasks.get("task_instances", []):
            if task["state"] and task["state"] not in states[-1:]:
                states.append(task["state"])
        return states[-1:] in (["success"], ["failed"], ["up_for_retry"])

    until(finished, 240, tmp_path / "airflow.log")
    (run,) = airflow.get("/api/v2/dags/deferred/dagRuns").json()["dag_runs"]
    task = f"/api/v2/dags/deferred/dagRuns/{run['dag_run_id']}/taskInstances/annotate"
    log = airflow.get(f"{task}/logs/1", headers={"Accept": "application/json"}).text
    assert states[-1] == "success", log
    assert "deferred" in states

    summary = airflow.get(f"{task}/xcomEntries/return_value?deserialize=true").json()["value"]
    images = len([*SAMPLE.glob("*.png"), *SAMPLE.glob("*.jpg")])
    assert (summary["inputs"], summary["rows"]) == (images, 2 * images)
    assert ds.dataset(summary["location"], exclude_invalid_files=True).count_rows() == 2 * images
    assert log.count(f"{images} images in 1 shards") == 1
    assert TOKEN not in log

    (event,) = airflow.get("/api/v2/assets/events").json()["asset_events"]
    assert event["extra"] == {key: summary[key] for key in ("run_id", "location", "rows", "errors")}
