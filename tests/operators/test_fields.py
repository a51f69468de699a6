"""What a DAG author gets wrong is said when the DAG is parsed."""

import inspect
import runpy
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator
from hypothesis import given
from hypothesis import strategies as st

from paliflow.configs import (
    AnnotateSpec,
    CalibrateSpec,
    EvaluateSpec,
    ExtractSpec,
    FilterSpec,
    FineTuneSpec,
    PromoteSpec,
    ReleaseSpec,
)
from paliflow.configs.base import Spec, SpecError
from paliflow.configs.run import RUN_ID
from paliflow.operators import (
    AnnotateOperator,
    CalibrateOperator,
    EvaluateOperator,
    ExtractFramesOperator,
    FilterOperator,
    FineTuneOperator,
    PromoteOperator,
    ReleaseOperator,
    job,
)
from paliflow.operators.job import asset_uri
from paliflow.operators.links import browsable
from paliflow.operators.run import default_run_id

GOOD: dict[str, Any] = {"input": "in", "output": "/out", "prompts": ["caption en"]}
TAKE: dict[str, Any] = {"input": "in", "output": "/out", "video": {"every_s": 2}}
SIFT: dict[str, Any] = {"input": "in", "output": "/out", "filters": ["quality"]}
TUNE: dict[str, Any] = {"train": [{"path": "/in.jsonl"}], "output": "/out"}
SCORE: dict[str, Any] = {"sets": {"held_out": {"path": "/in.jsonl"}}, "output": "/out"}
GATE: dict[str, Any] = {
    "registry": "/models", "name": "digits", "candidate": "/new", "incumbent": "/old",
    "metric": "held_out/exact_match",
}  # fmt: skip
OPERATORS: list[Any] = [
    pytest.param(AnnotateOperator, AnnotateSpec, GOOD, id="annotate"),
    pytest.param(ExtractFramesOperator, ExtractSpec, TAKE, id="extract"),
    pytest.param(FilterOperator, FilterSpec, SIFT, id="filter"),
    pytest.param(FineTuneOperator, FineTuneSpec, TUNE, id="finetune"),
    pytest.param(EvaluateOperator, EvaluateSpec, SCORE, id="evaluate"),
    pytest.param(PromoteOperator, PromoteSpec, GATE, id="promote"),
    pytest.param(CalibrateOperator, CalibrateSpec, {"evaluation": "/e"}, id="calibrate"),
    pytest.param(ReleaseOperator, ReleaseSpec, {"output": "/out", "why": "x"}, id="release"),
]


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"promts": ["caption en"]}, "AnnotateOperator has no promts, did you mean prompts"),
        ({"prompt": "ocr"}, "AnnotateOperator has no prompt, did you mean prompts"),
        ({"retires": 2}, "AnnotateOperator has no retires, did you mean retries"),
        ({"zzz": 2}, "AnnotateOperator has no zzz; Its fields are accelerator_type, accelerators_"),
        ({"accelerators_per_actor": {"TPU": 3}}, "TPU=3: a process has 1, 2, 4 or 8 chips"),
        ({"prompts": "Detect digit"}, "is spelt 'detect'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"run_id": "a/b"}, "run_id='a/b'"),
        ({"sampling": {"temprature": 1}}, "sampling.temprature"),
        ({"dtype": "float16", "seed": "x"}, "seed='x'.*dtype='float16'"),
        ({"runtime_env": {"pip": ["x"]}}, "runtime_env.*ray_conn_id"),
        ({"pass_env": ["A"], "ray_conn_id": "r"}, "pass_env=.*runtime_env's env_vars"),
        ({"pass_env": "AWS_*"}, "pass_env='AWS_.*a list"),
        ({"prompts": []}, "AnnotateSpec: .*give prompts, or the prompt_column"),
        ({"max_error_fraction": 10}, "max_error_fraction=10"),
        ({"thumbnail": 0, "metadata_columns": 5}, "metadata_columns=5.*thumbnail=0"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_field(wrong: dict[str, Any], names: str) -> None:
    with pytest.raises((SpecError, TypeError, ValueError), match=f"(?s){names}"):
        AnnotateOperator(task_id="annotate", **GOOD | wrong)


@pytest.mark.parametrize(
    ("operator", "good", "wrong", "names"),
    [
        (FineTuneOperator, TUNE, {"train": [{"path": "a", "weigth": 2}]},
         r"train\.0\.weigth: unknown field, did you mean weight"),
        (FineTuneOperator, TUNE, {"train": [{"weight": 2}]}, r"train\.0\.path: required"),
        (FineTuneOperator, TUNE, {"train": []}, r"train=\[\]"),
        (FineTuneOperator, TUNE, {"validation": {"new": {"path": "a", "metrics": ["bleu"]}}},
         r"validation\.new\.metrics\.0='bleu'"),
        (FineTuneOperator, TUNE, {"duration": {"steps": 3, "epochs": 2}}, "duration=.*one of"),
        (FineTuneOperator, TUNE, {"lora": {"rnk": 4}}, r"lora\.rnk: .*did you mean rank"),
        (FineTuneOperator, TUNE, {"best": "new/loss"}, "best='new/loss': no validation set"),
        (FineTuneOperator, TUNE, {"batch_size": 3, "workers": 2}, "batch_size=3 has to divide"),
        (ExtractFramesOperator, TAKE, {"video": {"clip": {"frames": 8}}}, "leave out clip"),
        (FilterOperator, SIFT, {"filters": [{"filter": "duplicates", "max_distnce": 3}]},
         r"filters\.0\.duplicates\.max_distnce: unknown field, did you mean max_distance"),
        (FilterOperator, SIFT, {"filters": ["personal_data"]}, "text_columns: filters of texts"),
        (ExtractFramesOperator, TAKE, {"video": {"count": 0}}, r"video\.count=0"),
        (EvaluateOperator, SCORE, {"sets": {}}, r"sets=\{\}"),
        (EvaluateOperator, SCORE, {"checkpoint": "registry://a@b"}, "needs `registry`"),
        (PromoteOperator, GATE, {"guards": {"old/loss": -1}}, r"guards\.old/loss=-1"),
        (PromoteOperator, GATE, {"checkpoint": "/a.npz"}, "not both"),
    ],
)  # fmt: skip
def test_a_wrong_value_in_a_nested_field_is_named_by_its_path(
    operator: type[BaseOperator], good: dict[str, Any], wrong: dict[str, Any], names: str
) -> None:
    with pytest.raises(SpecError, match=names):
        operator(task_id="task", **good | wrong)


def test_what_is_wrong_beside_a_template_is_found_nevertheless() -> None:
    sources = [{"path": "{{ params.path }}", "weight": "{{ params.weight }}", "min_scor": 0.5}]
    with pytest.raises(SpecError, match=r"FineTuneSpec: train\.0\.min_scor: ") as refused:
        FineTuneOperator(task_id="task", train=sources, output="/out", best="{{ params.best }}")
    assert "params" not in str(refused.value)
    del sources[0]["min_scor"]
    FineTuneOperator(task_id="task", train=sources, output="/out", best="{{ params.best }}")


def test_tasks_are_deferrable_where_airflows_configuration_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not AnnotateOperator(task_id="annotate", **GOOD).deferrable
    assert AnnotateOperator(task_id="annotate", **GOOD, deferrable=True).deferrable
    for configured in (True, False):
        monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", str(configured))
        operator = runpy.run_path(job.__file__)["JobOperator"]  # Airflow's default at import
        default = inspect.signature(operator.__init__).parameters["deferrable"].default
        assert default is configured


def test_missing_fields_are_named() -> None:
    with pytest.raises(TypeError, match="'output'"):
        AnnotateOperator(task_id="annotate", input="in", prompts="ocr")


def test_a_misspelt_field_is_named_before_the_one_that_is_missing_for_it() -> None:
    with pytest.raises(TypeError, match=r"has no outptu, did you mean output\?"):
        AnnotateOperator(task_id="annotate", input="in", outptu="/out", prompts="ocr")


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"outptu": "/out"}, r"has no outptu, did you mean output\?"),
        ({"output": "/out", "batch_size": 0}, "AnnotateSpec: batch_size=0"),
        ({"sampling": {"temprature": 1}}, "sampling.temprature: .*did you mean temperature"),
        ({"accelerators_per_actor": {"tpu": 4}}, "did you mean TPU"),
    ],
)
def test_partial_checks_what_it_has(given: dict[str, Any], names: str) -> None:
    with DAG("mapped"), pytest.raises((SpecError, TypeError), match=names):
        AnnotateOperator.partial(task_id="annotate", **given)


