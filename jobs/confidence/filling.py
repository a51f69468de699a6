"""The columns of confidence in an annotation's rows, from a calibration that fits the run."""

import math
from collections.abc import Mapping
from typing import Any

from paliflow.jobs.confidence.calibration import Calibration, Group, RankedBy
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


def raw_box_score(detection: Mapping[str, Any], by: RankedBy = "location_mass") -> float | None:
    """The probability of a box's label times that of its location and those next to it; or, by
    `score`, times that of the location alone."""
    label, location = detection.get("label_probability"), detection.get("location_mass")
    if by == "score" or label is None or location is None:
        return detection.get("score")
    return float(label * location)


class Confidences:
    """What a calibration says of the rows of a run."""

    def __init__(self, calibration: Calibration, precision: float | None = None) -> None:
        """
        Args:
            calibration: fits the run.
            precision: of what is accepted; nothing is said of that if not given.
        """
        self._calibration, self._precision = calibration, precision
        self._least: dict[tuple[str, str, str | None], float | None] = {}
        if precision is not None:
            for group in calibration.groups:
                point = group.threshold(precision, calibration.level)
                self._least[_key(group)] = point and point.confidence

    def fill(self, row: Row, form: str) -> None:
        """Fills `confidence` and `accepted` of a row, or of its boxes.

        What was not calibrated has no confidence, and is not accepted.

        Args:
            row: an annotation's, which is changed.
            form: what its answer may be, see `form_of`.
        """
        group = self._calibration.group(row["prompt"], form)
        if row["task"] in ("detect", "segment"):
            for found in row.get("detections") or ():
                raw = raw_box_score(found, group.by if group else "location_mass")
                self._say(found, group, found["label"], raw)
        else:
            self._say(row, group, row.get("text"), raw_score(row))

    def _say(self, answer: Row, group: Group | None, label: str | None, raw: float | None) -> None:
        confidence = None
        if group and raw is not None:
            knots = group.labels.get(label or "", group.whole)
            confidence = answer["confidence"] = float(mapped(knots.x, knots.y, raw))
        if self._precision is not None:
            least = self._least[_key(group)] if group else None
            sure = confidence is not None and least is not None and confidence >= least
            answer["accepted"] = sure


def _key(group: Group) -> tuple[str, str, str | None]:
    return group.task, group.form, group.prompt
