"""Filters that ask Google's services: what leaves the machines is sent by these alone."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, PositiveInt

from paliflow.configs.base import Spec

_ENDPOINT = re.compile(r"https://[\w.-]+(?::\d+)?|http://(?:127\.0\.0\.1|localhost)(?::\d+)?")
_PROJECT = r"^[a-z0-9:.-]+$"
_PARENT = r"^projects/[a-z0-9:.-]+/locations/[a-z0-9-]+$"
_TEMPLATE = r"^[\w/.:-]+/deidentifyTemplates/[\w-]+$"


def _is_secret(value: str) -> str:
    value = value.rstrip("/")
    if not _ENDPOINT.fullmatch(value):
        raise ValueError("give https://<host>; plain http goes to this machine alone")
    return value


Endpoint = Annotated[str, AfterValidator(_is_secret)]
"""Where requests with credentials are sent."""
Likelihood = Literal["POSSIBLE", "LIKELY", "VERY_LIKELY"]


class SafeSearchFilter(Spec):
    """Flags unsafe images by Vision's SafeSearch. It is sent what filters see of an image, at most
    256 pixels a side, in the image's own shape."""

    LOOKS_AT: ClassVar[Literal["images"]] = "images"

    filter: Literal["safe_search"] = "safe_search"
    """What the filter is."""
    action: Literal["drop", "label"] = "drop"
    """What becomes of an image that is flagged: it is removed, or only labelled."""
    categories: Annotated[
        tuple[Literal["adult", "spoof", "medical", "violence", "racy"], ...], Field(min_length=1)
    ] = ("adult", "violence")
    """What is looked for."""
    least: Likelihood = "LIKELY"
    """Flags images of which a category is at least so likely."""
    parent: Annotated[str, Field(pattern=_PARENT)] | None = None
    """Where the images are processed, e.g. `projects/shop/locations/eu`."""
    endpoint: Endpoint = "https://vision.googleapis.com"
    """The service."""
    requests_per_minute: PositiveInt = 1800
    """Of all actors of the run together."""


class ModerateTextFilter(Spec):
    """Flags toxic texts by Natural Language's text moderation."""

    LOOKS_AT: ClassVar[Literal["texts"]] = "texts"

    filter: Literal["moderate_text"] = "moderate_text"
    """What the filter is."""
    action: Literal["drop", "label"] = "drop"
    """What becomes of a text that is flagged: its row is removed, or only labelled."""
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Flags texts of which any of the categories has this confidence or more. Its 0.8 is not that
    of other scorers."""
    categories: Annotated[
        tuple[Literal["toxicity", "identity_attack", "insult", "profanity", "sexual"], ...],
        Field(min_length=1),
    ] = ("toxicity", "identity_attack", "insult", "profanity", "sexual")
    """What is looked for; the service calls `identity_attack` Derogatory."""
    language: Annotated[str, Field(pattern=r"^[A-Za-z-]{2,10}$")] = "en"
    """Of the texts (BCP 47); short ones are taken for another easily."""
    endpoint: Endpoint = "https://language.googleapis.com"
    """The service."""
    requests_per_minute: PositiveInt = 600
    """Of all actors of the run together."""


class SensitiveDataFilter(Spec):
    """Flags personal data in texts by Sensitive Data Protection, which knows names and addresses,
    too."""

    LOOKS_AT: ClassVar[Literal["texts"]] = "texts"

    filter: Literal["sensitive_data"] = "sensitive_data"
    """What the filter is."""
    action: Literal["redact", "label", "drop"] = "redact"
    """What becomes of a text with personal data: each find is replaced by its kind, such as
    `[PERSON_NAME]`; or it is only labelled; or its row is removed."""
    project: Annotated[str, Field(pattern=_PROJECT)]
    """The project whose quota it takes."""
    location: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] = "global"
    """Where the texts are processed, e.g. `europe-west3`."""
    info_types: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Z0-9_/]+$")], ...],
        Field(min_length=1, max_length=150),
    ] = (
        "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD_NUMBER", "IBAN_CODE",
        "US_SOCIAL_SECURITY_NUMBER", "PASSPORT", "IP_ADDRESS", "STREET_ADDRESS", "PERSON_NAME",
    )  # fmt: skip
    """The kinds of personal data that are looked for, as the service names them."""
    least: Likelihood = "LIKELY"
    """Flags what is at least so likely."""
    deidentify_template: Annotated[str, Field(pattern=_TEMPLATE)] | None = None
    """With `redact`, the template by which the service itself rewrites texts with finds, e.g.
    `projects/shop/locations/global/deidentifyTemplates/mask`."""
    endpoint: Endpoint = "https://dlp.googleapis.com"
    """The service."""
    requests_per_minute: PositiveInt = 600
    """Of all actors of the run together."""


class PerspectiveFilter(Spec):
    """Flags toxic texts by the Perspective API, or who serves the same at another endpoint. Its key
    is the environment variable `PALIFLOW_PERSPECTIVE_KEY` where actors run. The service itself ends
    with 2026."""

    LOOKS_AT: ClassVar[Literal["texts"]] = "texts"

    filter: Literal["perspective"] = "perspective"
    """What the filter is."""
    action: Literal["drop", "label"] = "drop"
    """What becomes of a text that is flagged: its row is removed, or only labelled."""
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Flags texts of which any of the attributes has this score or more."""
    attributes: Annotated[
        tuple[
            Literal[
                "toxicity", "severe_toxicity", "identity_attack", "insult", "threat", "profanity",
                "sexually_explicit",
            ],
            ...,
        ],
        Field(min_length=1),
    ] = ("toxicity", "identity_attack", "insult", "threat", "profanity")  # fmt: skip
    """What is looked for; `sexually_explicit` is experimental and knows English alone."""
    language: Annotated[str, Field(pattern=r"^[A-Za-z-]{2,10}$")] = "en"
    """Of the texts; short ones are taken for another easily."""
    endpoint: Endpoint = "https://commentanalyzer.googleapis.com"
    """The service."""
    requests_per_minute: PositiveInt = 60
    """Of all actors of the run together."""
