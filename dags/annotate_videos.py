"""Turns a folder of videos into Parquet, on demand. Runs as it is, on the bundled films.

Whoever triggers it says what is asked about which videos. By which model, and where the rows go,
is this file's to say: others rely on what they find there.
"""

from pathlib import Path

from airflow.sdk import DAG, Param

from paliflow.operators import AnnotateOperator

with DAG(
    "annotate_videos",
    description="A folder of videos in, one Parquet row per sampled frame and prompt out",
    schedule=None,
    tags=["paliflow"],
    params={
        "input": Param(
            str(Path(__file__).parent / "sample_videos"),
            type="string",
            description="A video, a folder, a glob, or a manifest; local or gs://",
        ),
        "prompts": Param(
            ["ocr", "detect digit"],
            type="array",
            items={"type": "string"},
            description="Asked about every sampled frame",
        ),
        "fps": Param(2, type="number", exclusiveMinimum=0, description="Frames sampled a second"),
    },
) as dag:
    AnnotateOperator(
        task_id="annotate",
        input=dag.param("input"),
        output=str(Path.home() / "paliflow-output" / "videos"),  # a run adds run_id=<id>/ to it
        prompts=dag.param("prompts"),
        # video={"every_frames": 9, "clip": {"frames": 8}} asks about whole clips instead
        video={"fps": dag.param("fps"), "track": 0.3},
        max_error_fraction=0.5,  # one of the four bundled films breaks off on purpose
        # ray_conn_id="ray_default",  # on a cluster; without it, on this machine
        deferrable=True,  # on a cluster: the task waits in the triggerer and holds no worker
    )
