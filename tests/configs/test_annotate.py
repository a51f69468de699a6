"""The annotate spec: what is wrong is named, and nothing secret gets into it."""

from typing import Any

import pytest

from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError

GOOD: dict[str, Any] = {"input": "in", "output": "out", "prompts": ["ocr"], "run_id": "r"}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"output": "s3://bucket/folder"}, "output='s3://bucket/folder': .*local path or a gs://"),
        ({"checkpoint": "https://host/model.npz"}, "checkpoint='https://host/model.npz': "),
        ({"prompts": []}, "give prompts, or the prompt_column of a manifest"),
        ({"prompts": ["ocr", "ocr"]}, "the same prompt twice"),
        ({"prompts": ["ocr", {"ask": "ocr", "choices": "0..9"}]}, "the same prompt twice"),
        ({"prompts": [{"ask": "ocr"}]}, r"prompts\.0=.*give one of choices, choices_column,"),
        ({"prompts": [{"ask": "ocr", "choices": "a"}]}, r"prompts\.0\.choices=.*it has 1 choices"),
        ({"prompts": [{"ask": "ocr", "choises": "a"}]}, r"prompts\.0\.choises: .* choices\?"),
        ({"prompts": [{"ask": "Ocr", "choices": "0..9"}]}, r"prompts\.0\.ask='Ocr': .*spelt 'ocr'"),
        ({"prompts": [{"ask": "ocr", "choices": ["a", "b "]}]}, "white space around it"),
        ({"prompts": [{"ask": "ocr", "closed": True}]}, "ask='ocr': closed is for `detect` and"),
        ({"prompts": [{"ask": "detect ;", "closed": True}]}, "ask='detect ;': closed is for"),
        (
            {"prompts": [{"ask": "detect a", "closed": True, "top_choices": 1}]},
            "top_choices is for",
        ),
        (
            {"prompts": [{"ask": "ocr", "choices_column": "c"}], "only_new": True},
            "only_new cannot tell whether a row's choices_column has changed",
        ),
        (
            {"batchsize": 4},
            r"batchsize: unknown field, did you mean batch_size\? It has accel.*, batch_size",
        ),
        ({"max_error_fraction": 2}, "max_error_fraction=2: "),
        ({"run_id": "a/b"}, "run_id='a/b': "),
    ],
)
def test_a_field_that_is_wrong_is_named_with_its_value(
    fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SpecError, match=complaint):
        AnnotateSpec.parse(GOOD | fields)


@pytest.mark.parametrize(
    "uri", ["https://me:hunter2@host/a.csv", "https://host/a.csv?X-Goog-Signature=hunter2"]
)
def test_an_input_with_credentials_is_refused_without_repeating_them(uri: str) -> None:
    with pytest.raises(SpecError, match=r"input='https://host/a.csv.*would be written") as caught:
        AnnotateSpec.parse(GOOD | {"input": uri})
    assert "hunter2" not in str(caught.value)


def test_choices_are_a_list_or_what_stands_for_one() -> None:
    lists = (["yes", "no"], "yes/no", '["yes", "no"]', "0..3", [0, 1, 2, 3])
    specs = [
        AnnotateSpec.parse(GOOD | {"prompts": ["ocr", {"ask": "is it?", "choices": choices}]})
        for choices in lists
    ]
    found = [prompt.choices for spec in specs for prompt in spec.prompts[1:]]  # type: ignore[union-attr]
    assert found == [("yes", "no")] * 3 + [("0", "1", "2", "3")] * 2
    assert AnnotateSpec.parse(specs[0].model_dump_json()) == specs[0] == specs[1]
    assert specs[0].texts == ("ocr", "is it?")


def test_prompts_may_come_from_the_rows_alone() -> None:
    spec = AnnotateSpec.parse(GOOD | {"prompts": [], "prompt_column": "question"})
    assert spec.prompts == ()


def test_a_shard_of_videos_is_smaller_than_one_of_images() -> None:
    films = GOOD | {"video": {"fps": 1}}
    sizes = [AnnotateSpec.parse(fields).shard_size for fields in (GOOD, films)]
    assert sizes == [256, 16]
    assert AnnotateSpec.parse(films | {"shard_size": 3}).shard_size == 3
