"""COCO's JSON of captions or of detections to examples, one an image."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from paliflow.configs.examples import ExampleSource
from paliflow.jobs import storage
from paliflow.jobs.examples.example import Example, make_example
from paliflow.model.detections import Detection, format_detections, parse_detections

# fmt: off
_KEPT = frozenset([
    "annotations", "bbox", "caption", "categories", "category_id", "file_name", "height", "id",
    "image_id", "images", "iscrowd", "name", "width",
])
# fmt: on
_CAPTION = "caption en"
_HUGE = 1e9
_Record = Mapping[str, Any]
_Names = Mapping[str, str]
"""Of categories, by their ids."""


def coco_examples(uri: str, source: ExampleSource, folder: str) -> Iterator[Example | str]:
    """The annotated images in the file's order; the id is the image's.

    Of captions all are right answers to `caption en`. Of detections the answer to
    `detect <categories in the image>` are the boxes, by category and from the top left; crowds are
    left out. `source.prefix` asks otherwise.

    The file's text is in memory while it is parsed, and what is needed of it until the end;
    polygons are not.

    Raises:
        ValueError: it is no COCO JSON.
    """
    images, annotations, names = _read(uri)
    make = _detected if any("bbox" in each for each in annotations) else _captioned
    of_image = defaultdict(list)
    for annotation in annotations:
        of_image[_key(annotation, "image_id")].append(annotation)
    for image in images:
        # Taken out, since an id may come twice.
        if own := of_image.pop(_key(image, "id"), None):
            try:
                example = make(image, own, names, source.prefix, folder)
            except ValueError as error:
                example = str(error)
            if example:
                yield example
    for lost in of_image.values():
        yield from ["the annotation is of no image in the file"] * len(lost)


def _read(uri: str) -> tuple[list[_Record], list[_Record], _Names]:
    def kept(record: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in record.items() if key in _KEPT}

    with storage.open_binary(uri) as file:
        try:
            content = json.load(file, object_hook=kept)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError("it is not COCO's JSON, which is an object")
    found = []
    for field in ("images", "annotations", "categories"):
        records = content.get(field, [] if field == "categories" else None)
        if not isinstance(records, list) or not all(isinstance(each, dict) for each in records):
            raise ValueError(f"it is not COCO's JSON, which has a list of objects {field!r}")
        found.append(records)
    images, annotations, categories = found
    if not any("caption" in each or "bbox" in each for each in annotations):
        raise ValueError("it is COCO's JSON neither of captions nor of boxes")
    names = {_key(each, "id"): _name(each.get("name")) for each in categories}
    return images, annotations, names


def _key(record: _Record, field: str) -> str:
    """An id, which may be a number or text; empty where it is neither."""
    value = record.get(field)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""


def _name(value: object) -> str:
    """A category's name; empty if a prompt and its answer cannot hold it."""
    name = value.strip() if isinstance(value, str) else ""
    return name if name.isprintable() and not set(name) & set("<>;") else ""


def _captioned(
    image: _Record, own: list[_Record], names: _Names, prefix: str | None, folder: str
) -> Example | str:
    captions = [annotation.get("caption") for annotation in own]
    return make_example(
        _key(image, "id"), image.get("file_name"), prefix or _CAPTION, captions, folder
    )


def _detected(
    image: _Record, own: list[_Record], names: _Names, prefix: str | None, folder: str
) -> Example | str | None:
    """None where all are crowds.

    Raises:
        ValueError: one cannot be written.
    """
    if not (counted := [annotation for annotation in own if not _is_crowd(annotation)]):
        return None
    size: Any = image.get("width"), image.get("height")
    if not all(_is_number(side) and side > 0 for side in size):
        return "the image has no width and height"
    detections = [_detection(annotation, names) for annotation in counted]
    order = {name: place for place, name in enumerate(names.values())}
    detections.sort(key=lambda d: (order[d.label], d.y_min, d.x_min))
    # What is too thin for the bins would not be found in the answer.
    seen = [d for d in detections if parse_detections(format_detections([d], *size), *size)]
    if not seen:
        return "no box with an area"
    asked = prefix or "detect " + " ; ".join(dict.fromkeys(d.label for d in seen))
    answer = format_detections(seen, *size)
    return make_example(_key(image, "id"), image.get("file_name"), asked, answer, folder)


def _is_crowd(annotation: _Record) -> bool:
    """
    Raises:
        ValueError: it says neither that it is nor that it is not.
    """
    said = annotation.get("iscrowd")
    if isinstance(said, str):
        said = {"": 0, "0": 0, "false": 0, "1": 1, "true": 1}.get(said.strip().lower(), said)
    if said not in (None, 0, 1):
        raise ValueError("iscrowd is neither 0 nor 1")
    return bool(said)


def _is_number(value: object) -> bool:
    """And one that can be calculated with: JSON knows NaN, and integers of any length."""
    return isinstance(value, int | float) and abs(value) < _HUGE


def _detection(annotation: _Record, names: _Names) -> Detection:
    """
    Raises:
        ValueError: it cannot be written.
    """
    label = names.get(_key(annotation, "category_id"), "")
    if not label:
        raise ValueError("a box of no category whose name can be written")
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise ValueError("a box is not four numbers: x, y, width, height")
    x, y, width, height = box
    return Detection(label, y, x, y + height, x + width)
