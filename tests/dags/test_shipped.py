"""The shipped DAGs parse without a warning and run as they are."""

import json
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.definitions.param import DagParam
from airflow.sdk.definitions.xcom_arg import PlainXComArg

import paliflow.dags
from paliflow.operators.fields import rendered_later
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


def test_a_shipped_task_on_a_cluster_holds_no_worker() -> None:
    tasks = [task for dag in shipped().dags.values() for task in dag.tasks]
    given = [getattr(task, "partial_kwargs", None) or vars(task) for task in tasks]  # mapped or not
    assert all(arguments["deferrable"] for arguments in given)


CHOSEN = {
    "annotate_images": {"input", "prompts"},
    "annotate_videos": {"input", "prompts", "fps"},
    "finetune_weekly": {"epochs", "learning_rate", "dtype"},
}
"""What whoever triggers a shipped DAG may choose; of others nothing."""


def test_who_triggers_a_shipped_dag_chooses_no_judge_no_model_and_no_place() -> None:
    for name, dag in shipped().dags.items():
        assert set(dag.params) == CHOSEN.get(name, set())
        for task in dag.tasks:
            rendered = templates(vars(task).get("spec", {}))
            assert all(isinstance(value, DagParam | PlainXComArg) for value in rendered)


def templates(value: Any) -> list[Any]:
    """The values inside another that Airflow renders when the task runs."""
    if isinstance(value, dict):
        return [found for inner in value.values() for found in templates(inner)]
    if isinstance(value, list | tuple):
        return [found for inner in value for found in templates(inner)]
    return [value] if rendered_later(value) else []


@pytest.mark.slow
def test_annotate_images_turns_the_sample_into_parquet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    dag = shipped().dags["annotate_images"]
    prompts = ["ocr", "detect digit"]  # two of its four: whoever triggers it may choose
    run = dag_run.run(dag, prompts=prompts)
    (task,) = run.get_task_instances()
    assert task.state == "success"

    summary = task.xcom_pull(task_ids="annotate")
    json.dumps(summary)
    scenes = set(json.loads((FOLDER / "sample" / "ground_truth.json").read_text()))
    broken = {path.name for path in (FOLDER / "sample").glob("broken_*")}
    assert summary["inputs"] == len(scenes | broken)
    assert summary["errors"] == len(broken) * len(prompts)

    assert sorted(rows(tmp_path / "paliflow-output")) == sorted(
        (image, prompt, "error" if image in broken else "ok")
        for image in scenes | broken
        for prompt in prompts
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folder"), [("annotate_daily", "daily"), ("annotate_on_arrival", "on_arrival")]
)
def test_an_incremental_dag_asks_again_only_about_what_failed(
    name: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    dag = shipped().dags[name]
    dag.task_dict["annotate"].retries = 0  # five minutes each
    first, second = (
        dag_run.run(dag, run_after=datetime(2026, 1, day, tzinfo=UTC)).get_task_instances()[0]
        for day in (1, 2)
    )
    assert (first.state, second.state) == ("success", "success")
    broken = len([*(FOLDER / "sample").glob("broken_*")])
    before, after = (task.xcom_pull(task_ids="annotate") for task in (first, second))
    assert (before["errors"], after["errors"]) == (after["rows"], after["rows"])
    assert after["inputs"] == broken
    answered = [row[:2] for row in rows(tmp_path / "paliflow-output" / folder) if row[2] == "ok"]
    assert len(answered) == len(set(answered)) == before["ok"] > 0


def rows(output: Path) -> list[tuple[str, str, str]]:
    """Image, prompt and status of each row in an output."""
    select = f"select source_uri, prompt, status from '{output}/run_id=*/part-*.parquet'"
    found = duckdb.execute(select).fetchall()
    return [(Path(uri).name, prompt, status) for uri, prompt, status in found]
