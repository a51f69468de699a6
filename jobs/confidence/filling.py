"""The columns of confidence in an annotation's rows, from a calibration that fits the run."""

import math
from collections.abc import Mapping
from typing import Any

from paliflow.jobs.confidence.calibration import Calibration, Group, Knots
from paliflow.jobs.confidence.fitting import mapped

Row = dict[str, Any]


def raw_score(row: Mapping[str, Any]) -> float | None:
    """The model's own probability of an answer: of the likeliest choice among the choices, or of
    the whole text; None of rows without an answer."""
    if row["status"] == "error" or row.get("logprob") is None:
        return None
    if choices := row.get("choices"):
        return float(choices[0]["probability"])
    return float(min(1.0, math.exp(row["logprob"])))


def raw_box_score(detection: Mapping[str, Any]) -> float | None:
    """The probability of a box's label times that of its location and those next to it."""
    label, location = detection.get("label_probability"), detection.get("location_mass")
    if label is None or location is None:
        return detection.get("score")
    return float(label * location)


def fill(row: Row, form: str, calibration: Calibration) -> None:
    """Fills `confidence` of a row, or of its boxes, where the calibration knows such answers.

    Args:
        row: an annotation's, which is changed.
        form: what its answer may be, see `form_of`.
        calibration: that fits the run.
    """
    if not (group := calibration.group(row["prompt"], form)):
        return
    if row["task"] in ("detect", "segment"):
        for found in row.get("detections") or ():
            found["confidence"] = _confidence(group, found["label"], raw_box_score(found))
    else:
        row["confidence"] = _confidence(group, row.get("text"), raw_score(row))


def _confidence(group: Group, label: str | None, raw: float | None) -> float | None:
    if raw is None:
        return None
    knots: Knots = group.labels.get(label or "", group.whole)
    return float(mapped(knots.x, knots.y, raw))
