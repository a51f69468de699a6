"""What is written as text, by a template, YAML or the command line, means what its field means."""

import json
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paliflow.configs import (
    AnnotateSpec,
    EvaluateSpec,
    ExampleSource,
    ExtractSpec,
    FilterSpec,
    FineTuneSpec,
    PromoteSpec,
)
from paliflow.configs.base import SpecError
from paliflow.configs.load import load_spec
from paliflow.configs.prompts import stripped

ASK: dict[str, Any] = {"input": "in", "output": "out", "prompts": ["ocr"], "run_id": "r"}
TUNE: dict[str, Any] = {"output": "/out", "run_id": "r", "train": [{"path": "/in.jsonl"}]}
SPECS: dict[Any, dict[str, Any]] = {
    AnnotateSpec: ASK,
    ExtractSpec: {"input": "in", "output": "out", "run_id": "r", "video": {"fps": 1}},
    FilterSpec: {
        "input": "in", "output": "out", "run_id": "r", "filters": ["personal_data"],
        "text_columns": ["text"],
    },
    FineTuneSpec: TUNE,
    EvaluateSpec: {"output": "o", "run_id": "r", "sets": {"a": {"path": "b"}}},
    PromoteSpec: {"registry": "r", "name": "n", "checkpoint": "c"},
    ExampleSource: {"path": "/in.jsonl"},
}  # fmt: skip
NEAR = (FineTuneSpec, "exclude_near")  # of sources, each of which may be its path
LISTS = [
    (spec, name)
    for spec in SPECS
    for name, field in spec.model_fields.items()
    if (tuple[str, ...] == field.annotation and name != "benchmarks")  # which are known names
    or (name in ("prompts", "allowed_roots", "exclude_near") and (spec, name) != NEAR)
]


@pytest.mark.parametrize("write", [str, json.dumps, lambda items: str(tuple(items))])
@pytest.mark.parametrize(("spec", "name"), LISTS)
def test_text_that_is_a_list_is_that_list_in_every_tuple_field(
    spec: Any, name: str, write: Any
) -> None:
    items = ["ocr", "detect digit", "it's"]
    assert getattr(spec.parse(SPECS[spec] | {name: write(items)}), name) == tuple(items)


@pytest.mark.parametrize(("spec", "name"), LISTS)
@pytest.mark.parametrize("text", ["ocr", "[ocr]", "it's [1]", "{'a': 1}", "(ocr)", "7", "'a'", "["])
def test_text_that_is_no_list_is_the_only_item_of_a_tuple_field(
    spec: Any, name: str, text: str
) -> None:
    assert getattr(spec.parse(SPECS[spec] | {name: text}), name) == (text,)


@pytest.mark.parametrize("write", [str, json.dumps, lambda items: str(tuple(items))])
def test_text_that_lists_sources_is_those_sources(write: Any) -> None:
    paths = ["/a.jsonl", "it's b.csv"]
    spec = FineTuneSpec.parse(TUNE | {"exclude_near": write(paths)})
    assert [source.path for source in spec.exclude_near] == paths
    (only,) = FineTuneSpec.parse(TUNE | {"exclude_near": "/a.jsonl"}).exclude_near
    assert only.path == "/a.jsonl"


def test_text_that_is_a_list_of_benchmarks_is_that_list() -> None:
    asked = {"output": "o", "run_id": "r", "data": "d"}
    for text, names in (("['vqav2', 'tallyqa']", ("vqav2", "tallyqa")), ("vqav2", ("vqav2",))):
        assert EvaluateSpec.parse(asked | {"benchmarks": text}).benchmarks == names


_PROMPTS = st.text(min_size=1).filter(lambda text: stripped(text) == text)


@given(st.lists(_PROMPTS, min_size=1, unique=True))
def test_a_list_of_prompts_survives_being_written_as_text(prompts: list[str]) -> None:
    for text in (str(prompts), json.dumps(prompts), json.dumps(prompts, ensure_ascii=False)):
        assert AnnotateSpec.parse(ASK | {"prompts": text}).prompts == tuple(prompts)


def test_an_empty_list_as_text_is_empty() -> None:
    with pytest.raises(SpecError, match="give prompts, or the prompt_column"):
        AnnotateSpec.parse(ASK | {"prompts": "[]"})


