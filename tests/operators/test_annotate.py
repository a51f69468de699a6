"""The operator with the real job, as a child process and on a Ray cluster."""

import asyncio
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from airflow.sdk import DAG
from PIL import Image

from paliflow.configs import AnnotateSpec, RunSummary
from paliflow.configs.summary import StageSeconds
from paliflow.operators import AnnotateOperator, RayJobTrigger, process
from paliflow.operators.links import OutputLink, RayJobLink
from paliflow.operators.run import default_run_id
from paliflow.tests.operators import dag_run
from paliflow.tests.summaries import made_up


@pytest.mark.parametrize(
    "where", ["child process", pytest.param("ray cluster", marks=pytest.mark.slow)]
)
def test_a_job_that_only_the_user_can_mend_is_not_retried(
    where: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capfd: pytest.CaptureFixture[str],
) -> None:
    on_ray: dict[str, Any] = {}
    if where == "ray cluster":
        on_ray = {"ray_conn_id": request.getfixturevalue("ray"), "deferrable": False}
    with DAG(f"no_images_{where.replace(' ', '_')}") as dag:
        AnnotateOperator(
            task_id="annotate",
            input="{{ params.nowhere }}",
            output=str(tmp_path / "out"),
            prompts="ocr",
            params={"nowhere": str(tmp_path / "$HOME")},
            retries=2,
            retry_delay=0.1,
            poll_interval=0.5,
            **on_ray,
        )
    (task,) = dag_run.run(dag).get_task_instances()
    assert task.state == "failed"
    assert task.try_number == 1
    assert f"input='{tmp_path}/$HOME': [Errno 2] No such file" in capfd.readouterr().out


def test_a_timeout_stops_the_job_that_a_worker_waits_for(ray: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    with DAG("timed_out") as dag:
        AnnotateOperator(
            task_id="annotate",
            input=str(tmp_path),
            output=str(tmp_path / "out"),
            prompts="ocr",
            ray_conn_id=ray,
            deferrable=False,
            poll_interval=0.5,
            execution_timeout=timedelta(seconds=4),
        )
    (task,) = dag_run.run(dag).get_task_instances()
    assert task.state == "failed"
    page = task.xcom_pull(task_ids="annotate", key=RayJobLink().xcom_key)
    trigger = RayJobTrigger(ray_conn_id=ray, submission_id=page.split("/")[-1], poll_interval=0.5)
    # What is stopped before it runs, Ray may call failed.
    assert asyncio.run(trigger.follow())["status"] in ("STOPPED", "FAILED")


def test_a_finished_run_is_reported_and_announced_as_an_asset(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"input": "/in", "prompts": ["ocr"], "report": False}
    summary = finished_run(AnnotateSpec(output=str(tmp_path), run_id="done", **fields))
    location = summary.location
    fields["run_id"] = "done"
    with DAG("finished", params={"output": str(tmp_path)}) as dag:
        AnnotateOperator(task_id="literal", output=str(tmp_path), **fields)
        AnnotateOperator(task_id="templated", output="{{ params.output }}", **fields)

    tasks = {task.task_id: task for task in dag_run.run(dag).get_task_instances()}
    for name, task in tasks.items():
        assert task.state == "success"
        assert task.xcom_pull(task_ids=name) == summary.model_dump(mode="json", exclude={"spec"})
        assert task.xcom_pull(task_ids=name, key=OutputLink().xcom_key) == location
    extra = {"run_id": "done", "location": location, "rows": 3, "errors": 1}
    extra |= {"accepted": 0, "not_accepted": 0, "tokens": 0, "chip_seconds": {}, "usd": None}
    extra["stages"] = asdict(StageSeconds())
    announced = (tmp_path.as_uri(), {**extra, "output": str(tmp_path)})
    assert dag_run.asset_events("finished") == [("literal", *announced), ("templated", *announced)]


def test_a_quarantined_run_fails_its_task_for_good_and_is_not_announced(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"input": "/in", "prompts": ["ocr"], "report": False}
    fields |= {"output": str(tmp_path), "run_id": "held"}
    check = {"name": "share of empty answers", "value": 0.5, "limit": 0.1, "passed": False}
    finished_run(AnnotateSpec.parse(fields), quarantined=True, checks=[check])
    with DAG("held") as dag:
        AnnotateOperator(task_id="annotate", retries=3, **fields)
    (task,) = dag_run.run(dag).get_task_instances()
    assert (task.state, task.try_number) == ("failed", 1)
    assert dag_run.asset_events("held") == []


@pytest.mark.parametrize("mapped", ["input", pytest.param("output", marks=pytest.mark.slow)])
def test_mapped_tasks_are_runs_of_their_own(mapped: str, tmp_path: Path) -> None:
    when = datetime(2026, 1, 1, tzinfo=UTC)
    dag_id, folders = f"mapped_{mapped}", [str(tmp_path / name) for name in ("a", "b")]
    fields: dict[str, Any] = {
        "input": "/in", "output": str(tmp_path), "prompts": "ocr", "report": False
    }  # fmt: skip
    made = [
        finished_run(
            AnnotateSpec(
                run_id=default_run_id(dag_id, "annotate", f"manual__{when.isoformat()}", index),
                **{**fields, mapped: folder},
            )
        )
        for index, folder in enumerate(folders)
    ]
    del fields[mapped]
    with DAG(dag_id) as dag:
        AnnotateOperator.partial(task_id="annotate", **fields).expand(**{mapped: folders})

    tasks = dag_run.run(dag, when).get_task_instances()
    assert [task.state for task in tasks] == ["success"] * 2
    returned = [task.xcom_pull(task_ids="annotate", map_indexes=task.map_index) for task in tasks]
    assert [summary["location"] for summary in returned] == [summary.location for summary in made]
    assert [(uri, extra["run_id"]) for _, uri, extra in dag_run.asset_events(dag_id)] == [
        (Path(summary.spec["output"]).as_uri(), summary.run_id) for summary in made
    ]


def finished_run(spec: AnnotateSpec, **more: Any) -> RunSummary:
    """The summary in the manifest that it leaves in the spec's output."""
    location = Path(spec.output, f"run_id={spec.run_id}")
    location.mkdir(parents=True)
    spec_json = spec.model_dump(mode="json")
    counts = {"inputs": 3, "rows": 3, "ok": 2, "errors": 1}
    summary = made_up(str(location), spec=spec_json, **counts, **more)
    (location / "_manifest.json").write_text(summary.model_dump_json())
    return summary


def test_ending_a_task_ends_everything_it_started(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    spec = AnnotateSpec(
        input=str(tmp_path), output=str(tmp_path / "out"), prompts=("ocr",), run_id="killed"
    )
    child = process.start("annotate", spec, {})
    family: list[psutil.Process] = []
    while not any("RuntimeEnvAgent" in member.name() for member in family):
        assert child.poll() is None, "it ended before Ray ran"
        time.sleep(0.05)
        family = psutil.Process(child.pid).children(recursive=True)
    process.terminate(child)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert child.wait(timeout=1) != 0
