"""COCO's boxes and EXIF: what is taught lies where the object is in the picture that is seen."""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from paliflow.configs import EvaluateSpec, FineTuneSpec
from paliflow.jobs.evaluate.joining import references_of
from paliflow.jobs.examples.feed import training_feed
from paliflow.jobs.examples.orientation import boxes_in_picture
from paliflow.jobs.examples.plan import open_examples, sources_of, write_examples
from paliflow.model import BUNDLED_CHECKPOINT, Tokenizer, decode_image, parse_detections

TOKENIZER = Tokenizer.from_file(BUNDLED_CHECKPOINT.with_name("tokenizer.model"))
STORED = 60, 40
UPRIGHT = 40, 60
BOX = 6, 8, 15, 20
"""x, y, width and height of the object in the stored pixels."""
TEXT = "<loc0205><loc0102><loc0716><loc0358> cat"


def picture(orientation: int) -> bytes:
    """Black, with a white object; stored as `STORED`."""
    x, y, width, height = BOX
    image = Image.new("RGB", STORED)
    image.paste((255, 255, 255), (x, y, x + width, y + height))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    return file.getvalue()


def object_in(pixels: np.ndarray[Any, Any]) -> list[int]:
    """y_min, x_min, y_max, x_max of what is white."""
    rows, columns = np.nonzero(pixels > pixels.mean())
    return [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("upright", [True, False])
def test_boxes_of_the_other_frame_are_turned_onto_the_object(
    orientation: int, upright: bool
) -> None:
    """Those of the stored pixels where the picture is turned, and the other way about."""
    there = decode_image(picture(orientation), 10**6, upright=upright)
    other = decode_image(picture(orientation), 10**6, upright=not upright)
    y_min, x_min, y_max, x_max = object_in(np.asarray(other.image)[..., 0])
    height, width = other.height, other.width
    bins = [
        round(v / s * 1023)
        for v, s in zip((y_min, x_min, y_max, x_max), (height, width) * 2, strict=True)
    ]
    text = "".join(f"<loc{n:04d}>" for n in bins) + " cat"
    size = there.width, there.height
    turned = boxes_in_picture(text, (width, height), size, orientation, upright=upright)
    (found,) = parse_detections(turned, *size)
    box = [found.y_min, found.x_min, found.y_max, found.x_max]
    np.testing.assert_allclose(box, object_in(np.asarray(there.image)[..., 0]), atol=0.05)


def test_turned_boxes_are_again_from_the_top_left() -> None:
    one, other = "<loc0100><loc0000><loc0200><loc0100>", "<loc0300><loc0000><loc0400><loc0100>"
    text = f"{one} dog ; {other} dog ; {one} cat"
    assert boxes_in_picture(text, STORED, UPRIGHT, 8) == (
        "<loc0923><loc0100><loc1023><loc0200> dog ; <loc0923><loc0300><loc1023><loc0400> dog ; "
        "<loc0923><loc0100><loc1023><loc0200> cat"
    )
    assert boxes_in_picture(text, STORED, UPRIGHT, 6).startswith("<loc0000><loc0623><loc0100>")


def test_a_mask_of_the_stored_pixels_is_an_error() -> None:
    text = TEXT.replace(" cat", "<seg001>" * 16 + " cat")
    assert boxes_in_picture(text, UPRIGHT, UPRIGHT, 6) == text
    with pytest.raises(ValueError, match="a mask of the stored pixels"):
        boxes_in_picture(text, STORED, UPRIGHT, 6)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Three pictures stored sideways: boxes of the stored pixels, of the upright ones, of others.

    The first is listed with the stored size, the second with the upright one.
    """
    x, y, width, height = BOX
    sideways = [STORED[1] - y - height, x, height, width]  # orientation 6: a quarter clockwise
    images, annotations = [], []
    for number, (size, box) in enumerate(((STORED, BOX), (UPRIGHT, sideways), ((99, 50), BOX))):
        (tmp_path / f"{number}.png").write_bytes(picture(6))
        name = f"{number}.png"
        images.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        annotations.append({"image_id": number, "category_id": 1, "bbox": list(box)})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "1"}]}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    return tmp_path


MISFIT = "the boxes are of 99 x 50 pixels, the image has 40 x 60"


def test_coco_boxes_are_taught_where_the_object_is_in_the_upright_picture(coco: Path) -> None:
    spec = FineTuneSpec.parse(
        {
            "output": f"{coco}/out",
            "run_id": "tuned",
            "train": [{"path": f"{coco}/boxes.json"}],
            "batch_size": 3,
            "max_tokens": 40,
        }
    )
    plan = write_examples(spec.location, sources_of(spec), spec)
    (fed,) = training_feed(
        *(spec.location, plan, spec, TOKENIZER, 30),
        first_step=0,
        total_steps=1,
        process_index=0,
        process_count=1,
    )
    assert fed.failures == (MISFIT,)
    text, learnt = np.asarray(fed.batch.text), np.asarray(fed.batch.mask_loss)
    taught = [
        TOKENIZER.decode(row[mask == 1].tolist()) for row, mask in zip(text, learnt, strict=True)
    ]
    good = [n for n, said in enumerate(taught) if said]
    assert len(good) == 2
    for row in good:
        (found,) = parse_detections(taught[row], 30, 30)
        seen = object_in(np.asarray(fed.batch.images)[row, ..., 0])
        box = [found.y_min, found.x_min, found.y_max, found.x_max]
        np.testing.assert_allclose(box, seen, atol=1)


def test_an_evaluation_compares_with_boxes_of_the_upright_picture(coco: Path) -> None:
    fields = {"output": f"{coco}/out", "run_id": "judged"}
    spec = EvaluateSpec.parse(fields | {"sets": {"boxes": {"path": f"{coco}/boxes.json"}}})
    plan = write_examples(spec.location, spec.sets, spec)
    answer = {"width": 40, "height": 60, "status": "ok", "text": ""}
    misfits = Counter[str]()
    stored, upright, other = (
        references_of(example, answer, spec, misfits, None)
        for example in open_examples(spec.location, plan, "boxes")
    )
    assert [*stored["references"]] == [*upright["references"]]
    assert other["status"] == "error"
    assert (other["error"], misfits) == (MISFIT, {MISFIT: 1})
