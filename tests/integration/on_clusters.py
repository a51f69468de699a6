"""DAGs whose Ray clusters are made for them: copied to where Airflow looks."""

import os

from airflow.sdk import DAG

from paliflow.operators import (
    AnnotateOperator,
    CreateRayClusterOperator,
    DeleteRayClusterOperator,
    RayJobCluster,
)

FOLDER = os.environ.get("CLUSTERS_FOLDER", "")
HOSTS = RayJobCluster(
    image="i:1", accelerator_type="v5e", topology="4x4", namespace="vision", ray_version="2.60.0"
)
AGAIN = {"retries": 6, "retry_delay": 1}


def annotate(name: str, cluster: object, deferrable: bool = True) -> AnnotateOperator:
    """A job on a cluster."""
    return AnnotateOperator(
        task_id="annotate",
        input=f"{FOLDER}/images",
        output=f"{FOLDER}/{name}",
        prompts=["ocr"],
        shard_size=1,
        report=False,
        cluster=cluster,
        deferrable=deferrable,
        poll_interval=1,
        **AGAIN,
    )


for name in ("killed", "waiting", "finishing", "marked", "unlucky"):
    with DAG(f"cluster_{name}", schedule=None):
        annotate(name, HOSTS, deferrable=name != "waiting")

for name in ("shared", "unwanted"):
    with DAG(f"cluster_{name}", schedule=None):
        create = CreateRayClusterOperator(
            task_id="create", cluster=HOSTS, deferrable=True, poll_interval=1, **AGAIN
        )
        delete = DeleteRayClusterOperator(task_id="delete", cluster=create.output, **AGAIN)
        create >> annotate(name, create.output) >> delete.as_teardown(setups=create)
