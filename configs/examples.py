"""Labelled examples: where images, prefixes and suffixes come from, and how sets are scored."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from paliflow.configs.base import Spec, redacted
from paliflow.configs.benchmark import benchmark, benchmark_names
from paliflow.configs.prompts import Prompt

MetricName = Literal[
    "exact_match",
    "vqa_accuracy",
    "simple_vqa_accuracy",
    "anls",
    "character_accuracy",
    "character_error_rate",
    "relaxed_match",
    "count_match",
    "bv_exact",
    "paired_exact",
    "bv_exact_lower",
    "bv_anls",
    "anls_rrc",
    "bv_count",
    "pope",
    "pope_official",
    "science_qa",
    "cider",
    "bleu_1",
    "bleu_2",
    "bleu_3",
    "bleu_4",
    "rouge_l",
    "detection_f1",
    "detection_precision",
    "detection_recall",
    "detection_ap",
    "coco_ap",
    "coco_ap_50",
    "mean_iou",
    "region_mask_iou",
    "region_box_50",
    "region_box_75",
    "without_toxicity",
    "without_identity_attack",
    "without_insult",
    "without_threat",
    "without_profanity",
    "perplexity",
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
    .json of captions or of detections; or Paliflow's own annotations: an output, or one run. Of a
    `benchmark`, the folder of its official files."""
    benchmark: str | None = None
    """A benchmark that `paliflow benchmarks list` names: its files are in the folder `path`, or in
    one of the benchmark's name there, and it says what is asked and what is right."""
    split: str | None = None
    """Of a benchmark, which split, or several, e.g. `train+val`; the one that is evaluated if not
    given."""
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

    @property
    def unanswered_splits(self) -> tuple[str, ...]:
        """Those of a benchmark's splits whose files do not say what is right."""
        if not self.benchmark:
            return ()
        known = benchmark(self.benchmark)
        splits = (self.split or known.split).split("+")
        return tuple(each for each in splits if known.scorer or each in known.unanswered)

    @field_validator("path", "images")
    @classmethod
    def _without_credentials(cls, value: str | None) -> str | None:
        if value and redacted(value) != value:
            raise ValueError("a user, password or signature in it would be written to the output")
        return value

    @field_validator("benchmark")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is not None:
            benchmark(value)
        return value

    @model_validator(mode="after")
    def _is_all_of_the_benchmark(self) -> "ExampleSource":
        if not self.benchmark:
            if self.split is not None:
                raise ValueError(
                    f"split={self.split!r}: of which benchmark? give it, one of "
                    f"{', '.join(benchmark_names())}"
                )
            return self
        known = benchmark(self.benchmark)
        if unknown := {*(self.split or known.split).split("+")} - {*known.splits}:
            raise ValueError(
                f"split={self.split!r}: {self.benchmark} has no {', '.join(sorted(unknown))}; it "
                f"has {', '.join(known.splits)}"
            )
        return self


class EvaluationSet(ExampleSource):
    """Held-out examples and the metrics that judge the answers to them."""

    metrics: Annotated[tuple[MetricName, ...], Field(min_length=1)] | None = None
    """Those of the task that the prefixes name, if not given: CIDEr of `caption`, VQA accuracy of
    `answer`, exact match and ANLS of `ocr`, F1 at IoU 0.5 of `detect`, mean IoU of `segment`. A
    benchmark has its own."""
    max_examples: PositiveInt | None = None
    """So many of its examples, spread evenly over the file; all if not given."""
    groups: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Columns of a table whose values divide the examples, e.g. `[gender, age]`: with the run's
    `scorer`, its table of toxicity is by them."""

    @model_validator(mode="after")
    def _is_judged_once(self) -> "EvaluationSet":
        if self.benchmark and self.metrics:
            raise ValueError(f"metrics: benchmark {self.benchmark!r} has its own; leave them out")
        if self.benchmark and self.groups:
            raise ValueError(f"groups: benchmark {self.benchmark!r} has its own; leave them out")
        return self
