"""Annotations as examples: finished runs, sure or approved rows, corrected texts."""

import tarfile
from pathlib import Path
from typing import Any

import pytest

from paliflow.configs.base import SpecError
from paliflow.configs.examples import ExampleSource
from paliflow.jobs.examples.example import image_item
from paliflow.jobs.examples.sources import Example, read_examples
from paliflow.jobs.media.reading import read_content
from paliflow.jobs.runs.compact import compact
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.sources.items import items
from paliflow.tests.jobs.conftest import SpecFactory
from paliflow.tests.jobs.files import encode
from paliflow.tests.jobs.outputs import commit_parts, finish


def found(path: object, **fields: Any) -> list[Example | str]:
    return list(read_examples(ExampleSource.parse({"path": str(path)} | fields), ()))


def ids(path: object, **fields: Any) -> list[str]:
    return [each if isinstance(each, str) else each.id for each in found(path, **fields)]


@pytest.fixture
def photos(tmp_path: Path) -> list[Item]:
    """Four inputs with metadata, of which the second is broken."""
    reviews = ["{}", '{"good": "yes", "better": "a dog"}', '{"good": "false", "better": ""}', None]
    contents = [encode("RGB", "JPEG"), b"", encode("RGB", "PNG"), encode("L", "PNG")]
    items = []
    for number, (content, metadata) in enumerate(zip(contents, reviews, strict=True)):
        path = tmp_path / f"{number}.png"
        path.write_bytes(content)
        items.append(Item(str(path), metadata=metadata))
    return items


def test_rows_that_are_ok_and_finished_are_examples(
    make_spec: SpecFactory, photos: list[Item]
) -> None:
    spec = make_spec(input="photos", shard_size=3, prompts=["caption en", "detect cat"])
    finish(spec, photos)
    detected = "<loc0000><loc0000><loc0512><loc0512> cat"
    expected = []
    for number, row in [(0, 0), (2, 4), (3, 6)]:
        image = photos[number].uri
        said = f"caption en of {number}.png"
        expected += [
            Example(f"test/{row}", (image,), "caption en", (said,)),
            Example(f"test/{row + 1}", (image,), "detect cat", (detected,)),
        ]
    assert found(spec.output) == found(f"{spec.output}/run_id=test") == expected
    assert found(spec.output, prompts=["detect cat"]) == expected[1::2]


def test_ids_outlast_compaction(make_spec: SpecFactory, photos: list[Item]) -> None:
    spec = make_spec(input="photos", shard_size=1, compression_level=1)
    summary = finish(spec, photos)
    before = found(spec.output)
    compact(summary)
    assert found(spec.output) == before


def test_only_finished_runs_count(make_spec: SpecFactory, photos: list[Item]) -> None:
    late = make_spec(input="photos", run_id="late", prompts=["ocr"])
    commit_parts(late, photos, [0])
    with pytest.raises(SpecError, match="no finished run of annotations"):
        found(late.output)
    with pytest.raises(SpecError, match="no finished run of annotations"):
        found(f"{late.output}/run_id=late")
    finish(make_spec(input="photos", run_id="b", prompts=["ocr"]), photos)
    finish(make_spec(input="photos", run_id="a", prompts=["ocr"]), photos)
    assert ids(late.output) == ["a/0", "a/2", "a/3", "b/0", "b/2", "b/3"]


def test_a_member_of_a_tar_is_found_again_without_its_plan(
    make_spec: SpecFactory, photos: list[Item], tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for item in photos:
            tar.add(item.uri, Path(item.uri).name)
    spec = make_spec(input=f"{tmp_path}/shard.tar", prompts=["ocr", "caption en"], shard_size=3)
    finish(spec, items(spec))
    examples = [each for each in found(spec.output) if isinstance(each, Example)]
    assert [e.id for e in examples] == [f"test/{row}" for row in (0, 1, 4, 5, 6, 7)]
    for example, number in zip(examples, (0, 0, 2, 2, 3, 3), strict=True):
        assert example.suffixes[0].endswith(f" of shard.tar#{number}.png")
        (image,) = example.images
        assert read_content(image_item(image, None), ()) == Path(photos[number].uri).read_bytes()


def test_a_score_is_the_mean_probability_of_a_token(
    make_spec: SpecFactory, photos: list[Item]
) -> None:
    spec = make_spec(input="photos", prompts=["ocr"])
    finish(spec, photos)  # exp(-0.1) a token
    assert len(found(spec.output, min_score=0.90)) == 3
    assert not found(spec.output, min_score=0.91)


def test_a_reviewer_approves_and_corrects_in_columns_or_metadata(
    make_spec: SpecFactory, photos: list[Item]
) -> None:
    spec = make_spec(input="photos", prompts=["ocr"])
    approved = '{"good": "yes", "better": "a dog"}'
    finish(spec, [photos[0]._replace(metadata=approved), *photos[1:]])
    assert ids(spec.output, reviewed_column="good") == ["test/0"]
    assert ids(spec.output, reviewed_column="finished") == ["test/0", "test/2", "test/3"]
    (corrected,) = found(spec.output, reviewed_column="good", suffix_column="better")
    assert isinstance(corrected, Example)
    assert corrected.suffixes == ("a dog",)
    assert ids(spec.output, suffix_column="better") == ["test/0", "no suffix", "no suffix"]


def test_a_column_that_no_row_has_is_refused(make_spec: SpecFactory, photos: list[Item]) -> None:
    spec = make_spec(input="photos", prompts=["ocr"])
    finish(spec, photos)
    with pytest.raises(SpecError, match=r"reviewed_column='bad': no such column.*better, .*good"):
        found(spec.output, reviewed_column="bad")
    with pytest.raises(SpecError, match="suffix_column='best': no such column as 'best'"):
        found(spec.output, suffix_column="best")
