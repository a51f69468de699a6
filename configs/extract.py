"""`ExtractSpec`: which frames of which videos are written as images."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt, field_validator

from paliflow.configs.annotate import SourceSpec
from paliflow.configs.run import FleetSpec
from paliflow.configs.safety import Redaction
from paliflow.configs.video import VideoSpec


class ExtractSpec(SourceSpec, FleetSpec):
    """One extraction: every sampled frame becomes an image and a row of Parquet; no model."""

    EXECUTION_FIELDS: ClassVar[frozenset[str]] = FleetSpec.EXECUTION_FIELDS | {
        "max_error_fraction",
        "max_errors",
    }

    kind: Literal["extract"] = "extract"
    """What the run is."""
    video: VideoSpec
    """Which frames of each video are written."""
    format: Literal["jpeg", "png"] = "jpeg"
    """Of the images."""
    quality: int = Field(default=90, ge=1, le=100)
    """Of JPEG; PNG loses nothing."""
    longest_side: PositiveInt | None = None
    """Frames whose longer side has more pixels are shrunk to this; none if not given."""

    square_pixels: bool = False
    """Stretches frames whose pixels are not square (anamorphic DVDs, DV) to the width in which
    they are shown; else they are written as they are stored, and `pixel_aspect` says the shape."""

    redact: Redaction = Redaction()
    """What is blurred in the images: `{faces: blur}`, which takes `paliflow[faces]`."""

    @field_validator("video")
    @classmethod
    def _single_frames(cls, value: VideoSpec) -> VideoSpec:
        for name in ("clip", "track"):
            if getattr(value, name):
                raise ValueError(f"leave out {name}: frames are written one by one, and not asked")
        return value
