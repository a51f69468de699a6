"""The operator with the real job, as a child process and on a Ray cluster."""

import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from airflow.sdk import DAG
from PIL import Image

from paliflow.configs import AnnotateSpec
from paliflow.operators import AnnotateOperator, process
from paliflow.tests.operators import dag_run


@pytest.mark.parametrize("where", ["child process", "ray cluster"])
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


def test_ending_a_task_ends_everything_it_started(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    spec = AnnotateSpec(
        input=str(tmp_path), output=str(tmp_path / "out"), prompts=("ocr",), run_id="killed"
    )
    child = process.start(spec)
    family: list[psutil.Process] = []
    while not any("raylet" in member.name() for member in family):
        assert child.poll() is None, "it ended before Ray ran"
        time.sleep(0.2)
        family = psutil.Process(child.pid).children(recursive=True)
    process.terminate(child)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert child.wait(timeout=1) != 0
