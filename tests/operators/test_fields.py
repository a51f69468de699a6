"""What a DAG author gets wrong is said when the DAG is parsed."""

from typing import Any

import pytest
from airflow.sdk import DAG
from hypothesis import given
from hypothesis import strategies as st

from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError
from paliflow.configs.run import RUN_ID
from paliflow.operators import AnnotateOperator
from paliflow.operators.job import asset_uri
from paliflow.operators.run import default_run_id

GOOD: dict[str, Any] = {"input": "in", "output": "/out", "prompts": ["caption en"]}


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"promts": ["caption en"]}, "promts"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"run_id": "a/b"}, "run_id='a/b'"),
        ({"sampling": {"temprature": 1}}, "sampling.temprature"),
        ({"dtype": "float16", "seed": "x"}, "dtype='float16'.*seed='x'"),
        ({"runtime_env": {"pip": ["x"]}}, "runtime_env.*ray_conn_id"),
        ({"prompts": []}, "AnnotateSpec: .*give prompts, or the prompt_column"),
        ({"max_error_fraction": 10}, "max_error_fraction=10"),
        ({"thumbnail": 0, "metadata_columns": "a"}, "metadata_columns='a'.*thumbnail=0"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_field(wrong: dict[str, Any], names: str) -> None:
    with pytest.raises((SpecError, TypeError, ValueError), match=f"(?s){names}"):
        AnnotateOperator(task_id="annotate", **GOOD | wrong)


def test_missing_fields_are_named() -> None:
    with pytest.raises(TypeError, match="'output'"):
        AnnotateOperator(task_id="annotate", input="in", prompts="ocr")


def test_a_manifests_prompts_are_enough() -> None:
    task = AnnotateOperator(
        task_id="annotate", input="in.csv", output="/out", prompt_column="question"
    )
    assert task.spec == {"input": "in.csv", "output": "/out", "prompt_column": "question"}


def test_values_that_airflow_renders_later_are_let_through() -> None:
    with DAG("rendered", params={"n": 3}) as dag:
        first = AnnotateOperator(task_id="first", **GOOD)
        task = AnnotateOperator(
            task_id="second",
            **GOOD | {"input": first.output, "prompts": dag.param("n")},
            batch_size="{{ params.n }}",
            sampling={"temperature": "{{ params.n }}"},
        )
    assert task.upstream_task_ids == {"first"}


def test_default_args_reach_the_fields_of_the_spec() -> None:
    with DAG("defaults", default_args={"batch_size": 8, "output": "/out"}):
        task = AnnotateOperator(task_id="annotate", input="in", prompts="ocr")
    assert task.spec == {"input": "in", "output": "/out", "prompts": "ocr", "batch_size": 8}


def test_every_field_can_be_given() -> None:
    fields = AnnotateSpec(run_id="r", **GOOD).model_dump()
    assert AnnotateOperator(task_id="annotate", **fields).spec == fields


names = st.text(min_size=1, max_size=250)


@given(names, names, names, st.integers(-1, 10_000))
def test_a_default_run_id_is_valid_and_stable(dag: str, task: str, run: str, index: int) -> None:
    run_id = default_run_id(dag, task, run, index)
    assert RUN_ID.fullmatch(run_id)
    assert run_id == default_run_id(dag, task, run, index)
    assert run_id != default_run_id(dag, task, run, index + 1)
    assert run_id != default_run_id(dag, task, run + ":", index)


def test_an_output_folder_is_one_asset_however_it_is_written() -> None:
    assert asset_uri("gs://bucket/out/") == asset_uri("gs://bucket/out") == "gs://bucket/out"
    assert asset_uri("/data/out/") == "file:///data/out"
    assert asset_uri("~/out").startswith("file:///")
