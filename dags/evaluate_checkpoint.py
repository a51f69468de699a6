"""Measures a checkpoint on public benchmarks, each as a task of its own.

The data is downloaded by whoever runs it: `paliflow benchmarks describe NAME` says from where, and
`paliflow benchmarks check DATA` what is there. `paliflow scoreboard OUTPUT` puts the figures beside
the published ones.
"""

from pathlib import Path

from airflow.sdk import DAG

from paliflow.operators import EvaluateOperator

HOME = str(Path.home() / "paliflow")  # or "gs://shop/paliflow"
DATA, OUTPUT = f"{HOME}/benchmarks", f"{HOME}/evaluations"
BENCHMARKS = ["vqav2", "textvqa", "docvqa", "tallyqa", "cococap"]
CHECKPOINT = None  # the bundled one; e.g. "gs://shop/paligemma-3b-ft-vqav2-448.npz"

with DAG(
    "evaluate_checkpoint",
    description="The model card's figures of a checkpoint",
    schedule=None,
    catchup=False,
    tags=["paliflow"],
):
    EvaluateOperator.partial(
        task_id="evaluate",
        data=DATA,
        checkpoint=CHECKPOINT,
        output=OUTPUT,
        # ray_conn_id="ray_default",  # on a cluster; without it, on this machine
        deferrable=True,  # on a cluster: the task waits in the triggerer and holds no worker
    ).expand(benchmarks=BENCHMARKS)
