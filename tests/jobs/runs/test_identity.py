"""A run's identity: the same name means the same work."""

import pytest

from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError
from paliflow.jobs.runs.identity import check_same_spec

SPEC = AnnotateSpec(input="in", output="out", prompts=("ocr",), run_id="daily")


def test_how_and_where_the_work_is_done_may_change() -> None:
    other = SPEC.model_copy(update={"actors": 7, "max_errors": 3, "output": "elsewhere"})
    check_same_spec(SPEC.model_dump(mode="json"), other)


def test_every_changed_field_is_named_with_both_values() -> None:
    other = SPEC.model_copy(update={"prompts": ("caption en",), "seed": 1})
    with pytest.raises(SpecError) as caught:
        check_same_spec(SPEC.model_dump(mode="json"), other)
    said = str(caught.value)
    assert "run_id='daily'" in said
    assert "prompts was ['ocr'], is ['caption en']" in said
    assert "seed was 0, is 1" in said
    assert "max_new_tokens" not in said


def test_a_field_that_an_older_version_lacked_counts_as_its_default() -> None:
    before = SPEC.model_dump(mode="json", exclude={"only_new"})
    check_same_spec(before, SPEC)
    with pytest.raises(SpecError, match="only_new was False, is True"):
        check_same_spec(before, SPEC.model_copy(update={"only_new": True}))


def test_a_field_that_only_a_newer_version_knows_is_a_change() -> None:
    before = SPEC.model_dump(mode="json") | {"frames": "all"}
    with pytest.raises(SpecError, match="frames was 'all', is None"):
        check_same_spec(before, SPEC)
