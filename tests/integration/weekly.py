"""DAGs that fine-tune, evaluate twice, ask somebody and promote, and that follow promotions.

Airflow's DAG processor reads them where `WEEKLY_FOLDER` is set.
"""

import os
from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Asset

from paliflow.operators import EvaluateOperator, FineTuneOperator, PromoteOperator

if "WEEKLY_FOLDER" in os.environ:
    folder = Path(os.environ["WEEKLY_FOLDER"])
    registry = folder / "registry"
    compiled = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    scored = {"held_out": {"path": str(folder / "held_out.jsonl"), "metrics": ["exact_match"]}}

    with DAG(
        "weekly",
        schedule=None,
        max_active_runs=1,
        params={"labels": "right"},
        default_args={
            "ray_conn_id": "cluster",
            "deferrable": True,
            "poll_interval": 1,
            "registry": str(registry),
            "runtime_env": {"env_vars": compiled},
            "actors": 1,  # so that training and evaluating fit into two cores
        },
    ):
        tuned = FineTuneOperator(
            task_id="finetune",
            checkpoint="registry://digits@production",
            train=[{"path": f"{folder}/{{{{ params.labels }}}}.jsonl"}],
            duration={"steps": 10},
            learning_rate=1e-3,
            batch_size=8,
            max_tokens=32,
            output=str(folder / "tuned"),
        )
        new, old = (
            EvaluateOperator(
                task_id=task_id,
                checkpoint=checkpoint,
                sets=scored,
                max_new_tokens=8,
                output=str(folder / "evaluations"),
            )
            for task_id, checkpoint in {
                "new": tuned.output["model"],
                "old": "registry://digits@production",
            }.items()
        )
        approve = ApprovalOperator(
            task_id="approve",
            subject="Promote {{ ti.xcom_pull('finetune', key='model') }}?",
            body="""{% set old = ti.xcom_pull('old', key='figures') %}
| figure | candidate | in use |
|---|---|---|
{% for name, value in ti.xcom_pull('new', key='figures').items() -%}
| {{ name }} | {{ '%.4f' % value }} | {{ '%.4f' % old[name] }} |
{% endfor %}""",
            response_timeout=timedelta(days=2),
            defaults="Reject",
        )
        promote = PromoteOperator(
            task_id="promote",
            name="digits",
            candidate=new.output["location"],
            incumbent=old.output["location"],
            metric="held_out/exact_match",
        )
        [new, old] >> approve >> promote

    with DAG("follows", schedule=[Asset((registry / "digits" / "production").as_uri())]):
        EmptyOperator(task_id="follow")
