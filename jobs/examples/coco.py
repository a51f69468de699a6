"""COCO's JSON of captions or of detections to examples, one an image."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import cycle
from typing import Any

from paliflow import storage
from paliflow.configs.examples import ExampleSource
from paliflow.jobs.examples.example import Example, make_example, truth
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


def coco_examples(
    uri: str, source: ExampleSource, folder: str, dropped: Counter[str]
) -> Iterator[Example | str | None]:
    """The annotated images in the file's order; the id is the image's.

    Of captions all are right answers to `caption en`. Of detections the answer to
    `detect <categories in the image>` are the boxes, by category and from the top left; crowds are
    left out. `source.prefix` asks otherwise. The file is one of captions or of boxes, whichever are
    more. Where the source keeps images without annotations, the n-th of them is asked for the n-th
    category, in turn, and nothing is right to answer.

    The file's text is in memory while it is parsed, and what is needed of it until the end;
    polygons are not.

    Raises:
        ValueError: it is no COCO JSON.
    """
    images, annotations, names = _read(uri, source.empty == "keep")
    kinds = Counter(map(_kind, annotations))
    boxes = kinds["box"] >= kinds["caption"]
    wanted, make = ("box", _detected) if boxes else ("caption", _captioned)
    asks = cycle(f"detect {name}" for name in names.values() if name) if boxes else None
    of_image = defaultdict(list)
    for annotation in annotations:
        of_image[_key(annotation, "image_id")].append(annotation)
    seen: set[str] = set()
    for image in images:
        key = _key(image, "id")
        if key in seen:
            dropped["an image that is listed twice"] += 1
            continue
        seen.add(key)
        own = of_image.pop(key, [])
        kept = [annotation for annotation in own if _kind(annotation) == wanted]
        if len(kept) < len(own):
            dropped[f"an annotation that is no {wanted}"] += len(own) - len(kept)
        if kept:
            try:
                if example := make(image, kept, names, source.prefix, folder, dropped):
                    yield example
            except ValueError as error:
                yield str(error)
        elif not own and source.empty == "keep":
            prefix = source.prefix or (next(asks, None) if asks else _CAPTION)
            yield make_example(key, image.get("file_name"), prefix, "", folder, "keep")
        elif not own:
            dropped["an image without annotations"] += 1
    for lost in of_image.values():
        yield from ["the annotation is of no image in the file"] * len(lost)


def _kind(annotation: _Record) -> str:
    """By what it holds: captions may have an empty box beside them, and boxes an empty caption."""
    if annotation.get("bbox") or "category_id" in annotation:
        return "box"
    return "caption" if "caption" in annotation else "neither"


def _read(uri: str, may_be_empty: bool) -> tuple[list[_Record], list[_Record], _Names]:
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
    if all(_kind(each) == "neither" for each in annotations) and not (
        may_be_empty and categories and not annotations
    ):
        raise ValueError("it is COCO's JSON neither of captions nor of boxes")
    names = {_key(each, "id"): _name(each.get("name")) for each in categories}
    return images, annotations, names


def _key(record: _Record, field: str) -> str:
    """An id, which may be text or a number, and 1.0 the same as 1; empty where it is neither."""
    value = record.get(field)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""


def _name(value: object) -> str:
    """A category's name; empty if a prompt and its answer cannot hold it."""
    name = value.strip() if isinstance(value, str) else ""
    return name if name.isprintable() and not set(name) & set("<>;") else ""


def _captioned(
    image: _Record,
    own: list[_Record],
    names: _Names,
    prefix: str | None,
    folder: str,
    dropped: Counter[str],
) -> Example | str | None:
    captions = [annotation.get("caption") for annotation in own]
    return make_example(
        _key(image, "id"), image.get("file_name"), prefix or _CAPTION, captions, folder
    )


def _detected(
    image: _Record,
    own: list[_Record],
    names: _Names,
    prefix: str | None,
    folder: str,
    dropped: Counter[str],
) -> Example | str | None:
    """None where all are crowds.

    Raises:
        ValueError: one cannot be written.
    """
    counted = [annotation for annotation in own if not _is_crowd(annotation)]
    if len(counted) < len(own):
        dropped["a crowd's box"] += len(own) - len(counted)
    if not counted:
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
    if len(seen) < len(detections):
        dropped["a box without an area"] += len(detections) - len(seen)
    asked = prefix or "detect " + " ; ".join(dict.fromkeys(d.label for d in seen))
    answer = format_detections(seen, *size)
    return make_example(
        *(_key(image, "id"), image.get("file_name"), asked, answer, folder),
        size=(int(size[0]), int(size[1])),
    )


def _is_crowd(annotation: _Record) -> bool:
    try:
        return truth(annotation.get("iscrowd"))
    except ValueError as error:
        raise ValueError(f"iscrowd={error}") from None


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
