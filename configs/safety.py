"""Filters: what is looked for in images and texts, and what becomes of where it is found."""

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    Tag,
    field_validator,
    model_validator,
)

from paliflow.configs.base import Spec
from paliflow.configs.cloud_filters import (
    ModerateTextFilter,
    PerspectiveFilter,
    SafeSearchFilter,
    SensitiveDataFilter,
)


class Verdict(NamedTuple):
    """An entry of the column `safety`."""

    filter: str
    version: str
    field: str
    """What was looked at: `image`, or the column of a text."""
    label: str
    score: float | None
    """None where the filter could not say."""
    action: str
    """`pass`, `label`, `redact` or `drop`; `unscored` where there is no score."""
    reason: str | None


PersonalDataKind = Literal["email", "phone", "card", "iban", "ip", "national_id"]
LooksAt = Literal["images", "texts", "a run"]


class QualityFilter(Spec):
    """Flags images that are small, long, blurred or blank, as they look at 256 x 256 pixels."""

    LOOKS_AT: ClassVar[LooksAt] = "images"

    filter: Literal["quality"] = "quality"
    """What the filter is."""
    action: Literal["drop", "label"] = "drop"
    """What becomes of an image that is flagged: it is removed, or only labelled."""
    min_side: NonNegativeInt = 32
    """Flags images whose shorter side has fewer pixels."""
    max_aspect: Annotated[float, Field(ge=1.0)] = 8.0
    """Flags images whose longer side is more than so many times the shorter one."""
    min_sharpness: NonNegativeFloat = 2.0
    """Flags images whose Laplacian has a smaller variance, in grey levels of 0 to 255."""
    min_entropy: NonNegativeFloat = 0.5
    """Flags images whose grey levels have less entropy, in bits of at most 8: blank pages."""


class PersonalDataFilter(Spec):
    """Flags personal data in texts by patterns, checksums and issuers' rules. It knows no names and
    no addresses."""

    LOOKS_AT: ClassVar[LooksAt] = "texts"

    filter: Literal["personal_data"] = "personal_data"
    """What the filter is."""
    action: Literal["redact", "label", "drop"] = "redact"
    """What becomes of a text with personal data: each find is replaced by its kind, such as
    `[EMAIL_ADDRESS]`; or it is only labelled; or its row is removed."""
    kinds: Annotated[tuple[PersonalDataKind, ...], Field(min_length=1)] = (
        "email", "phone", "card", "iban", "ip", "national_id",
    )  # fmt: skip
    """What is looked for."""
    regions: tuple[Annotated[str, Field(pattern=r"^[A-Z]{2}$")], ...] = ("US",)
    """The countries (ISO 3166, e.g. `GB`) whose phone numbers are found without a leading `+`, and
    whose national ids are looked for: of BR, DE, ES, FR, GB, IN, IT and US. Each takes time, and
    finds some numbers that are none."""

    @field_validator("regions")
    @classmethod
    def _distinct_regions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))


class NsfwFilter(Spec):
    """Flags images with pornography or nudity, by OpenNSFW."""

    LOOKS_AT: ClassVar[LooksAt] = "images"

    filter: Literal["nsfw"] = "nsfw"
    """What the filter is."""
    action: Literal["drop", "label"] = "drop"
    """What becomes of an image that is flagged: it is removed, or only labelled."""
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Flags images with this score or more. Its authors call less than 0.2 safe."""


class ToxicityFilter(Spec):
    """Flags English texts that are toxic, obscene, threatening or insulting, by a small LSTM."""

    LOOKS_AT: ClassVar[LooksAt] = "texts"

    filter: Literal["toxicity"] = "toxicity"
    """What the filter is."""
    action: Literal["drop", "label"] = "drop"
    """What becomes of a text that is flagged: its row is removed, or only labelled."""
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Flags texts of which any of the six scores is this or more."""


class DuplicatesFilter(Spec):
    """Flags images that are nearly the same as an earlier one of the run, by a hash of 256 bits of
    what they look like."""

    LOOKS_AT: ClassVar[LooksAt] = "a run"

    filter: Literal["duplicates"] = "duplicates"
    """What the filter is."""
    action: Literal["drop", "label"] = "drop"
    """What becomes of the later one: it is removed, or only labelled."""
    max_distance: Annotated[int, Field(ge=0, le=31)] = 31
    """Bits of 256 in which two hashes may differ. Those of other images differ in about half; 0
    finds those alone that look the same in every bit."""


class Redaction(Spec):
    """What is made unrecognisable in images that a run writes."""

    faces: Literal["blur"] | None = None
    """Faces, found by CenterFace, are blurred."""


class CopyRedaction(Redaction):
    """What is made unrecognisable in copies of images."""

    gps: Literal["strip"] | None = None
    """Where a picture was taken is removed, with all other metadata but what turns it upright and
    what its colours mean. JPEG, PNG and WebP are not encoded again for it."""

    @model_validator(mode="after")
    def _redacts_something(self) -> "CopyRedaction":
        if not (self.faces or self.gps):
            raise ValueError("give faces: blur, gps: strip, or both")
        return self


def _named(value: Any) -> Any:
    """A filter may be given as its name alone."""
    return {"filter": value} if isinstance(value, str) else value


def _name(value: Any) -> Any:
    """Which filter a mapping, or a filter that was made already, is."""
    return value.get("filter") if isinstance(value, dict) else getattr(value, "filter", None)


Scorer = Annotated[
    Annotated[
        Annotated[ToxicityFilter, Tag("toxicity")]
        | Annotated[ModerateTextFilter, Tag("moderate_text")]
        | Annotated[PerspectiveFilter, Tag("perspective")],
        Discriminator(_name),
    ],
    BeforeValidator(_named),
]
"""A filter of texts that scores their toxicity, with its settings, or its name alone."""

Filter = Annotated[
    Annotated[
        Annotated[QualityFilter, Tag("quality")]
        | Annotated[PersonalDataFilter, Tag("personal_data")]
        | Annotated[NsfwFilter, Tag("nsfw")]
        | Annotated[ToxicityFilter, Tag("toxicity")]
        | Annotated[DuplicatesFilter, Tag("duplicates")]
        | Annotated[SafeSearchFilter, Tag("safe_search")]
        | Annotated[ModerateTextFilter, Tag("moderate_text")]
        | Annotated[SensitiveDataFilter, Tag("sensitive_data")]
        | Annotated[PerspectiveFilter, Tag("perspective")],
        Discriminator(_name),
    ],
    BeforeValidator(_named),
]
"""A filter with its settings, or its name alone."""
