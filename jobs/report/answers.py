"""What the report shows of an answer: its text, or boxes and masks in percent of the image."""

import base64
import io
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from paliflow.jobs.media.reading import Input

COLORS = (
    *("#ff5a5f", "#2fa8ff", "#22b573", "#ffb020", "#a06bff"),
    *("#ff7ac6", "#14c4c4", "#b4d339", "#ff8a3d", "#8fa3bf"),
)
IMAGE_PIXELS = 448
SHOWN_CHOICES = 4
ANSWERED = ("ok", "unscored")


def answer(row: dict[str, Any], colors: Mapping[str, str]) -> dict[str, Any]:
    """What the template shows of a row; `colors` are those of the labels."""
    mean = (row["logprob"] or 0.0) / max(row["token_count"] or 1, 1)
    found = [_box(row, detection, colors) for detection in row["detections"] or ()]
    scores = [box["score"] for box in found]
    choices = row.get("choices") or []
    if choices:
        scores = [choices[0]["probability"]]
    if (confidence := row.get("confidence")) is not None:
        scores = [confidence]
    boxes = row["detections"] or ()
    return {
        "task": row["task"],
        "prompt": row["prompt"],
        "text": row["text"] or "",
        "error": row["error"],
        "status": row["status"],
        "calibrated": any(each.get("confidence") is not None for each in (row, *boxes)),
        "accepted": row.get("accepted"),
        "cut": row["finished"] is False,
        "boxes": found,
        "choices": choices[:SHOWN_CHOICES],
        "more_choices": len(choices[SHOWN_CHOICES:]),
        "mass": row.get("choices_mass"),
        "asked_boxes": row["task"] in ("detect", "segment"),
        "labels": Counter((box["name"], box["color"]) for box in found),
        "score": max(scores, default=float(np.exp(mean))) if row["status"] in ANSWERED else 0.0,
    }


def _box(
    row: dict[str, Any], detection: dict[str, Any], colors: Mapping[str, str]
) -> dict[str, Any]:
    """A detection, in percent of the image."""
    width, height = row["width"], row["height"]
    left, top = 100 * detection["x_min"] / width, 100 * detection["y_min"] / height
    label, track = detection["label"] or "", detection.get("track_id")
    confidence = detection.get("confidence")
    color = colors[label] if track is None else COLORS[track % len(COLORS)]
    return {
        "label": label,
        "name": label if track is None else f"{label} #{track}",
        "score": (detection["score"] or 0.0) if confidence is None else confidence,
        "left": left,
        "top": top,
        "width": 100 * detection["x_max"] / width - left,
        "height": 100 * detection["y_max"] / height - top,
        "color": color,
        "mask": _mask(detection["mask"], color) if detection["mask"] else None,
    }


def _mask(rle: dict[str, Any], color: str) -> str:
    """A COCO mask as a small PNG, of that color and else transparent."""
    mask = Image.fromarray(coco_mask.decode(rle) * 255)
    mask.thumbnail((IMAGE_PIXELS, IMAGE_PIXELS))
    picture = mask.point(lambda value: value > 127).convert("P")
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    picture.putpalette([0, 0, 0, red, green, blue])
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=0, bits=1)
    return data_uri("png", file.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """A picture in the page itself."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def redacted(image: Input, redact: Callable[[bytes], bytes] | None) -> Input:
    """An image as it is to be shown."""
    if redact is None or not image.thumbnail:
        return image
    return image._replace(thumbnail=redact(image.thumbnail))
