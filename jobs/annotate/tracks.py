"""Tracks: which boxes of consecutive samples of a video are the same thing."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco


def link(rows: Sequence[Mapping[str, Any]], least: float) -> None:
    """Gives each detection of a video's rows a `track_id`, in place.

    From one sample to the next of the same prompt, boxes of the same label are paired so that
    their overlap (IoU) is the largest in total (Kuhn-Munkres, as SORT does: arXiv:1602.00763);
    a box without a partner begins a track. Ids count from 0 in each video.

    Args:
        rows: of one video in order, by the columns of `ANNOTATIONS`.
        least: the IoU below which two boxes are never the same thing.
    """
    seen: dict[str, list[dict[str, Any]]] = defaultdict(list)
    following = 0
    for row in rows:
        if row["status"] not in ("ok", "unscored"):
            continue
        found = row.get("detections") or []
        pairs = _pairs(seen[row["prompt"]], found, least)
        for place, detection in enumerate(found):
            if place in pairs:
                detection["track_id"] = pairs[place]
            else:
                detection["track_id"], following = following, following + 1
        seen[row["prompt"]] = found


def _pairs(before: list[dict[str, Any]], now: list[dict[str, Any]], least: float) -> dict[int, int]:
    """The tracks of boxes that continue one, by the place of the box."""
    if not before or not now:
        return {}
    # SciPy's optimisers take a second to import; most runs link nothing.
    from scipy.optimize import linear_sum_assignment

    overlap = coco.iou(_boxes(now), _boxes(before), [0] * len(before))
    alike = [[a["label"] == b["label"] for b in before] for a in now]
    gain = np.where(alike, overlap, 0.0)
    gain[gain < least] = 0.0
    rows, columns = linear_sum_assignment(gain, maximize=True)
    return {
        int(row): before[column]["track_id"]
        for row, column in zip(rows, columns, strict=True)
        if gain[row, column] > 0
    }


def _boxes(detections: list[dict[str, Any]]) -> Any:
    """COCO's x, y, width, height."""
    return np.array(
        [
            (d["x_min"], d["y_min"], d["x_max"] - d["x_min"], d["y_max"] - d["y_min"])
            for d in detections
        ],
        np.float64,
    )
