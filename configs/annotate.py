"""`AnnotateSpec`: which images, which prompts, which checkpoint, where the rows go."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from paliflow.configs.base import Spec, redacted
from paliflow.configs.gate import Gate
from paliflow.configs.prompts import (
    AnyPrompt,
    PromptSpec,
    require_distinct,
    require_no_closed,
    text_of,
)
from paliflow.configs.run import InferenceSpec, InputsSpec, Stored
from paliflow.configs.safety import Filter, Redaction


class Sampling(Spec):
    """How tokens are chosen: the likeliest, unless a temperature is given."""

    temperature: float = Field(default=0.0, ge=0.0)
    """0 takes the likeliest token; above 0, samples from `softmax(logits / temperature)`."""
    top_k: PositiveInt | None = None
    """Sample among the k likeliest tokens only."""
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    """Sample among the likeliest tokens that together reach this probability (nucleus)."""
    beams: PositiveInt = 1
    """Live hypotheses of a beam search, as some published captions were made with 2 or 3: the
    likeliest answer that ends by itself, no length being preferred. 1 searches no further."""

    @model_validator(mode="after")
    def _needs_temperature(self) -> "Sampling":
        if not self.temperature and (self.top_k or self.top_p):
            raise ValueError("top_k and top_p need a temperature above 0")
        if self.top_k and self.top_p:
            raise ValueError("give top_k or top_p, not both")
        if self.beams > 1 and self.temperature:
            raise ValueError("beams search for the likeliest answer; leave out temperature")
        return self


class Accept(Spec):
    """Which answers are taken without anybody looking at them."""

    precision: float = Field(ge=0.5, lt=1.0)
    """The share of accepted answers that is right at least, by the calibration's bound."""


class SourceSpec(InputsSpec):
    """A run over what a folder, a glob, a manifest or a tar holds."""

    input: str = Field(min_length=1)
    """An image file, a folder (searched recursively), a glob, a manifest (.parquet, .csv, .tsv,
    .jsonl, the last three also .gz) with one image path a row, or a WebDataset (.tar, or a glob of
    them); local, `gs://`, and with an extra of the same name `s3://` and `https://`. With `video`,
    likewise of videos."""
    sniff: bool = False
    """Of a folder or a tar, take files of any name that begin like an image; each of those whose
    name does not end like one is looked into."""
    image_column: str = "image"
    """The manifest's column of paths; relative paths are relative to the manifest."""
    id_column: str | None = None
    """The manifest's column that becomes the output's `id`."""
    metadata_columns: tuple[str, ...] = ()
    """The manifest's columns that are carried through to `metadata`, as JSON."""

    @field_validator("input")
    @classmethod
    def _without_credentials(cls, value: str) -> str:
        if redacted(value) != value:
            raise ValueError("a user, password or signature in it would be written to the output")
        return value

    @model_validator(mode="after")
    def _sniffs_images(self) -> "SourceSpec":
        if self.sniff and self.video and not self.video.frame_rate:
            raise ValueError("sniff finds images; with video, files are known by their names")
        return self

    @model_validator(mode="after")
    def _one_id(self) -> "SourceSpec":
        if self.id_column and self.video and self.video.group_column:
            raise ValueError("video.group_column becomes the output's id; leave out id_column")
        return self