def test_text_that_is_a_mapping_is_that_mapping_nested_ones_too() -> None:
    train = [{"path": "/in.jsonl", "prompts": "['a', 'b']"}, {"path": "/b.jsonl", "weight": 2}]
    spec = FineTuneSpec.parse(
        TUNE
        | {
            "train": str(train),
            "duration": "{'steps': 3}",
            "validation": '{"held_out": {"path": "/c.jsonl", "metrics": null}}',
            "accelerators_per_worker": "{'TPU': 4}",
            "lora": "{'rank': 4}",
        }
    )
    assert [source.prompts for source in spec.train] == [("a", "b"), ()]
    assert (spec.duration.steps, spec.lora and spec.lora.rank) == (3, 4)
    assert spec.accelerators_per_worker == {"TPU": 4.0}
    assert spec.validation["held_out"].metrics is None
    with pytest.raises(SpecError, match="duration='soon'"):
        FineTuneSpec.parse(TUNE | {"duration": "soon"})


def test_text_of_any_depth_is_refused_and_not_a_traceback() -> None:
    for text in ("[" * 100_000, "{" * 3_000, "(" * 3_000, "\0", "[" + "-" * 100_000 + "1]"):
        assert AnnotateSpec.parse(ASK | {"prompts": text}).prompts == (text,)
        with pytest.raises(SpecError, match="sampling="):
            AnnotateSpec.parse(ASK | {"sampling": text})


def test_numbers_that_native_rendering_makes_are_text_where_text_is_meant() -> None:
    fields = {"run_id": 20261122, "prompts": [7, "ocr"], "image_column": 3}
    spec = AnnotateSpec.parse(ASK | fields)
    assert (spec.run_id, spec.prompts, spec.image_column) == ("20261122", ("7", "ocr"), "3")


_SPEC = """\
output: models
run_id: 2026-11-22
seed: 7
learning_rate: 1e-5
remat: yes
lora: null
best:
frozen: [yes, 1.0, 0o17, 12:30, 2026-11-22]
train:
  - path: 20261122
    prefix: on
    min_score: 0.5
validation:
  2025: {path: 1_000, max_examples: 5}
"""


def test_yaml_leaves_it_to_the_field_what_a_scalar_is(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(_SPEC)
    spec = load_spec(FineTuneSpec, tmp_path / "spec.yaml", ["batch_size=16", "train.0.prefix=off"])
    assert (spec.run_id, spec.seed, spec.learning_rate) == ("2026-11-22", 7, 1e-5)
    assert (spec.remat, spec.lora, spec.best, spec.batch_size) == (True, None, None, 16)
    assert spec.frozen == ("yes", "1.0", "0o17", "12:30", "2026-11-22")
    source = spec.train[0]
    assert (source.path, source.prefix, source.min_score) == ("20261122", "off", 0.5)
    assert spec.validation["2025"].path == "1_000"


@pytest.mark.parametrize("run_id", ["20261122", "2026-11-22", "1e5", "0x10", "yes", "07"])
def test_a_run_id_is_what_was_typed(tmp_path: Path, run_id: str) -> None:
    (tmp_path / "spec.yaml").write_text(_SPEC)
    spec = load_spec(FineTuneSpec, tmp_path / "spec.yaml", [f"run_id={run_id}"])
    assert spec.run_id == run_id


def test_every_tuple_field_is_among_those_tested() -> None:
    for spec in SPECS:
        for name, field in spec.model_fields.items():
            parts = get_args(field.annotation) if type(field.annotation) is UnionType else ()
            if any(get_origin(part) is tuple for part in (field.annotation, *parts)):
                of_objects = name in ("train", "filters", "benchmarks") or (spec, name) == NEAR
                assert (spec, name) in LISTS or of_objects


@pytest.mark.parametrize("spec", SPECS)
def test_what_was_given_is_all_that_is_sent(spec: Any) -> None:
    sent = spec.parse(SPECS[spec]).given()
    assert json.loads(sent).keys() == SPECS[spec].keys() | (
        {"shard_size"} & json.loads(sent).keys()
    )
    assert spec.parse(sent) == spec.parse(SPECS[spec])
    assert set(json.loads(FineTuneSpec.parse(TUNE).given())["train"][0]) == {"path"}
