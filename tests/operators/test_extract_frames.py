"""The operator of extractions with the real job: what it returns and announces."""

from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from paliflow.configs import ExtractSpec, ExtractSummary
from paliflow.operators import ExtractFramesOperator
from paliflow.operators.links import OutputLink
from paliflow.tests.operators import dag_run
from paliflow.tests.summaries import made_up


def test_a_finished_extraction_is_announced_with_its_counts(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"input": "/videos", "video": {"every_s": 2}}
    spec = ExtractSpec(output=str(tmp_path), run_id="done", **fields)
    Path(spec.location).mkdir()
    summary = made_up(
        spec.location, ExtractSummary, spec=spec.model_dump(mode="json"), frames=7, errors=1
    )
    Path(spec.location, "_manifest.json").write_text(summary.model_dump_json())
    with DAG("extracted") as dag:
        ExtractFramesOperator(task_id="frames", output=str(tmp_path), run_id="done", **fields)

    (task,) = dag_run.run(dag).get_task_instances()
    assert task.state == "success"
    assert task.xcom_pull(task_ids="frames") == summary.model_dump(mode="json", exclude={"spec"})
    assert task.xcom_pull(task_ids="frames", key=OutputLink().xcom_key) == spec.location
    extra = {"run_id": "done", "location": spec.location, "frames": 7, "errors": 1}
    announced = ("frames", tmp_path.as_uri(), {**extra, "output": str(tmp_path)})
    assert dag_run.asset_events("extracted") == [announced]