class AnnotateSpec(InferenceSpec, SourceSpec):
    """One annotation run: every input times every prompt becomes rows of Parquet."""

    EXECUTION_FIELDS: ClassVar[frozenset[str]] = InferenceSpec.EXECUTION_FIELDS | {
        "compact",
        "gate",
        "report",
    }

    kind: Literal["annotate"] = "annotate"
    """What the run is."""
    prompts: tuple[AnyPrompt, ...] = ()
    """What the model is asked about each image, e.g. `caption en` or `detect cat ; dog`. Of a
    manifest's rows, `{name}` stands for a column: `answer en {question}`. An object fixes the
    answers: `{ask: "answer en which shelf?", choices: [top, middle, none]}`."""
    sampling: Sampling = Sampling()
    """How tokens are chosen."""
    prompt_column: str | None = None
    """The manifest's column with one more prompt for each row."""
    only_new: bool = False
    """Skip inputs that an earlier run of this output has answered, unchanged, with the same
    prompts by the same checkpoint."""
    row_group_size: PositiveInt = 16_384
    """Rows a Parquet row group."""
    compression_level: int = Field(default=3, ge=1, le=22)
    """Of zstd, in which the Parquet files are compressed."""
    thumbnail: PositiveInt | None = None
    """Keep each image in the output's `image_thumbnail`: a JPEG whose longer side has this many
    pixels."""
    redact: Redaction = Redaction()
    """What is blurred in thumbnails and in the report: `{faces: blur}`, which takes
    `paliflow[faces]`. The model is shown the images as they are."""
    compact: bool = False
    """Rewrite the finished run into files of about 256 MB."""
    filters: tuple[Filter, ...] = ()
    """Filters of images, which come before the model, and of answers, which come after it: each by
    its name or with its settings, e.g. `quality` or `{filter: personal_data, action: label}`."""
    calibration: Stored | None = None
    """A `calibration.json`, which says how raw scores become the output's `confidence`; that of the
    checkpoint's version in the registry, if there is one, if not given."""
    accept: Accept | None = None
    """Answers and boxes get `accepted`, true for those whose confidence surely reaches a precision,
    e.g. `{precision: 0.95}`. Refused where what is asked was not calibrated: see
    docs/confidence.md."""
    gate: Gate | None = None
    """What the run has to be like; one that is not is quarantined, and the job fails for good: see
    docs/gates.md."""
    report: bool = True
    """Leave `_report.html` beside the manifest: sampled rows drawn over their images, errors."""

    @field_validator("prompts")
    @classmethod
    def _distinct_prompts(cls, value: tuple[AnyPrompt, ...]) -> tuple[AnyPrompt, ...]:
        require_distinct(value)
        return value

    @model_validator(mode="after")
    def _searches_in_free_words(self) -> "AnnotateSpec":
        require_no_closed(self.prompts, self.sampling.beams)
        return self

    @field_validator("filters")
    @classmethod
    def _filters_of_rows(cls, value: tuple[Filter, ...]) -> tuple[Filter, ...]:
        names = [each.filter for each in value]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{', '.join(sorted(repeated))} is given twice")
        if any(each.LOOKS_AT == "a run" for each in value):
            raise ValueError(
                "duplicates compares all images of a run: `paliflow filter` does, whose "
                "kept.parquet is an input"
            )
        return value

    @model_validator(mode="after")
    def _filters_see_the_input(self) -> "AnnotateSpec":
        if self.video and (seeing := [f.filter for f in self.filters if f.LOOKS_AT == "images"]):
            raise ValueError(
                f"filters: {', '.join(seeing)} looks at images, not at videos; extract frames "
                "first, and annotate those"
            )
        return self

    @model_validator(mode="after")
    def _gate_has_what_it_needs(self) -> "AnnotateSpec":
        if self.gate and self.gate.canaries and self.video:
            raise ValueError("gate: canaries are images, which a run of videos does not read")
        if self.gate and self.gate.max_not_accepted is not None and not self.accept:
            raise ValueError("gate: max_not_accepted needs accept, which says what is accepted")
        return self

    @property
    def texts(self) -> tuple[str, ...]:
        """What the prompts ask."""
        return tuple(map(text_of, self.prompts))

    @model_validator(mode="after")
    def _asks_something(self) -> "AnnotateSpec":
        if not self.prompts and not self.prompt_column:
            raise ValueError("give prompts, or the prompt_column of a manifest")
        return self

    @model_validator(mode="after")
    def _knows_the_choices(self) -> "AnnotateSpec":
        own = any(
            isinstance(prompt, PromptSpec) and prompt.choices_column for prompt in self.prompts
        )
        if self.only_new and own:
            raise ValueError(
                "only_new cannot tell whether a row's choices_column has changed; leave out one"
            )
        return self
