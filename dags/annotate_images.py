"""Turns a folder of images into Parquet, on demand. Runs as it is, on the bundled images."""

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
        "output": Param(
            str(Path.home() / "paliflow-output"),
            type="string",
            description="Folder or gs:// prefix; a run adds run_id=<id>/ to it",
        ),
        "prompts": Param(
            ["ocr", "caption en", "detect digit", "answer en how many digits are there?"],
            type="array",
            items={"type": "string"},
            description="Asked about every image",
        ),
        "checkpoint": Param(
            None,
            type=["null", "string"],
            description="PaliGemma weights, or registry://name@alias; the bundled handwriting "
            "reader if empty",
        ),
        "registry": Param(
            None,
            type=["null", "string"],
            description="The folder of registry.json, if the checkpoint is in a registry",
        ),
    },
) as dag:
    AnnotateOperator(
        task_id="annotate",
        input=dag.param("input"),
        output=dag.param("output"),
        prompts=dag.param("prompts"),
        checkpoint=dag.param("checkpoint"),
        registry=dag.param("registry"),
        max_error_fraction=0.2,  # 4 of the 36 bundled files are broken on purpose
        # ray_conn_id="ray_default",  # on a cluster; without it, on this machine
    )
