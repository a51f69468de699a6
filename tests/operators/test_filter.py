"""The operator of filters with the real job: what it returns and announces."""

from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from paliflow.configs import FilterSpec, FilterSummary
from paliflow.operators import FilterOperator
from paliflow.operators.links import OutputLink
from paliflow.tests.operators import dag_run
from paliflow.tests.summaries import made_up


def test_a_finished_run_of_filters_is_announced_with_its_manifest_and_counts(
    tmp_path: Path,
) -> None:
    fields: dict[str, Any] = {"input": "/photos", "filters": ["quality", "duplicates"]}
    spec = FilterSpec.parse({"output": str(tmp_path), "run_id": "done", **fields})
    Path(spec.location).mkdir()
    manifest = f"{spec.location}/kept.parquet"
    counts = {"kept": 7, "removed": 2, "unscored": 0, "errors": 1}
    written = {"spec": spec.model_dump(mode="json"), "manifest": manifest, **counts, "changed": 3}
    summary = made_up(spec.location, FilterSummary, **written)
    Path(spec.location, "_manifest.json").write_text(summary.model_dump_json())
    Path(spec.location, "_report.html").touch()
    with DAG("filtered") as dag:
        FilterOperator(task_id="filter", output=str(tmp_path), run_id="done", **fields)

    (task,) = dag_run.run(dag).get_task_instances()
    assert task.state == "success"
    assert task.xcom_pull(task_ids="filter") == summary.model_dump(mode="json", exclude={"spec"})
    assert task.xcom_pull(task_ids="filter", key="manifest") == manifest
    assert task.xcom_pull(task_ids="filter", key=OutputLink().xcom_key) == spec.location
    extra = {"run_id": "done", "location": spec.location, "manifest": manifest, **counts}
    announced = ("filter", tmp_path.as_uri(), {**extra, "output": str(tmp_path)})
    assert dag_run.asset_events("filtered") == [announced]
