"""Annotates each day what a folder has gained. Runs as it is, on the bundled images."""

from pathlib import Path

from airflow.sdk import DAG

from paliflow.operators import AnnotateOperator

with DAG(
    "annotate_daily",
    description="What is new in a folder becomes Parquet, once a day",
    schedule="@daily",
    catchup=False,
    max_active_runs=1,  # so that a run knows what the one before it has done
    tags=["paliflow"],
):
    AnnotateOperator(
        task_id="annotate",
        input=str(Path(__file__).parent / "sample"),  # e.g. "gs://shop/products"
        output=str(Path.home() / "paliflow-output" / "daily"),
        prompts=["ocr", "caption en"],
        # Skips what an earlier run has answered by the same checkpoint. What failed is tried
        # again, so that on a day without news all that is left may be broken files.
        only_new=True,
        max_error_fraction=1.0,
        max_errors=1000,
        retries=2,
        # ray_conn_id="ray_default",  # on a cluster; without it, on this machine
        deferrable=True,  # on a cluster: the task waits in the triggerer and holds no worker
    )
