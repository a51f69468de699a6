"""Checks of images and texts by several filters: verdicts, and texts with what was found removed.

A verdict is what the column `safety` says of one label of one filter.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from paliflow.configs.base import SpecError, brief
from paliflow.configs.cloud_filters import (
    ModerateTextFilter,
    PerspectiveFilter,
    SafeSearchFilter,
    SensitiveDataFilter,
)
from paliflow.configs.safety import (
    Filter,
    NsfwFilter,
    PersonalDataFilter,
    QualityFilter,
    Redaction,
    ToxicityFilter,
    Verdict,
)
from paliflow.jobs.safety.protocol import ImageFilter, Score, TextFilter, View

if TYPE_CHECKING:
    from paliflow.jobs.safety.faces import Faces

Outcome = Literal["ok", "filtered", "unscored"]
_REASON = 200


def outcome(verdicts: Iterable[Verdict]) -> Outcome:
    """What becomes of the row: `filtered` if any verdict drops it, else `unscored` if any filter
    could not say, else `ok`."""
    actions = {verdict.action for verdict in verdicts}
    if "drop" in actions:
        return "filtered"
    return "unscored" if "unscored" in actions else "ok"


class ImageCheck:
    """Those of a spec's filters that look at images."""

    def __init__(self, filters: Iterable[Filter]) -> None:
        chosen = [each for each in filters if each.LOOKS_AT == "images"]
        self._filters = [(image_filter(each), each.action) for each in chosen]

    def __bool__(self) -> bool:
        return bool(self._filters)

    def verdicts(self, images: Sequence[View]) -> list[list[Verdict]]:
        """Returns those of each image."""
        found: list[list[Verdict]] = [[] for _ in images]
        for each, action in self._filters:
            for own, scores in zip(found, each.score(images), strict=True):
                own += (_verdict(each, "image", score, action) for score in scores)
        return found


class TextCheck:
    """Those of a spec's filters that look at texts."""

    def __init__(self, filters: Iterable[Filter]) -> None:
        chosen = [each for each in filters if each.LOOKS_AT == "texts"]
        self._filters = [(text_filter(each), each.action) for each in chosen]

    def __bool__(self) -> bool:
        return bool(self._filters)

    def verdicts(self, texts: Sequence[str], field: str) -> list[tuple[list[Verdict], str]]:
        """Returns the verdicts on each text, and the text with what is to be redacted replaced by
        the labels, such as `[EMAIL_ADDRESS]`.

        Args:
            texts: what to look at.
            field: the column that they are of.
        """
        found: list[list[Verdict]] = [[] for _ in texts]
        redacted = list(texts)
        for each, action in self._filters:
            for number, scores in enumerate(each.score(redacted)):
                found[number] += (_verdict(each, field, score, action) for score in scores)
                if action == "redact":
                    redacted[number] = redact(redacted[number], scores)
        return list(zip(found, redacted, strict=True))


def redact(text: str, scores: Iterable[Score]) -> str:
    """The text with each span of flagged scores replaced by its label in brackets, or as the filter
    has rewritten it."""
    scores = list(scores)
    for score in scores:
        if score.rewritten is not None:
            return score.rewritten
    spans = [(*span, score.label) for score in scores if score.flagged for span in score.spans]
    for start, end, label in sorted(spans, reverse=True):
        text = f"{text[:start]}[{label}]{text[end:]}"
    return text


def image_filter(settings: Filter) -> ImageFilter:
    """The filter of images that has these settings.

    Raises:
        SpecError: what it needs is not installed.
    """
    with _installed(settings):  # what an extra brings is imported where it is needed
        match settings:
            case QualityFilter():
                from paliflow.jobs.safety.quality import Quality

                return Quality(settings)
            case NsfwFilter():
                from paliflow.jobs.safety.nsfw import Nsfw

                return Nsfw(settings)
            case SafeSearchFilter():
                from paliflow.jobs.safety.cloud.safe_search import SafeSearch

                return SafeSearch(settings)
    raise SpecError(f"filters: {settings.filter} looks at {settings.LOOKS_AT}, not images")


def text_filter(settings: Filter) -> TextFilter:
    """The filter of texts that has these settings.

    Raises:
        SpecError: what it needs is not installed, or it knows no such country.
    """
    with _installed(settings):
        match settings:
            case PersonalDataFilter():
                from paliflow.jobs.safety.personal_data import PersonalData

                try:
                    return PersonalData(settings)
                except ValueError as error:
                    raise SpecError(f"filters: personal_data: {error}") from None
            case ToxicityFilter():
                from paliflow.jobs.safety.toxicity import Toxicity

                return Toxicity(settings)
            case ModerateTextFilter():
                from paliflow.jobs.safety.cloud.moderate_text import ModerateText

                return ModerateText(settings)
            case PerspectiveFilter():
                from paliflow.jobs.safety.cloud.perspective import Perspective

                return Perspective(settings)
            case SensitiveDataFilter():
                from paliflow.jobs.safety.cloud.sensitive_data import SensitiveData

                return SensitiveData(settings)
    raise SpecError(f"filters: {settings.filter} looks at {settings.LOOKS_AT}, not texts")


def face_finder(settings: Redaction | None) -> "Faces | None":
    """What blurs faces, if a spec asks for it.

    Raises:
        SpecError: what it needs is not installed.
    """
    if settings is None or not settings.faces:
        return None
    try:
        from paliflow.jobs.safety.faces import Faces

        return Faces()
    except ImportError as error:
        raise SpecError(
            f"redact.faces needs {error.name}; install paliflow[faces] where actors run"
        ) from None


@contextmanager
def _installed(settings: Filter) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise SpecError(
            f"filters: {settings.filter} needs {error.name}; install paliflow[safety] where "
            "actors run"
        ) from None


def _verdict(by: ImageFilter | TextFilter, field: str, score: Score, action: str) -> Verdict:
    done = "unscored" if score.score is None else action if score.flagged else "pass"
    reason = score.reason and brief(score.reason, _REASON)
    return Verdict(by.name, by.version, field, score.label, score.score, done, reason)
