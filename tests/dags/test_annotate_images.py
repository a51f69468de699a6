"""The shipped DAGs parse without a warning; `annotate_images` runs as it is."""

import json
import warnings
from pathlib import Path

import duckdb
from airflow.dag_processing.dagbag import DagBag

import paliflow.dags
from paliflow.tests.operators import dag_run

FOLDER = Path(str(paliflow.dags.__file__)).parent


def shipped() -> DagBag:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        return DagBag(FOLDER)


def test_every_shipped_dag_is_imported_without_a_deprecation_warning() -> None:
    bag = shipped()
    assert bag.import_errors == {}
    modules = {path.stem for path in FOLDER.glob("[a-z]*.py")}
    assert {Path(dag.fileloc).stem for dag in bag.dags.values()} == modules


def test_annotate_images_turns_the_sample_into_parquet(tmp_path: Path) -> None:
    dag = shipped().dags["annotate_images"]
    run = dag_run.run(dag, output=str(tmp_path))
    (task,) = run.get_task_instances()
    assert task.state == "success"

    summary = task.xcom_pull(task_ids="annotate")
    json.dumps(summary)
    scenes = set(json.loads((FOLDER / "sample" / "ground_truth.json").read_text()))
    broken = {path.name for path in (FOLDER / "sample").glob("broken_*")}
    prompts = list(dag.params["prompts"])
    assert summary["inputs"] == len(scenes | broken)
    assert summary["errors"] == len(broken) * len(prompts)

    select = f"select source_uri, prompt, status from '{tmp_path}/run_id=*/part-*.parquet'"
    rows = [(Path(uri).name, *rest) for uri, *rest in duckdb.execute(select).fetchall()]
    assert sorted(rows) == sorted(
        (image, prompt, "error" if image in broken else "ok")
        for image in scenes | broken
        for prompt in prompts
    )
