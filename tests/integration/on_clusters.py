"""DAGs whose Ray clusters are made for them: copied to where Airflow looks."""

from airflow.sdk import DAG

from paliflow.operators import (
    AnnotateOperator,
    CreateRayClusterOperator,
    DeleteRayClusterOperator,
    RayJobCluster,
)

HOSTS = RayJobCluster(
    image="i:1", accelerator_type="v5e", topology="4x4", namespace="vision", ray_version="2.60.0"
)


def annotate(cluster: object, deferrable: bool = True) -> AnnotateOperator:
    """A job on a cluster, whatever that does."""
    return AnnotateOperator(
        task_id="annotate",
        input="gs://in",
        output="gs://out",
        prompts=["ocr"],
        retries=1,
        retry_delay=1,
        cluster=cluster,
        deferrable=deferrable,
        poll_interval=1,
    )


for name, deferrable in {"made": True, "marked": True, "held": False}.items():
    with DAG(f"cluster_{name}", schedule=None):
        annotate(HOSTS, deferrable)

for name in ("shared", "unwanted"):
    with DAG(f"cluster_{name}", schedule=None):
        create = CreateRayClusterOperator(
            task_id="create", cluster=HOSTS, deferrable=True, poll_interval=1, retries=1
        )
        delete = DeleteRayClusterOperator(task_id="delete", cluster=create.output)
        create >> annotate(create.output) >> delete.as_teardown(setups=create)
