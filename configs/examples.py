"""Labelled examples: where images, prefixes and suffixes come from, and how sets are scored."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from paliflow.configs.base import Spec, redacted
from paliflow.configs.prompts import Prompt

MetricName = Literal[
    "exact_match",
    "vqa_accuracy",
    "simple_vqa_accuracy",
    "anls",
    "relaxed_match",
    "count_match",
    "cider",
    "rouge_l",
    "detection_f1",
    "mean_iou",
]
"""The keys of `metrics.METRICS`, in its order; specs are read where NumPy is not."""

SetName = Annotated[str, Field(pattern=r"^[^/]+$")]
"""Of held-out examples; its figures are `<name>/<metric>`."""


class ExampleSource(Spec):
    """Examples of one file or folder: images, what is asked about them, what to answer.

    Columns may be nested in the JSON of an annotation's `metadata`.
    """

    path: str = Field(min_length=1)
    """A .jsonl, .csv, .tsv or .parquet file with columns of images, prefixes and suffixes; COCO's
    .json of captions or of detections; or Paliflow's own annotations: an output, or one run."""
    weight: PositiveFloat = 1.0
    """How often its examples are drawn, beside the other sources of a mixture."""
    image_column: str = "image"
    """The column of paths, or of lists of paths where an example has several images."""
    prefix_column: str = "prefix"
    """The column of what is asked."""
    suffix_column: str = "suffix"
    """The column of what is to be answered; a list of answers where several are right."""
    prefix: Prompt | None = None
    """What is asked where the file says nothing else, e.g. `caption en`."""
    images: str | None = None
    """The folder that relative paths of images are relative to; the file's own if not given."""
    empty: Literal["keep", "drop"] | None = None
    """What becomes of an image about which nothing is to be answered: an empty suffix, or in COCO's
    .json no annotation. It is kept, the end token alone being right, or dropped and counted. If not
    given, empty suffixes of `detect` and `segment` are kept, those of other tasks are errors, and
    COCO's images without annotations are dropped."""
    prompts: tuple[str, ...] = ()
    """Of annotations, the prompts whose rows are examples; all if none are given."""
    min_score: float | None = Field(default=None, ge=0.0, le=1.0)
    """Of annotations, the least geometric mean of an answer's token probabilities."""
    reviewed_column: str | None = None
    """Of annotations, a column that is true where somebody has approved of the row."""

    @field_validator("path", "images")
    @classmethod
    def _without_credentials(cls, value: str | None) -> str | None:
        if value and redacted(value) != value:
            raise ValueError("a user, password or signature in it would be written to the output")
        return value


class EvaluationSet(ExampleSource):
    """Held-out examples and the metrics that judge the answers to them."""

    metrics: Annotated[tuple[MetricName, ...], Field(min_length=1)] | None = None
    """Those of the task that the prefixes name, if not given: CIDEr of `caption`, VQA accuracy of
    `answer`, exact match and ANLS of `ocr`, F1 at IoU 0.5 of `detect`, mean IoU of `segment`."""
    max_examples: PositiveInt | None = None
    """So many of its examples, spread evenly over the file; all if not given."""
