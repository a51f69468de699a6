"""Training images that are near images of evaluations are found, left out and told of."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image
from rich.console import Console
from sklearn.datasets import load_sample_images

from paliflow.configs import FilterSpec, FineTuneSpec
from paliflow.configs.base import SpecError
from paliflow.jobs.examples.plan import open_examples, sources_of, write_examples
from paliflow.jobs.finetune.card import near_lines
from paliflow.jobs.finetune.near import find_near
from paliflow.tests.jobs.here import filter_here, fleet_here

TEMPLE, FLOWER = (Image.fromarray(each) for each in load_sample_images().images)
OTHER = TEMPLE.crop((100, 100, 300, 300))
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
    assert "of 4 training pictures 2 were, and are left out, as are 1 that could not be" in told
    page = Path(near.location, "_report.html").read_text()
    assert page.count("<img ") == 4  # two pairs
    assert "copy.jpg" in page
    assert "flower.png" in page


def textvqa(folder: Path) -> str:
    """TextVQA's files: a and b are turned, and c is a phone's photo that EXIF turns."""
    (folder / "train_images").mkdir(parents=True)
    phone = Image.Exif()
    phone[ExifTags.Base.Orientation] = 6
    pictures = {"a": FLOWER, "b": FLOWER.transpose(Image.Transpose.ROTATE_270), "c": TEMPLE}
    for name, image in (pictures | {"d": OTHER}).items():
        image.save(folder / "train_images" / f"{name}.jpg", exif=phone if name == "c" else b"")
    table = folder / "train-images-boxable-with-rotation.csv"
    table.write_text("ImageID,Rotation\na,90\nb,90\n")  # turned counterclockwise
    for split, images in {"train": "abcd", "val": "ac"}.items():
        asked = [
            {"question_id": n, "image_id": image, "question": "what?", "answers": ["flower"]}
            for n, image in enumerate(images)
        ]
        (folder / f"TextVQA_0.5.1_{split}.json").write_text(json.dumps({"data": asked}))
    return str(folder)


def learnt(
    output: Path, train: str | dict[str, str], *exclude_near: str, **fields: Any
) -> list[str]:
    """The images of a source that are learnt from; all others are near ones."""
    train = {"path": train} if isinstance(train, str) else train
    base = {"output": str(output), "run_id": "r", "train": [train], **fields}
    spec = FineTuneSpec.parse({**base, "exclude_near": exclude_near})
    with fleet_here():
        near = find_near(spec, Console())
    plan = write_examples(spec.location, sources_of(spec), spec, near.leave_out)
    (source,) = plan.sources
    assert set(source.dropped) <= {NEAR}
    return [
        Path(example.images[0]).name for example in open_examples(spec.location, plan, source.name)
    ]


def test_images_that_are_turned_are_found_by_copies_that_are_and_by_copies_that_are_not(
    tmp_path: Path, spec: FineTuneSpec
) -> None:
    data = textvqa(tmp_path / "data")
    train = {"benchmark": "textvqa", "split": "train", "path": data}
    FLOWER.save(tmp_path / "flower.png")
    OTHER.save(tmp_path / "other.png")
    (tmp_path / "photo.jpg").write_bytes((tmp_path / "data/train_images/c.jpg").read_bytes())
    labelled = labels(tmp_path / "labels.jsonl", ["flower.png", "photo.jpg", "other.png"])
    held_out = labels(tmp_path / "held-out.jsonl", ["flower.png", "photo.jpg"])
    # a is the flower as its file has it, and b as its examples turn it.
    assert learnt(tmp_path / "1", train, held_out, exif="ignore") == ["d.jpg"]
    assert learnt(tmp_path / "2", labelled, "textvqa", data=data) == ["other.png"]
    (_, filtered) = spec.exclude_near
    with pytest.raises(SpecError, match="exif: apply, and benchmarks are compared so"):
        learnt(tmp_path / "3", train, filtered.path)


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
