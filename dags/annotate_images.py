"""Turns a folder of images into Parquet, on demand. Runs as it is, on the bundled images.

Whoever triggers it says what is asked about which images. By which model, and where the rows go,
is this file's to say: others rely on what they find there.
"""

from pathlib import Path

from airflow.sdk import DAG, Param

from paliflow.operators import AnnotateOperator

with DAG(
    "annotate_images",
    description="A folder of images in, one Parquet row per image and prompt out",
    schedule=None,
    tags=["paliflow"],
    params={
        "input": Param(
            str(Path(__file__).parent / "sample"),
            type="string",
            description="An image, a folder, a glob, or a manifest; local or gs://",
        ),
        "prompts": Param(
            ["ocr", "caption en", "detect digit", "answer en how many digits are there?"],
            type="array",
            items={"type": "string"},
            description="Asked about every image",
        ),
    },
) as dag:
    AnnotateOperator(
        task_id="annotate",
        input=dag.param("input"),
        output=str(Path.home() / "paliflow-output"),  # a run adds run_id=<id>/ to it
        prompts=dag.param("prompts"),
        # checkpoint="registry://reader@production",  # the bundled handwriting reader without it
        # registry="gs://shop/models",
        max_error_fraction=0.2,  # 4 of the 36 bundled files are broken on purpose
        # ray_conn_id="ray_default",  # on a cluster; without it, on this machine
        deferrable=True,  # on a cluster: the task waits in the triggerer and holds no worker
    )
