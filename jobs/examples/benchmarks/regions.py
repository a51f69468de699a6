"""The reader of RefCOCO, RefCOCO+ and RefCOCOg: expressions, and the masks of what they mean."""

import io
import json
import pickle
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple, NoReturn

from pycocotools import mask as coco_mask

from paliflow.jobs.examples.benchmarks.archives import open_file
from paliflow.jobs.examples.benchmarks.rows import Files, Row
from paliflow.model import Detection, format_detections

_PICKLE_BYTES = 2**28
_SIDE = 20_000
"""Pixels: no image of COCO is larger, and a mask is made in memory."""
_Record = Mapping[str, Any]


class _Objects(NamedTuple):
    """What is needed of COCO's instances."""

    annotations: dict[int, _Record]
    sizes: dict[int, tuple[int, int]]
    """Height and width of the images."""


class _PlainData(pickle.Unpickler):
    """Reads numbers, texts, lists and dictionaries; whatever would run code is refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise ValueError(f"it holds {module}.{name}, and only plain data is read from a pickle")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise ValueError("it refers to objects elsewhere, and only plain data is read")


def refcoco(files: Files, values: Mapping[str, str]) -> Iterator[Row | str]:
    """Each sentence of a split is a row; the details have the mask and the box of its object.

    The box is in fractions of the image, as big_vision compares it; the mask is COCO's run-length
    encoding in the image.

    Raises:
        ValueError: a file is not in the official form, or the pickle holds more than plain data.
        OSError: a file cannot be read.
    """
    references = [each for each in _references(files["refs"]) if each["split"] == values["split"]]
    objects = _objects(files["objects"], {each["ann_id"] for each in references})
    for reference in references:
        found = _region(reference, objects)
        for sentence in reference["sentences"]:
            if isinstance(found, str):
                yield found
                continue
            fields = {"expression": sentence["sent"], "image_id": reference["image_id"]}
            y_min, x_min, y_max, x_max = found["box"]
            right = format_detections([Detection("", y_min, x_min, y_max, x_max)], 1, 1).strip()
            yield Row(str(sentence["sent_id"]), fields, (right,), {}, found)


def _references(uri: str) -> list[_Record]:
    try:
        with open_file(uri) as file:
            packed = file.read(_PICKLE_BYTES + 1)
        if len(packed) > _PICKLE_BYTES:
            raise ValueError(f"refs has more than {_PICKLE_BYTES} bytes")
        content = _PlainData(io.BytesIO(packed)).load()
    except (pickle.UnpicklingError, EOFError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"refs is no pickle of plain data: {error}") from None
    if not isinstance(content, list) or not all(map(_is_reference, content)):
        raise ValueError(
            "refs is no list of references with ann_id, image_id, split and sentences, which have "
            "sent_id and sent"
        )
    return content


def _is_reference(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and all(isinstance(record.get(field), int) for field in ("ann_id", "image_id"))
        and isinstance(record.get("split"), str)
        and isinstance(record.get("sentences"), list)
        and all(
            isinstance(each, dict)
            and isinstance(each.get("sent_id"), int)
            and isinstance(each.get("sent"), str)
            for each in record["sentences"]
        )
    )


def _objects(uri: str, wanted: Collection[int]) -> _Objects:
    """Reads COCO's instances; polygons of what nobody asks for are let go while it is parsed."""
    found = _Objects({}, {})

    def kept(record: dict[str, Any]) -> dict[str, Any] | None:
        own = record.get("id")
        if "segmentation" in record:
            if isinstance(own, int) and own in wanted:
                found.annotations[own] = record
            return None
        if isinstance(own, int) and "file_name" in record:
            height, width = record.get("height"), record.get("width")
            if all(isinstance(side, int) and 0 < side <= _SIDE for side in (height, width)):
                found.sizes[own] = height, width  # type: ignore[assignment]
            return None
        return record

    with open_file(uri) as file:
        try:
            json.load(io.TextIOWrapper(file, "utf-8-sig"), object_hook=kept)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"objects is not JSON: {error}") from None
    return found


def _region(reference: _Record, objects: _Objects) -> dict[str, Any] | str:
    """The details of a reference's rows, or why they are none."""
    annotation = objects.annotations.get(reference["ann_id"])
    size = objects.sizes.get(reference["image_id"])
    if annotation is None or annotation.get("image_id") != reference["image_id"]:
        return "no annotation of COCO has its ann_id and image_id"
    if size is None:
        return "COCO does not say its image's height and width"
    height, width = size
    try:
        x, y, w, h = map(float, annotation["bbox"])
        box = [y / height, x / width, (y + h) / height, (x + w) / width]
        rle = _encoded(annotation["segmentation"], height, width)
    except (KeyError, TypeError, ValueError, OverflowError):
        return "COCO's box or mask is broken"
    if not (0 <= box[0] < box[2] <= 1.01 and 0 <= box[1] < box[3] <= 1.01):
        return "COCO's box or mask is broken"
    return {"box": box, "mask": {"size": [height, width], "counts": rle.decode("ascii")}}


def _encoded(segmentation: Any, height: int, width: int) -> bytes:
    """The run-length encoding of polygons, or of COCO's lists of runs.

    Raises:
        TypeError, ValueError, OverflowError, KeyError: it is neither, or of another size: what
            pycocotools' C does with such values is not defined.
    """
    if isinstance(segmentation, dict):
        runs = [int(run) for run in segmentation["counts"]]
        if min(runs) < 0 or sum(runs) != height * width:
            raise ValueError
        made = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    else:
        polygons = [[float(value) for value in polygon] for polygon in segmentation]
        if not polygons or any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
            raise ValueError
        if not all(-_SIDE <= value <= 2 * _SIDE for value in chain(*polygons)):
            raise ValueError
        made = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return bytes(made["counts"])
