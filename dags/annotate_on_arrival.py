"""Annotates a folder's new images whenever they are announced. Runs as it is, on bundled ones.

The announcement is an event of the asset: of a task that writes images and has it among its
`outlets`, of an `AssetWatcher`, of a POST to `/api/v2/assets/events`, or of the button on the
asset's page.
"""

from pathlib import Path

from airflow.sdk import DAG, Asset

from paliflow.operators import AnnotateOperator

FOLDER = Path(__file__).parent / "sample"
IMAGES = Asset("paliflow_sample", FOLDER.as_uri())  # e.g. Asset("products", "gs://shop/products")

with DAG(
    "annotate_on_arrival",
    description="Images that are announced as an asset event become Parquet",
    schedule=[IMAGES],
    max_active_runs=1,  # so that a run knows what the one before it has done
    tags=["paliflow"],
):
    AnnotateOperator(
        task_id="annotate",
        input=str(FOLDER),
        output=str(Path.home() / "paliflow-output" / "on_arrival"),
        prompts=["detect digit"],
        # Events that come together make one run, and whatever else the folder holds is skipped
        # if it was answered before; what failed is tried again.
        only_new=True,
        max_error_fraction=1.0,
        max_errors=1000,
        # ray_conn_id="ray_default",  # on a cluster; without it, on this machine
        deferrable=True,  # on a cluster: the task waits in the triggerer and holds no worker
    )
