"""Specs from YAML files."""

from pathlib import Path

import pytest

from paliflow.configs import FineTuneSpec
from paliflow.configs.base import SpecError
from paliflow.configs.load import load_spec

_SPEC = """\
output: models
run_id: week-1
train:
  - path: labels.jsonl
lora: {rank: 4}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "spec.yaml").write_text(_SPEC)
    return tmp_path / "spec.yaml"


def test_a_spec_is_read_and_fields_are_overridden_by_path(path: Path) -> None:
    overrides = ["run_id=week-2", "lora.rank=8", "train.0.weight=2", "duration.steps=3", "lora="]
    assert load_spec(FineTuneSpec, path).run_id == "week-1"
    changed = load_spec(FineTuneSpec, path, [*overrides[:3], "duration={steps: 3}"])
    assert (changed.run_id, changed.train[0].weight) == ("week-2", 2.0)
    assert changed.lora is not None
    assert changed.lora.rank == 8
    assert changed.duration.steps == 3
    assert load_spec(FineTuneSpec, path, overrides).lora is None


@pytest.mark.parametrize(
    ("content", "overrides", "message"),
    [
        (None, [], "cannot be read: No such file"),
        ("a: [", [], "not YAML"),
        ("- a", [], "a mapping of fields, this is list"),
        ("", [], "this is NoneType"),
        (_SPEC + "learning_rat: 1\n", [], "did you mean learning_rate"),
        (_SPEC, ["batch_size"], "--set 'batch_size': give name=value"),
        (_SPEC, ["batch_size=many"], "batch_size='many'"),
        (_SPEC, ["train.3.weight=1"], "no such place"),
        (_SPEC, ["output.x=1"], "no such place"),
        (_SPEC, ["seed=[1"], "value is not YAML"),
    ],
)
def test_what_is_wrong_names_the_file_or_the_override(
    tmp_path: Path, content: str | None, overrides: list[str], message: str
) -> None:
    path = tmp_path / "spec.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SpecError) as caught:
        load_spec(FineTuneSpec, path, overrides)
    assert message in str(caught.value)
