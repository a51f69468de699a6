"""Answers one question about each image, accepts what is surely right, and holds odd runs back.

`make answers-demo` runs it on images that it makes. Labelled images say how often answers are right
(`held_out.jsonl`; docs/confidence.md). New images are annotated every day: `accepted` is true of
answers of which 95 % are right, the others are for somebody to look at. A run that looks unlike the
last good one is quarantined, and the task fails until `paliflow release` (docs/gates.md).
"""

from pathlib import Path

from airflow.sdk import DAG

from paliflow.operators import AnnotateOperator, CalibrateOperator, EvaluateOperator

HOME = str(Path.home() / "paliflow")  # or "gs://shop/paliflow"
QUESTION = {
    "ask": "answer en how many digits are there?",
    "choices": ["0..9"],  # or a list of labels
    "name": "digits",
}

with DAG(
    "annotate_accepted",
    description="Calibrate on labelled images, accept what is sure, hold back what looks odd",
    schedule="@daily",
    catchup=False,
    max_active_runs=1,  # so that a run is compared with the one before it
    tags=["paliflow"],
    default_args={
        # "ray_conn_id": "ray_default",  # on a cluster; without it, on this machine
        "deferrable": True,  # on a cluster: tasks wait in the triggerer and hold no worker
    },
):
    evaluated = EvaluateOperator(
        task_id="evaluate",
        sets={"held_out": {"path": f"{HOME}/held_out.jsonl", "metrics": ["exact_match"]}},
        prompts=[QUESTION],
        output=f"{HOME}/evaluations",
        run_id="held-out",  # asked once; give another with another checkpoint
    )
    calibrated = CalibrateOperator(
        task_id="calibrate", evaluation=evaluated.output["location"], output=f"{HOME}/calibration"
    )
    AnnotateOperator(
        task_id="annotate",
        input=f"{HOME}/photos",  # e.g. "gs://shop/photos/{{ ds }}"
        output=f"{HOME}/annotations",
        prompts=[QUESTION],
        calibration=calibrated.output["calibration"],
        accept={"precision": 0.95},
        gate={"max_errors": 0.05, "drift": {"false_alarm": 0.01}},
        retries=2,  # of crashes; a run that is quarantined is not tried again
    )
