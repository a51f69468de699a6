"""What goes through Airflow's database comes back."""

from airflow.sdk import DAG, Asset, AssetAlias
from airflow.serialization.serialized_objects import DagSerialization
from airflow.triggers.base import BaseTrigger

from paliflow.operators import (
    AnnotateOperator,
    EvaluateOperator,
    FineTuneOperator,
    PromoteOperator,
    RayJobTrigger,
)


def test_a_dag_with_the_operator_survives_serialization() -> None:
    with DAG("serialized", params={"input": "in"}) as dag:
        literal = AnnotateOperator(
            task_id="literal",
            input=dag.param("input"),
            output="gs://bucket/out",
            prompts=("ocr", "caption en"),
            ray_conn_id="ray_head",
            gcp_conn_id="google",
            runtime_env={"env_vars": {"A": "b"}},
            outlets=[Asset("gs://bucket/other")],
        )
        templated = AnnotateOperator(
            task_id="templated", input="in", output="/out/{{ ds }}", prompts="ocr"
        )
        AnnotateOperator.partial(task_id="mapped", output="/out", prompts=["ocr"]).expand(
            input=["a", "b"]
        )
    assert [asset.name for asset in literal.outlets] == ["gs://bucket/other", "gs://bucket/out"]
    assert templated.outlets == [AssetAlias("serialized.templated")]

    data = DagSerialization.to_dict(dag)
    DagSerialization.validate_schema(data)
    back = DagSerialization.from_dict(data)
    task = back.task_dict["literal"]
    assert vars(task)["spec"]["prompts"] == ["ocr", "caption en"]
    assert vars(task)["ray_conn_id"] == "ray_head"
    assert vars(task)["gcp_conn_id"] == "google"
    assert {link.name for link in task.operator_extra_links} == {"Ray job", "Output"}
    assert vars(task)["runtime_env"] == {"env_vars": {"A": "b"}}
    assert set(back.task_dict) == {"literal", "templated", "mapped"}


def test_nested_fields_survive_serialization_as_they_were_given() -> None:
    train = [{"path": "/in.jsonl", "weight": 2}, {"path": "{{ params.more }}"}]
    with DAG("weekly", params={"more": "/more.jsonl"}) as dag:
        tuned = FineTuneOperator(task_id="tune", train=train, output="/out", lora={"rank": 4})
        new, old = (
            EvaluateOperator(
                task_id=f"score_{name}",
                checkpoint=checkpoint,
                registry="/models",
                sets={"held_out": {"path": "/in.jsonl"}},
                output="/out",
            )
            for name, checkpoint in {
                "new": tuned.output["model"],
                "old": "registry://digits@production",
            }.items()
        )
        gate = PromoteOperator(
            task_id="gate",
            registry="/models",
            name="digits",
            candidate=new.output["location"],
            incumbent=old.output["location"],
            metric="held_out/exact_match",
            guards={"old/exact_match": 0.02},
        )
    assert gate.outlets == [AssetAlias("weekly.gate")]
    data = DagSerialization.to_dict(dag)
    DagSerialization.validate_schema(data)
    back = DagSerialization.from_dict(data).task_dict
    assert vars(back["tune"])["spec"]["train"] == train
    assert vars(back["gate"])["spec"]["guards"] == {"old/exact_match": 0.02}
    assert {link.name for link in back["gate"].operator_extra_links} == {"Ray job"}
    assert back["score_new"].upstream_task_ids == {"tune"}
    assert back["gate"].upstream_task_ids == {"score_new", "score_old"}


def test_a_trigger_is_rebuilt_from_what_it_serializes() -> None:
    trigger: BaseTrigger = RayJobTrigger(
        ray_conn_id="ray_head", submission_id="job", poll_interval=5.0
    )
    path, arguments = trigger.serialize()
    assert path == f"{RayJobTrigger.__module__}.{RayJobTrigger.__name__}"
    assert RayJobTrigger(**arguments).serialize() == (path, arguments)
