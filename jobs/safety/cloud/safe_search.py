"""Unsafe images by Vision's SafeSearch, `images:annotate`."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from paliflow.configs.cloud_filters import SafeSearchFilter
from paliflow.jobs.safety.cloud.client import RejectedError, UnscoredError, google_client
from paliflow.jobs.safety.cloud.likelihood import likelihood, said
from paliflow.jobs.safety.cloud.texts import unscored
from paliflow.jobs.safety.protocol import Score, View

_AT_ONCE = 16
"""Images a request, as the service takes them."""
_TRANSIENT = (4, 8, 13, 14)
"""Codes of errors of single images that may pass: deadline, quota, internal, unavailable."""
_TRIES = 3
_QUALITY = 90


class SafeSearch:
    """An `ImageFilter`. Its scores are likelihoods, 1 (very unlikely) to 5 (very likely)."""

    name = "safe_search"
    version = "v1"

    def __init__(self, settings: SafeSearchFilter) -> None:
        self._settings, self._least = settings, likelihood(settings.least)
        self._client = google_client(self.name, settings.endpoint, settings.requests_per_minute)

    def score(self, images: Sequence[View]) -> list[list[Score]]:
        """See `ImageFilter`."""
        found: list[list[Score]] = []
        for start in range(0, len(images), _AT_ONCE):
            found += self._batch(images[start : start + _AT_ONCE])
        return found

    def _batch(self, images: Sequence[View]) -> list[list[Score]]:
        contents = [_jpeg(image) for image in images]
        found = [unscored(self._settings.categories, "no answer about it")] * len(images)
        left = list(range(len(images)))
        for _ in range(_TRIES):
            answers = self._ask([contents[number] for number in left])
            again = []
            for number, answer in zip(left, answers, strict=False):
                found[number] = self._scores(answer)
                error = answer.get("error") if isinstance(answer, dict) else None
                if isinstance(error, dict) and error.get("code") in _TRANSIENT:
                    again.append(number)
            if not again:
                break
            left = again
        return found

    def _ask(self, contents: Sequence[str]) -> list[Any]:
        feature = {"type": "SAFE_SEARCH_DETECTION"}
        asked = [{"image": {"content": each}, "features": [feature]} for each in contents]
        body: dict[str, Any] = {"requests": asked}
        if self._settings.parent:
            body["parent"] = self._settings.parent
        try:
            answers = self._client.post("/v1/images:annotate", body).get("responses")
        except RejectedError as error:
            raise self._client.refused(error) from None
        except UnscoredError as error:
            return [{"error": {"message": str(error)}}] * len(contents)
        return answers if isinstance(answers, list) else []

    def _scores(self, answer: Any) -> list[Score]:
        if not isinstance(answer, dict):
            return unscored(self._settings.categories, "no answer about it")
        if isinstance(error := answer.get("error"), dict):
            why = str(error.get("message") or f"error {error.get('code')}")
            return unscored(self._settings.categories, why)
        told = answer.get("safeSearchAnnotation")
        told = told if isinstance(told, dict) else {}
        return [self._score(category, told) for category in self._settings.categories]

    def _score(self, category: str, told: Mapping[str, Any]) -> Score:
        level = likelihood(told.get(category))
        if not level:
            return Score(category, None, reason="its likelihood is not known")
        flagged = level >= self._least
        return Score(category, float(level), flagged, said(level) if flagged else None)


def _jpeg(image: View) -> str:
    """The view in the image's own shape, in base64."""
    pixels = Image.fromarray(image.pixels)
    longer = max(image.width, image.height, 1)
    shape = [max(1, round(pixels.width * side / longer)) for side in (image.width, image.height)]
    file = io.BytesIO()
    pixels.resize((shape[0], shape[1])).save(file, "JPEG", quality=_QUALITY)
    return base64.b64encode(file.getvalue()).decode()
