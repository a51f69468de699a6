"""Filters around the model: images before they are asked about, answers before they are written."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paliflow.configs.base import brief
from paliflow.configs.safety import Filter, Verdict
from paliflow.jobs.media.reading import Input
from paliflow.jobs.safety.checking import ImageCheck, TextCheck, outcome
from paliflow.jobs.safety.protocol import View

_ANSWER = ("text", "detections", "logprob", "token_count", "finished", "choices", "choices_mass")
"""Columns of which nothing is told where an answer is filtered."""


class RowFilters:
    """A run's filters; any thread may use them."""

    def __init__(self, filters: Sequence[Filter]) -> None:
        """
        Raises:
            SpecError: what one of them needs is not installed.
        """
        self._images, self._texts = ImageCheck(filters), TextCheck(filters)
        self.sees_images = bool(self._images)
        """Whether inputs have to come with their `view`."""

    def check_image(self, source: Input) -> Input:
        """Returns an input with its verdicts; without pixels and thumbnail if it is filtered."""
        if source.view is None or source.width is None or source.height is None:
            return source
        (verdicts,) = self._images.verdicts([View(source.view, source.width, source.height)])
        source = source._replace(view=None, verdicts=tuple(verdicts))
        if outcome(verdicts) == "filtered":
            return source._replace(pixels=None, thumbnail=None)
        return source

    def check_rows(self, answers: Iterable[tuple[Input, Sequence[dict[str, Any]]]]) -> None:
        """Gives the rows of inputs their `safety`, and what follows from it: another status, or a
        redacted text."""
        told = [(row, list(source.verdicts)) for source, rows in answers for row in rows]
        self._check_answers([pair for pair in told if pair[0]["status"] == "ok"])
        for row, verdicts in told:
            if verdicts:
                row["safety"] = [verdict._asdict() for verdict in verdicts]
                _settle(row, verdicts)

    def _check_answers(self, told: Sequence[tuple[dict[str, Any], list[Verdict]]]) -> None:
        """Checks the texts of answers and the labels of their boxes, which may be changed."""
        if not self._texts:
            return
        told = [pair for pair in told if not pair[0].get("choices")]  # which the user has written
        checked = self._texts.verdicts([row["text"] for row, _ in told], "text")
        for (row, verdicts), (found, text) in zip(told, checked, strict=True):
            row["text"] = text
            verdicts += found
        # What is in a label is in the text, which has the verdicts.
        boxes = [box for row, _ in told for box in row.get("detections") or ()]
        labels = self._texts.verdicts([box["label"] for box in boxes], "text")
        for box, (_, label) in zip(boxes, labels, strict=True):
            box["label"] = label


def _settle(row: dict[str, Any], verdicts: Sequence[Verdict]) -> None:
    done = outcome(verdicts)
    if done == "filtered":
        gone: Mapping[str, Any] = dict.fromkeys(_ANSWER)
        why = next(verdict for verdict in verdicts if verdict.action == "drop")
        said = brief(f"{why.filter}/{why.label}: {why.reason}")
        row.update(gone, status="filtered", error=said)
    elif done == "unscored" and row["status"] == "ok":
        row["status"] = "unscored"
