"""Fine-tunes once a week on labelled images, and uses what came out only if it is surely better.

`make finetune-demo` runs it on images that it makes. Who asks `registry://reader@production`
next, as `annotate_daily` may, asks the model that was promoted; a DAG scheduled on the asset
`<registry>/reader/production` runs as soon as there is one.

Whoever triggers it says how long and how fast to learn. What is learnt, what judges, and where
models and evaluations are kept is this file's to say: who could choose one of them could have a
model of their own promoted.
"""

from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Param

import paliflow.operators
from paliflow.operators import (
    CalibrateOperator,
    EvaluateOperator,
    FineTuneOperator,
    PromoteOperator,
)

HOME = str(Path.home() / "paliflow")  # or "gs://shop/paliflow"
LABELS = f"{HOME}/labels.jsonl"  # to learn: a table, COCO's .json, or reviewed annotations
OLD_LABELS = f"{HOME}/old_labels.jsonl"  # what the model can do, so that it does not forget
SETS = {
    name: {"path": f"{HOME}/{name}.jsonl", "metrics": ["exact_match"]}
    for name in ("held_out", "old_held_out")
}
REGISTRY, OUTPUT = f"{HOME}/models", f"{HOME}/finetuning"
BUNDLED = Path(paliflow.operators.__file__).parents[1] / "model" / "bundled" / "model.npz"
IN_USE = "registry://reader@production"
CALIBRATE = False  # True: confidences are fitted to the candidate's answers, a hundred at least
ASK_SOMEBODY = False  # True: nothing is promoted before somebody has approved of the figures

with DAG(
    "finetune_weekly",
    description="New examples, fine-tune, evaluate both, promote what is better or say why not",
    schedule="@weekly",
    catchup=False,
    max_active_runs=1,
    tags=["paliflow"],
    params={
        "epochs": Param(5, type="number", exclusiveMinimum=0),
        "learning_rate": Param(1e-5, type="number", exclusiveMinimum=0),
        "dtype": Param(
            "bfloat16",
            enum=["bfloat16", "float32"],
            description="Of training's products; most CPUs are faster in float32",
        ),
    },
    default_args={
        # "ray_conn_id": "ray_default",  # on a cluster; without it, on this machine
        "deferrable": True,  # on a cluster: tasks wait in the triggerer and hold no worker
    },
) as dag:
    first = PromoteOperator(
        task_id="first", registry=REGISTRY, name="reader", checkpoint=str(BUNDLED)
    )
    finetune = FineTuneOperator(
        task_id="finetune",
        train=[{"path": LABELS}, {"path": OLD_LABELS}],
        validation={name: {**chosen, "max_examples": 200} for name, chosen in SETS.items()},
        validate_every={"percent": 50},
        checkpoint=IN_USE,
        registry=REGISTRY,
        output=f"{OUTPUT}/models",
        duration={"epochs": dag.param("epochs")},
        learning_rate=dag.param("learning_rate"),
        dtype=dag.param("dtype"),
    )
    candidate = EvaluateOperator(
        task_id="evaluate_candidate",
        sets=SETS,
        checkpoint=finetune.output["model"],
        output=f"{OUTPUT}/evaluations",
    )
    incumbent = EvaluateOperator(
        task_id="evaluate_incumbent",
        sets=SETS,
        checkpoint=IN_USE,
        registry=REGISTRY,
        output=f"{OUTPUT}/evaluations",
    )
    promote = PromoteOperator(
        task_id="promote",
        registry=REGISTRY,
        name="reader",
        candidate=candidate.output["location"],
        incumbent=incumbent.output["location"],
        metric="held_out/exact_match",
        min_gain=0.01,
        guards={"old_held_out/exact_match": 0.05},
    )
    first >> [finetune, incumbent]
    if CALIBRATE:  # the version that is promoted has it, and annotations by it have confidences
        evaluation = candidate.output["location"]
        CalibrateOperator(task_id="calibrate", evaluation=evaluation) >> promote
    if ASK_SOMEBODY:
        approve = ApprovalOperator(
            task_id="approve",
            subject="Promote {{ ti.xcom_pull('finetune', key='model') }}?",
            body="""{% set before = ti.xcom_pull('evaluate_incumbent', key='figures') %}
| figure | candidate | in use |
|---|---|---|
{% for name, value in ti.xcom_pull('evaluate_candidate', key='figures').items() -%}
| {{ name }} | {{ '%.4f' % value }} | {{ '%.4f' % before[name] }} |
{% endfor %}""",
            response_timeout=timedelta(days=2),
            defaults="Reject",
        )
        [candidate, incumbent] >> approve >> promote