def test_partial_leaves_open_what_is_mapped() -> None:
    with DAG("mapped"):
        given = {"output": "/out", "batch_size": "{{ params.n }}", "retries": 2, "input": "in"}
        mapped = AnnotateOperator.partial(task_id="annotate", **given).expand(prompts=["ocr"])
    assert mapped.partial_kwargs["output"] == "/out"


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


@pytest.mark.parametrize(("operator", "spec", "good"), OPERATORS)
def test_every_field_can_be_given(operator: Any, spec: type[Spec], good: dict[str, Any]) -> None:
    run_id = {"run_id": "r"} if "run_id" in spec.model_fields else {}
    fields = spec.parse({**good, **run_id}).model_dump()
    assert operator(task_id="task", **fields).spec == fields


@pytest.mark.parametrize(("operator", "spec", "good"), OPERATORS)
def test_no_field_is_also_an_argument_of_airflows(
    operator: Any, spec: type[Spec], good: dict[str, Any]
) -> None:
    airflows = {*inspect.signature(BaseOperator).parameters, *inspect.signature(DAG).parameters}
    assert not airflows & set(spec.model_fields) - {"name"}


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


@pytest.mark.parametrize("native", [True, False])
def test_templates_mean_what_they_give_rendered_natively_or_not(native: bool) -> None:
    params: Any = {"prompts": ["ocr", "detect digit"], "day": "20261122", "video": {"fps": 2}}
    with DAG("text", render_template_as_native_obj=native):
        task = AnnotateOperator(
            task_id="annotate",
            input="in",
            output="out",
            prompts="{{ params.prompts }}",
            metadata_columns="{{ params.prompts[:1] }}",
            run_id="{{ params.day }}",
            video="{{ params.video }}",
        )
    task.render_template_fields({"params": params})
    spec = AnnotateSpec.parse(task.spec)
    assert spec.prompts == ("ocr", "detect digit")
    assert spec.metadata_columns == ("ocr",)
    assert spec.run_id == "20261122"
    assert spec.video
    assert spec.video.fps == 2


def test_a_link_to_an_output_is_a_path_or_the_consoles_and_never_code() -> None:
    assert browsable("/data/run_id=a") == "/data/run_id=a"
    assert browsable("javascript:alert(1)/run_id=a").startswith("/")
    assert (
        browsable("gs://b/run_id=a")
        == "https://console.cloud.google.com/storage/browser/b/run_id=a"
    )
