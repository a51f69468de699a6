"""`FilterSpec`: which images and texts of a dataset are looked at by which filters."""

from typing import ClassVar, Literal

from pydantic import model_validator

from paliflow.configs.annotate import SourceSpec
from paliflow.configs.run import FleetSpec, Stored
from paliflow.configs.safety import CopyRedaction, Filter

_OWN_COLUMNS = frozenset(
    {"image", "id", "metadata", "width", "height", "source_sha256", "image_hash", "safety"}
)
"""Columns of `kept.parquet`, beside those of texts."""


class FilterSpec(SourceSpec, FleetSpec):
    """One run of filters over images and the texts beside them; no model of Paliflow's is asked.

    It leaves `kept.parquet`, a manifest of what remains, which annotation and training take.
    """

    EXECUTION_FIELDS: ClassVar[frozenset[str]] = FleetSpec.EXECUTION_FIELDS | {
        "max_error_fraction",
        "max_errors",
        "unscored",
    }

    kind: Literal["filter"] = "filter"
    """What the run is."""
    filters: tuple[Filter, ...] = ()
    """The filters, each by its name or with its settings, e.g. `quality` or
    `{filter: personal_data, action: label}`."""
    text_columns: tuple[str, ...] = ()
    """The manifest's columns of texts that filters of texts look at. `kept.parquet` has them under
    the same names, redacted."""
    exclude_near: tuple[Stored, ...] = ()
    """Folders of finished filter runs, e.g. over the images of an evaluation: what is nearly the
    same as an image of theirs is removed. They need the same `exif`."""
    redact: CopyRedaction | None = None
    """Copies of what remains are written to `images/`, in which faces are blurred and metadata is
    removed: `{faces: blur, gps: strip}`. `kept.parquet` names the copies. Faces take
    `paliflow[faces]`; with them all copies are JPEGs."""
    unscored: Literal["drop", "keep"] = "drop"
    """What becomes of an image or text that a filter could not score."""

    @model_validator(mode="after")
    def _looks_at_something(self) -> "FilterSpec":
        looks = [each.LOOKS_AT for each in self.filters]
        if not looks and not self.exclude_near and not self.redact:
            raise ValueError("give filters, e.g. `quality`, exclude_near or redact")
        if ("texts" in looks) != bool(self.text_columns):
            raise ValueError(
                "text_columns: filters of texts, such as `personal_data`, need the columns that "
                "they look at, and those need such a filter"
            )
        if taken := _OWN_COLUMNS.intersection(self.text_columns):
            raise ValueError(
                f"text_columns: kept.parquet has a column {', '.join(sorted(taken))} of its own; "
                "rename that of the manifest"
            )
        names = [each.filter for each in self.filters]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"filters: {', '.join(sorted(repeated))} is given twice")
        if self.video:
            raise ValueError("leave out video: extract frames first, and filter those")
        return self

    @property
    def carried_columns(self) -> tuple[str, ...]:
        """The manifest's columns that come with each image."""
        return tuple(dict.fromkeys(self.text_columns + self.metadata_columns))
