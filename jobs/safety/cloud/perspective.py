"""Toxicity of texts by the Perspective API, or by who serves the same."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from paliflow.configs.base import SpecError
from paliflow.configs.cloud_filters import PerspectiveFilter
from paliflow.jobs.safety.cloud.client import Client, RejectedError, UnscoredError
from paliflow.jobs.safety.cloud.texts import TextScores, judged, probability, unscored
from paliflow.jobs.safety.protocol import Score

KEY_VARIABLE = "PALIFLOW_PERSPECTIVE_KEY"
_OF_TEXTS = {
    "COMMENT_EMPTY": "blank",
    "COMMENT_TOO_LONG": "too long",
    "LANGUAGE_DETECTION_FAILED": "its language is not known",
}
"""Errors that a text is to blame for, and not the settings."""
_NOT_SUPPORTED = "LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE"
_LONGEST = 20_480


class Perspective:
    """A `TextFilter`. Its networks change without a version, so that the day is part of ours."""

    name = "perspective"

    def __init__(self, settings: PerspectiveFilter) -> None:
        """
        Raises:
            SpecError: there is no key.
        """
        key = os.environ.get(KEY_VARIABLE)
        official = PerspectiveFilter.model_fields["endpoint"].default
        if not key and settings.endpoint == official:
            raise SpecError(f"filters: perspective: set {KEY_VARIABLE} where actors run")
        self.version = f"v1alpha1 of {datetime.now(UTC):%Y-%m-%d}"
        self._settings = settings
        self._client = Client(
            self.name,
            settings.endpoint,
            settings.requests_per_minute,
            parameters={"key": key} if key else None,
        )
        self._scores = TextScores(self._one, settings.attributes, _LONGEST)

    def score(self, texts: Sequence[str]) -> list[list[Score]]:
        """See `TextFilter`."""
        return self._scores.of(texts)

    def _one(self, text: str) -> list[Score]:
        asked, lost = list(self._settings.attributes), list[str]()
        while asked:
            try:
                found = self._ask(text, asked)
            except RejectedError as error:
                attribute = self._blamed(error)
                if attribute not in asked:
                    raise self._client.refused(error) from None
                asked.remove(attribute)  # it fails the others' request, too
                lost.append(attribute)
                continue
            by_label = {score.label: score for score in found}
            why = f"language {self._settings.language} is not supported"
            missing = {score.label: score for score in unscored(lost, why)}
            return [(by_label | missing)[label] for label in self._settings.attributes]
        raise UnscoredError(f"language {self._settings.language} is not supported")

    def _ask(self, text: str, attributes: Sequence[str]) -> list[Score]:
        body = {
            "comment": {"text": text, "type": "PLAIN_TEXT"},
            "languages": [self._settings.language],
            "requestedAttributes": {each.upper(): {} for each in attributes},
            "doNotStore": True,
        }
        answer = self._client.post("/v1alpha1/comments:analyze", body)
        told = answer.get("attributeScores")
        return [
            judged(label, _summary(told, label.upper()), self._settings.threshold)
            for label in attributes
        ]

    def _blamed(self, error: RejectedError) -> str:
        """The attribute that does not know the language.

        Raises:
            UnscoredError: the text is to blame.
        """
        for detail in error.details:
            kind = detail.get("errorType")
            if kind in _OF_TEXTS:
                raise UnscoredError(_OF_TEXTS[kind])
            about = detail.get("languageNotSupportedByAttributeError")
            if kind == _NOT_SUPPORTED and isinstance(about, dict):
                return str(about.get("attribute")).lower()
        return ""


def _summary(told: Any, attribute: str) -> float | None:
    for field in (attribute, "summaryScore", "value"):
        told = told.get(field) if isinstance(told, dict) else None
    return probability(told)
