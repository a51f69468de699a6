"""COCO's JSON: captions and boxes become what PaliGemma is asked and answers."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paliflow.configs.base import SpecError
from paliflow.configs.examples import ExampleSource
from paliflow.jobs.examples.sources import Example, read_examples
from paliflow.model import Detection, parse_detections

IMAGES = [
    {"id": 7, "file_name": "a.jpg", "width": 640, "height": 480},
    {"id": 3, "file_name": "sub/b.jpg", "width": 100, "height": 200},
    {"id": 5, "file_name": "c.jpg", "width": 10, "height": 10},
]
CATEGORIES = [{"id": 2, "name": "dog"}, {"id": 1, "name": "cat"}]


def write(folder: Path, annotations: list[Any], **fields: Any) -> Path:
    path = folder / "coco.json"
    content = {"images": IMAGES, "annotations": annotations, "categories": CATEGORIES} | fields
    path.write_text(json.dumps(content))
    return path


def found(path: Path, **fields: Any) -> list[Example | str]:
    return list(read_examples(ExampleSource.parse({"path": str(path)} | fields), ()))


def dropped(path: Path, **fields: Any) -> dict[str, int]:
    """What was left out without being an error."""
    counts = Counter[str]()
    list(read_examples(ExampleSource.parse({"path": str(path)} | fields), (), dropped=counts))
    return dict(counts)


def box(image: Any, category: Any, *bbox: Any, **fields: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(bbox)} | fields


def test_all_captions_of_an_image_are_right_answers(tmp_path: Path) -> None:
    captions = [(3, "a b"), (7, "an a"), (3, "the b")]
    path = write(tmp_path, [{"image_id": i, "caption": text} for i, text in captions])
    a = Example("7", (f"{tmp_path}/a.jpg",), "caption en", ("an a",))
    b = Example("3", (f"{tmp_path}/sub/b.jpg",), "caption en", ("a b", "the b"))
    assert found(path) == [a, b]
    assert found(path, prefix="cap en", images="gs://coco/train") == [
        a._replace(images=("gs://coco/train/a.jpg",), prefix="cap en"),
        b._replace(images=("gs://coco/train/sub/b.jpg",), prefix="cap en"),
    ]


def test_boxes_are_asked_by_category_and_answered_from_the_top_left(tmp_path: Path) -> None:
    annotations = [
        box(7, 1, 320, 0, 320, 480),
        box(7, 1, 0, 0, 320, 480, segmentation=[[0, 0, 320, 480]]),
        box(7, 2, 64.0, 240.0, 64.0, 240.0),
        box(7, 2, 0, 0, 640, 480, iscrowd=1),
        box(3, 1, 0, 0, 50, 100),
        box(5, 1, 0, 0, 10, 10, iscrowd=1),
    ]
    assert found(write(tmp_path, annotations)) == [
        Example(
            "7",
            (f"{tmp_path}/a.jpg",),
            "detect dog ; cat",
            (
                "<loc0512><loc0102><loc1023><loc0205> dog ; "
                "<loc0000><loc0000><loc1023><loc0512> cat ; "
                "<loc0000><loc0512><loc1023><loc1023> cat",
            ),
            (640, 480),
        ),
        Example(
            "3",
            (f"{tmp_path}/sub/b.jpg",),
            "detect cat",
            ("<loc0000><loc0000><loc0512><loc0512> cat",),
            (100, 200),
        ),
    ]
    assert dropped(write(tmp_path, annotations)) == {"a crowd's box": 2}


@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 2]),
            *(st.floats(0, 640), st.floats(0, 480), st.floats(1, 640), st.floats(1, 480)),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_boxes_come_back_from_the_answer(
    tmp_path_factory: pytest.TempPathFactory, boxes: list[tuple[Any, ...]]
) -> None:
    inside = [(c, x, y, min(w, 640 - x), min(h, 480 - y)) for c, x, y, w, h in boxes]
    clear = [each for each in inside if each[3] >= 1 and each[4] >= 1]
    if not clear:
        return
    path = write(tmp_path_factory.mktemp("coco"), [box(7, *each) for each in clear])
    (example,) = found(path)
    assert isinstance(example, Example)

    back = parse_detections(example.suffixes[0], 640, 480)
    names = {1: "cat", 2: "dog"}
    there = [Detection(names[c], y, x, y + h, x + w) for c, x, y, w, h in clear]
    assert len(back) == len(there)
    for label in names.values():
        for field in ("y_min", "x_min", "y_max", "x_max"):
            ours = sorted(getattr(d, field) for d in back if d.label == label)
            theirs = sorted(getattr(d, field) for d in there if d.label == label)
            assert ours == pytest.approx(theirs, abs=640 / 1023 / 2 + 1e-3)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (box(7, 9, 0, 0, 5, 5), "a box of no category whose name can be written"),
        (box(7, 4, 0, 0, 5, 5), "a box of no category whose name can be written"),
        (box(7, 1, 0, 0, 5), "a box is not four numbers: x, y, width, height"),
        (box(7, 1, 0, 0, 5, float("nan")), "a box is not four numbers: x, y, width, height"),
        (box(7, 1, 0, 0, 5, 10**400), "a box is not four numbers: x, y, width, height"),
        (box(7, 1, 0, 0, 5, "5"), "a box is not four numbers: x, y, width, height"),
        (box(7, 1, 5, 5, 0, 9), "no box with an area"),
        (box(7, 1, 700, 5, 9, 9), "no box with an area"),
        (box(9, 1, 0, 0, 5, 5), "the annotation is of no image in the file"),
        (box([9], 1, 0, 0, 5, 5), "the annotation is of no image in the file"),
        (box(8, 1, 0, 0, 5, 5), "the image has no width and height"),
        (box(6, 1, 0, 0, 5, 5), "no image"),
    ],
)
def test_an_image_that_is_no_example_says_why(
    tmp_path: Path, annotation: dict[str, Any], reason: str
) -> None:
    images = [*IMAGES, {"id": 8, "file_name": "d.jpg"}, {"id": 6, "width": 9, "height": 9}]
    categories = [*CATEGORIES, {"id": 4, "name": "a;b"}]
    path = write(
        tmp_path, [annotation, box(3, 1, 0, 0, 50, 100)], images=images, categories=categories
    )
    good, bad = sorted(found(path), key=lambda each: isinstance(each, str))
    assert isinstance(good, Example)
    assert bad == reason


def test_an_image_listed_twice_is_one_example(tmp_path: Path) -> None:
    path = write(tmp_path, [{"image_id": 7, "caption": "x"}], images=IMAGES + IMAGES)
    assert len(found(path)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", "it is not COCO's JSON, which is an object"),
        ('{"images": []}', "a list of objects 'annotations'"),
        ('{"images": [1], "annotations": []}', "a list of objects 'images'"),
        ('{"images": [], "annotations": []}', "neither of captions nor of boxes"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "coco.json").write_text(content)
    with pytest.raises(SpecError, match=f"path=.*{message}"):
        found(tmp_path / "coco.json")


ONE = [IMAGES[0]]


@pytest.mark.parametrize(
    ("iscrowd", "crowd"),
    [
        *((value, False) for value in (0, "0", "false", "False", False, None, "", "no", 0.0)),
        *((value, True) for value in (1, "1", "true", " True ", True, "yes", 1.0)),
    ],
)
def test_a_crowd_is_what_says_so_in_any_of_jsons_ways(
    tmp_path: Path, iscrowd: object, crowd: bool
) -> None:
    annotations = [box(7, 1, 0, 0, 64, 48), box(7, 2, 0, 0, 64, 48, iscrowd=iscrowd)]
    path = write(tmp_path, annotations, images=ONE)
    (example,) = found(path)
    assert isinstance(example, Example)
    assert example.prefix == ("detect cat" if crowd else "detect dog ; cat")
    assert dropped(path) == ({"a crowd's box": 1} if crowd else {})


def test_an_iscrowd_that_is_no_truth_value_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, [box(7, 1, 0, 0, 64, 48, iscrowd="maybe")], images=ONE)
    assert found(path) == ["iscrowd='maybe' is neither true nor false"]


def test_one_caption_does_not_turn_boxes_into_captions(tmp_path: Path) -> None:
    annotations = [
        box(7, 1, 0, 0, 64, 48, caption=""),
        box(3, 1, 0, 0, 10, 20),
        {"image_id": 3, "caption": "a stray one"},
        {"image_id": 5, "caption": "another"},
    ]
    path = write(tmp_path, annotations)
    assert [e.prefix for e in found(path) if isinstance(e, Example)] == ["detect cat"] * 2
    assert dropped(path) == {"an annotation that is no box": 2}
    assert found(path, empty="keep") == found(path)


def test_a_stray_box_does_not_turn_captions_into_boxes(tmp_path: Path) -> None:
    captions: list[Any] = [{"image_id": i, "caption": "it", "bbox": []} for i in (7, 3)]
    path = write(tmp_path, [*captions, box(5, 1, 0, 0, 9, 9)])
    assert [e.prefix for e in found(path) if isinstance(e, Example)] == ["caption en"] * 2
    assert dropped(path) == {"an annotation that is no caption": 1}


@pytest.mark.parametrize("number", [7, 7.0, "7"])
def test_ids_are_the_same_as_numbers_and_as_text(tmp_path: Path, number: object) -> None:
    categories = [{"id": number, "name": "cat"}]
    for image, category in ((number, 7), (7, number), (7.0, 7.0)):
        annotations = [box(image, category, 0, 0, 64, 48)]
        (example,) = found(write(tmp_path, annotations, images=ONE, categories=categories))
        assert isinstance(example, Example)
        assert (example.id, example.prefix) == ("7", "detect cat")


def test_a_box_without_an_area_beside_others_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path, [box(7, 1, 0, 0, 64, 48), box(7, 1, 5, 5, 0, 9)], images=ONE)
    assert [e.prefix for e in found(path) if isinstance(e, Example)] == ["detect cat"]
    assert dropped(path) == {"a box without an area": 1}


def test_images_without_annotations_are_counted_or_kept_as_negatives(tmp_path: Path) -> None:
    more = [{"id": n, "file_name": f"{n}.jpg", "width": 9, "height": 9} for n in (20, 21)]
    path = write(tmp_path, [box(7, 1, 0, 0, 64, 48)], images=IMAGES + more)
    assert len(found(path)) == 1
    for fields in ({}, {"empty": "drop"}):
        assert dropped(path, **fields) == {"an image without annotations": 4}
    kept = [e for e in found(path, empty="keep") if isinstance(e, Example)]
    assert dropped(path, empty="keep") == {}
    assert [(e.id, e.prefix, e.suffixes) for e in kept if e.id != "7"] == [
        ("3", "detect dog", ("",)),
        ("5", "detect cat", ("",)),
        ("20", "detect dog", ("",)),
        ("21", "detect cat", ("",)),
    ]
    asked = found(path, empty="keep", prefix="detect it")
    assert {e.prefix for e in asked if isinstance(e, Example)} == {"detect it"}


def test_an_image_of_crowds_alone_is_no_negative(tmp_path: Path) -> None:
    path = write(tmp_path, [box(7, 1, 0, 0, 64, 48, iscrowd=1)], images=ONE)
    assert found(path, empty="keep") == []


def test_a_file_of_negatives_alone_is_read_where_they_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path, [])
    assert len(found(path, empty="keep")) == len(IMAGES)
    with pytest.raises(SpecError, match="neither of captions nor of boxes"):
        found(path)
