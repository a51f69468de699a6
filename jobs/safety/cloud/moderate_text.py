"""Toxicity of texts by Natural Language's `documents:moderateText`."""

from collections.abc import Sequence

from paliflow.configs.cloud_filters import ModerateTextFilter
from paliflow.jobs.safety.cloud.client import RejectedError, UnscoredError, google_client
from paliflow.jobs.safety.cloud.texts import TextScores, judged, probability
from paliflow.jobs.safety.protocol import Score

_MODEL = "MODEL_VERSION_1"
_NAMES = {
    "toxicity": "Toxic",
    "identity_attack": "Derogatory",
    "insult": "Insult",
    "profanity": "Profanity",
    "sexual": "Sexual",
}
"""What the service calls them. Its Violent counts what is only told of, and is no threat."""
_LONGEST = 1_000_000


class ModerateText:
    """A `TextFilter`."""

    name = "moderate_text"
    version = f"v2 {_MODEL}"

    def __init__(self, settings: ModerateTextFilter) -> None:
        self._settings = settings
        self._client = google_client(self.name, settings.endpoint, settings.requests_per_minute)
        self._scores = TextScores(self._one, settings.categories, _LONGEST)

    def score(self, texts: Sequence[str]) -> list[list[Score]]:
        """See `TextFilter`."""
        return self._scores.of(texts)

    def _one(self, text: str) -> list[Score]:
        settings = self._settings
        document = {"type": "PLAIN_TEXT", "content": text, "languageCode": settings.language}
        body = {"document": document, "modelVersion": _MODEL}
        try:
            answer = self._client.post("/v2/documents:moderateText", body)
        except RejectedError as error:
            raise self._client.refused(error) from None
        if not answer.get("languageSupported"):
            raise UnscoredError(f"language {settings.language} is not supported")
        told = {
            each.get("name"): probability(each.get("confidence", 0.0))  # 0 is left out
            for each in answer.get("moderationCategories") or ()
            if isinstance(each, dict)
        }
        return [
            judged(category, told.get(_NAMES[category]), settings.threshold)
            for category in settings.categories
        ]
