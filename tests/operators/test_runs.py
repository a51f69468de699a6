"""What the operators of fine-tuning and evaluation return and announce: with the real jobs."""

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from paliflow.configs import EvaluateSpec, EvaluateSummary, FineTuneSpec, FineTuneSummary
from paliflow.operators import EvaluateOperator, FineTuneOperator
from paliflow.operators.links import OutputLink
from paliflow.tests.operators import dag_run
from paliflow.tests.summaries import made_up

FIGURES = {"held_out/exact_match": 0.75}
CASES: dict[str, Any] = {
    "finetune": (
        FineTuneOperator,
        FineTuneSpec,
        FineTuneSummary,
        {"train": [{"path": "/examples.jsonl"}]},
        {
            "model": "/runs/model.npz", "model_sha256": "c" * 64, "steps": 10, "best_step": 8,
            "examples": 320, "errors": 2, "loss": 0.125, "figures": FIGURES,
            "examples_per_second": 4.0,
        },
        ("model", "loss", "figures", "chip_seconds", "usd", "stages"),
    ),
    "evaluate": (
        EvaluateOperator,
        EvaluateSpec,
        EvaluateSummary,
        {"sets": {"held_out": {"path": "/examples.jsonl"}}},
        {"examples": 64, "errors": 1, "examples_sha256": "e" * 64, "figures": FIGURES},
        ("checkpoint", "figures", "chip_seconds", "usd", "stages"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("job", [pytest.param("finetune", marks=pytest.mark.slow), "evaluate"])
def test_a_finished_run_is_announced_with_its_figures(job: str, tmp_path: Path) -> None:
    operator, spec, kind, fields, figures, announced = CASES[job]
    given = {"output": str(tmp_path), "run_id": "done", **fields}
    made = spec(**given)
    Path(made.location).mkdir()
    summary = made_up(made.location, kind, spec=made.model_dump(mode="json"), **figures)
    Path(made.location, "_manifest.json").write_text(summary.model_dump_json())
    with DAG(f"finished_{job}") as dag:
        operator(task_id="task", **given)

    (task,) = dag_run.run(dag).get_task_instances()
    assert task.state == "success"
    returned = task.xcom_pull(task_ids="task")
    assert returned == summary.model_dump(mode="json", exclude={"spec"})
    assert task.xcom_pull(task_ids="task", key=OutputLink().xcom_key) == made.location
    extra = {key: returned[key] for key in ("run_id", "location", *announced)}
    assert dag_run.asset_events(f"finished_{job}") == [
        ("task", tmp_path.as_uri(), {**extra, "output": str(tmp_path)})
    ]


@pytest.mark.slow
def test_a_task_whose_max_tries_were_raised_has_the_run_that_was_started_over(
    tmp_path: Path,
) -> None:
    operator, spec, kind, fields, figures, _ = CASES["evaluate"]
    given = {"output": str(tmp_path), "run_id": "x", **fields}
    old, new = spec(**given), spec(**given | {"run_id": "x+2", "generation": 4})
    for each in (old, new):
        Path(each.location, "_plan").mkdir(parents=True)
    Path(old.location, "_manifest.json").write_text('{"superseded_by": "x+2"}')
    Path(new.location, "_plan", "generation.json").write_text('{"generation": 4}')
    summary = made_up(new.location, kind, spec=new.model_dump(mode="json"), **figures)
    Path(new.location, "_manifest.json").write_text(summary.model_dump_json())
    with DAG("cleared") as dag:
        operator(task_id="task", retries=4, **given)

    (task,) = dag_run.run(dag).get_task_instances()
    assert task.state == "success"
    assert task.xcom_pull(task_ids="task")["location"] == new.location
    assert task.xcom_pull(task_ids="task", key=OutputLink().xcom_key) == new.location
