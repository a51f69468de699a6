"""Training images that are near images of evaluations are found, left out and told of."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_sample_images

from paliflow.configs import FilterSpec, FineTuneSpec
from paliflow.configs.base import SpecError
from paliflow.jobs.examples.plan import open_examples, sources_of, write_examples
from paliflow.jobs.finetune.card import near_lines
from paliflow.jobs.finetune.near import find_near
from paliflow.tests.jobs.here import filter_here, fleet_here

TEMPLE, FLOWER = (Image.fromarray(each) for each in load_sample_images().images)
NEAR = "an image near one of exclude_near"


def labels(path: Path, images: list[str]) -> str:
    rows = [{"image": image, "prefix": "caption en", "suffix": "a picture"} for image in images]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> FineTuneSpec:
    """A mixture in which two images are near those of an evaluation and one is missing."""
    folder = tmp_path_factory.mktemp("near")
    FLOWER.save(folder / "flower.png")
    TEMPLE.save(folder / "held-out.png")
    for name, image in {"copy.jpg": FLOWER, "b.jpg": TEMPLE.resize((320, 213))}.items():
        image.save(folder / name, quality=50)
    TEMPLE.crop((100, 100, 300, 300)).save(folder / "good.png")
    held_out = filter_here(
        FilterSpec.parse(
            {
                "input": labels(folder / "held-out.jsonl", ["held-out.png"]),
                "output": str(folder / "filtered"),
                "run_id": "held-out",
                "filters": ["quality"],
            }
        )
    )
    first = labels(folder / "a.jsonl", ["good.png", "copy.jpg", "good.png", "copy.jpg"])
    second = labels(folder / "b.jsonl", ["b.jpg", "missing.png", "good.png"])
    evaluation = labels(folder / "test.jsonl", ["flower.png"])
    return FineTuneSpec.parse(
        {
            "output": str(folder / "models"),
            "run_id": "r",
            "train": [{"path": first}, {"path": second}],
            "validation": {"held_out": {"path": evaluation}},
            "exclude_near": [evaluation, held_out.location],
        }
    )


def test_examples_with_near_images_are_left_out_of_the_plan_and_counted(
    spec: FineTuneSpec,
) -> None:
    with fleet_here():
        near = find_near(spec, Console())
        assert find_near(spec, Console()) == near  # what is compared already stays so
    assert near.compared == 4
    assert {Path(image).name: reason for (image, _), reason in near.images.items()} == {
        "copy.jpg": NEAR,
        "b.jpg": NEAR,
        "missing.png": "an image that could not be compared",
    }
    plan = write_examples(spec.location, sources_of(spec), spec, near.leave_out)
    kept = {}
    for source in plan.sources:
        examples = open_examples(spec.location, plan, source.name)
        kept[source.name] = [Path(example.images[0]).name for example in examples]
    assert kept == {
        "train/0": ["good.png", "good.png"],
        "train/1": ["good.png"],
        "held_out": ["flower.png"],
    }
    assert [source.examples for source in plan.sources] == [2, 1, 1]
    assert plan.sources[0].dropped == {NEAR: 2}
    (told,) = [line for line in near_lines(spec) if line]
    assert "of 4 training images 2 were, and are left out, as are 1 that could not be" in told
    page = Path(near.location, "_report.html").read_text()
    assert page.count("<img ") == 4  # two pairs
    assert "copy.jpg" in page
    assert "flower.png" in page


def test_images_are_compared_as_examples_turn_them(tmp_path: Path) -> None:
    (tmp_path / "train_images").mkdir()
    for name, image in {"a": FLOWER, "b": FLOWER.transpose(Image.Transpose.ROTATE_270)}.items():
        image.save(tmp_path / "train_images" / f"{name}.jpg")
    asked = [
        {"question_id": n, "image_id": image, "question": "what?", "answers": ["flower"]}
        for n, image in enumerate("ab")
    ]
    (tmp_path / "TextVQA_0.5.1_train.json").write_text(json.dumps({"data": asked}))
    table = tmp_path / "train-images-boxable-with-rotation.csv"
    table.write_text("ImageID,Rotation\na,90\nb,90\n")  # turned counterclockwise
    FLOWER.save(tmp_path / "flower.png")
    held_out = labels(tmp_path / "test.jsonl", ["flower.png"])
    train = {"benchmark": "textvqa", "split": "train", "path": str(tmp_path)}
    base = {"output": str(tmp_path / "models"), "run_id": "r", "exif": "ignore"}
    with fleet_here():
        spec = FineTuneSpec.parse({**base, "train": [train], "exclude_near": [held_out]})
        near = find_near(spec, Console())
    plan = write_examples(spec.location, sources_of(spec), spec, near.leave_out)
    (source,) = plan.sources
    (kept,) = open_examples(spec.location, plan, source.name)
    assert (Path(kept.images[0]).name, source.dropped) == ("a.jpg", {NEAR: 1})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"exclude_near": ["vqav2"]}, "exclude_near: vqav2: give data"),
        (
            {"train": [{"benchmark": "fairface", "path": "/data"}]},
            "fairface: its files do not say what is right to answer in val",
        ),
        (
            {"benchmark": "fairface", "data": "/data"},
            "benchmark='fairface': nothing is published to learn it from$",
        ),
        (
            {"exclude_near": ["a.jsonl"], "video": {"frame_rate": 1, "clip": {"frames": 2}}},
            "exclude_near compares images, not videos",
        ),
    ],
)
def test_what_cannot_be_compared_or_learnt_from_is_refused(
    fields: dict[str, Any], message: str
) -> None:
    base = {"output": "o", "run_id": "r", "train": [{"path": "a.jsonl"}]}
    with pytest.raises(SpecError, match=message):
        FineTuneSpec.parse(base | fields)


def test_a_benchmark_is_named_alone() -> None:
    base = {"output": "o", "run_id": "r", "train": [{"path": "a.jsonl"}], "data": "/data"}
    spec = FineTuneSpec.parse(base | {"exclude_near": ["vqav2", "b.jsonl"]})
    assert [(each.benchmark, each.path) for each in spec.exclude_near] == [
        ("vqav2", "/data"),
        (None, "b.jsonl"),
    ]
    assert FineTuneSpec.parse(spec.model_dump(mode="json")) == spec
