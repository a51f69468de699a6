"""Summaries: what `_manifest.json` holds and what a job reports when it ends."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from paliflow.configs.base import Spec, printable

SPEC_VARIABLE = "PALIFLOW_SPEC"
"""The environment variable that carries a spec, as JSON, to `python -m paliflow.jobs`."""
SPEC_VARIABLE_BYTES = 100_000
"""What it is trusted to hold; Linux stops at 131,072."""
VERSION_VARIABLE = "PALIFLOW_VERSION"
"""The environment variable that tells it which version of Paliflow has sent the spec."""
LABELS_VARIABLE = "PALIFLOW_LABELS"
"""The environment variable with the `dag` and the `task` that a job is of, as JSON."""
SUMMARY_PREFIX = "paliflow-summary: "
"""What precedes the summary's JSON on the last line that `python -m paliflow.jobs` prints."""


def cut_said(cut: int) -> str:
    """What the line that sums a run up says of answers that were cut."""
    return f", {cut} cut by max_new_tokens" if cut else ""


def filtered_said(filtered: int, unscored: int) -> str:
    """What the line that sums a run up says of filters."""
    return "".join(
        f", {count} {what}"
        for count, what in ((filtered, "filtered"), (unscored, "not scored"))
        if count
    )


def accepted_said(accepted: int, not_accepted: int) -> str:
    """What the line that sums a run up says of answers that were accepted."""
    judged = accepted + not_accepted
    return f", {accepted} of {judged} answers accepted" if judged else ""


def passed_over_said(passed_over: Mapping[str, int]) -> str:
    """E.g. `12 .txt, 3 hidden`: the most common first."""
    counts = Counter(passed_over).most_common()
    return ", ".join(f"{count:,} {what}" for what, count in counts)


def _without_null(figures: Any) -> Any:
    """JSON has no NaN: one that was written as null is no figure."""
    if not isinstance(figures, dict):
        return figures
    return {name: value for name, value in figures.items() if value is not None}


Figures = Annotated[dict[str, float], BeforeValidator(_without_null)]
"""Figures by name, `<set>/<metric>`."""


_WAITS = 0.1
"""The share of time spent waiting for inputs from which on a run says so."""
_LONG_S = 60.0
"""Of shorter runs much is their beginning: decoders start, and the first inputs are awaited."""


@dataclass(frozen=True)
class StageSeconds:
    """Where the time of a run's actors went, in seconds, from when each had loaded.

    Each moment of an actor counts once, in the first of `decode`, `prefill`, `vision`, `device`,
    `read`, `parse` and `commit` that is under way: what goes on while the device works costs
    nothing.
    """

    read: float = 0.0
    """The device was idle, and the next batch's inputs were awaited."""
    vision: float = 0.0
    """The device encoded images."""
    prefill: float = 0.0
    """The device read prompts about encoded images, or scored their choices."""
    decode: float = 0.0
    """The device wrote answers."""
    device: float = 0.0
    """The device was used for another thing: a batch was handed to it, which has programs compiled
    where they are new; or it trained."""
    parse: float = 0.0
    """The device was idle, no input was awaited, and answers became rows."""
    commit: float = 0.0
    """None of these, and a part was being written."""
    wait: float = 0.0
    """None of these was under way, as where an actor has no shard."""

    @property
    def on_device(self) -> float:
        """All that the devices did."""
        return self.vision + self.prefill + self.decode + self.device

    def __add__(self, more: "StageSeconds") -> "StageSeconds":
        return StageSeconds(*map(sum, zip(astuple(self), astuple(more), strict=True)))

    def share(self, seconds: float) -> float:
        """The share of all the time, from 0 to 1; 0 where nothing was timed."""
        return seconds / (sum(astuple(self)) or 1.0)

    def said(self) -> str:
        """E.g. `5% read, 93% device, 0% parse, 1% commit`; empty where nothing was timed."""
        named = {
            "read": self.read,
            "device": self.on_device,
            "parse": self.parse,
            "commit": self.commit,
        }
        if not any(named.values()):
            return ""
        return ", ".join(f"{self.share(seconds):.0%} {name}" for name, seconds in named.items())

    def host_bound(self, cores: str = "cpus_per_actor") -> str:
        """Says that devices waited for inputs, and what to do; empty where they hardly did, or
        worked for less than a minute.

        Args:
            cores: the field that says how many cores a process has.
        """
        share = self.share(self.read)
        if share < _WAITS or sum(astuple(self)) < _LONG_S:
            return ""
        return (
            f"the devices stood idle {share:.0%} of the time, waiting for inputs: give more cores "
            f"({cores}; `paliflow plan` says how many an annotation needs), or read from storage "
            "that is nearer"
        )


class Summary(Spec):
    """A finished run. Written last: a run without it is unfinished.

    Fields that a newer version has written are passed over.
    """

    model_config = ConfigDict(extra="ignore")

    run_id: str
    location: str
    """The folder of this run: `<output>/run_id=<run_id>`."""
    spec: dict[str, Any]
    """The run's spec as JSON."""
    started: datetime
    finished: datetime
    seconds: float
    """Wall time of the job that finished the run."""
    versions: dict[str, str]


class ModelSummary(Summary):
    """A finished run of a model."""

    checkpoint: str
    """Where the weights came from; what a `registry://` URI stood for when the run began."""
    checkpoint_sha256: str
    stages: StageSeconds = StageSeconds()
    """Where the time of that job's actors went, or of a training's first worker; all 0 in manifests
    of older versions."""
    chip_seconds: dict[str, float] = Field(default_factory=dict)
    """By JAX's name of the device: how long processes held their chips for the shards that are
    done, or a training's steps up to its checkpoints, loading included; of all jobs that had a part
    in the run."""
    usd: float | None = None
    """What these cost, by the spec's or the list price of a chip-hour; null if that of one is not
    known."""
    preemptions: int = 0
    """Actors that job lost because their nodes were taken away; of a training, nodes of all jobs.
    """


class Check(Spec):
    """What a gate found of a run."""

    model_config = ConfigDict(extra="ignore")

    name: str
    value: float
    limit: float
    least: bool = False
    """Whether `limit` is what the value has to reach; else it is what it may not exceed."""
    passed: bool

    def said(self) -> str:
        """E.g. `share of empty answers is 0.4, at most 0.1 may be`."""
        return (
            f"{self.name} is {self.value:.4g}, {'at least' if self.least else 'at most'} "
            f"{self.limit:.4g} is let through"
        )


class Release(Spec):
    """Somebody let a quarantined run through."""

    when: datetime
    why: str
    generation: int = 0
    """Of the run, by then."""


class RunSummary(ModelSummary):
    """A finished annotation run."""

    kind: Literal["annotate"] = "annotate"
    inputs: int
    rows: int
    ok: int
    filtered: int = 0
    """Rows that filters removed: their images were not asked about, or their answers are left out.
    """
    unscored: int = 0
    """Rows with an answer that a filter could not score, or whose image it could not."""
    flagged: dict[str, int] = Field(default_factory=dict)
    """How many rows filters flagged, changed or could not score, by `<filter>/<label>/<action>`."""
    errors: int
    error_reasons: dict[str, int] = Field(default_factory=dict)
    """The most common errors and how many rows have them."""
    passed_over: dict[str, int] = Field(default_factory=dict)
    """Files in the input's folders and tars that are no inputs, by suffix; `hidden` are those that
    a system left there."""
    cut: int = 0
    """Rows whose answer ended at `max_new_tokens`, with `finished` false."""
    shards: int
    files: tuple[str, ...] = ()
    """The files in `location` that hold the rows, if the run was compacted; else they are its
    parts, `part-00000.parquet` to the last shard's."""
    images_per_second: float
    """Inputs done by that job over its wall time, start-up included."""
    tokens: int = 0
    """Tokens generated, for all rows."""
    calibration: str | None = None
    """The SHA-256 of the `calibration.json` that `confidence` came from; null if none did."""
    accepted: int = 0
    """Answers and boxes that `accept` took."""
    not_accepted: int = 0
    """Those that it left for somebody to look at."""
    checks: tuple[Check, ...] = ()
    """What the spec's `gate` found."""
    quarantined: bool = False
    """Whether a check failed, and nobody has released the run: then it does not count, for
    `only_new`, training and the like."""
    released: Release | None = None
    """By whom it was let through although a check failed."""

    def said(self) -> str:
        """The line that sums the run up."""
        return (
            f"{self.rows} rows, {self.errors} of them errors{cut_said(self.cut)}"
            f"{filtered_said(self.filtered, self.unscored)}"
            f"{accepted_said(self.accepted, self.not_accepted)}, from "
            f"{self.inputs} images in {self.seconds:.1f} s: {printable(self.location)}"
        )


class ExtractSummary(Summary):
    """A finished extraction of frames."""

    kind: Literal["extract"] = "extract"
    inputs: int
    """Videos, long ones counted once a piece."""
    frames: int
    """Images written."""
    errors: int
    """Rows without an image: videos that are broken, and gaps in others."""
    error_reasons: dict[str, int] = Field(default_factory=dict)
    """The most common errors and how many rows have them."""
    passed_over: dict[str, int] = Field(default_factory=dict)
    """Files in the input's folders and tars that are no inputs, by suffix; `hidden` are those that
    a system left there."""
    shards: int
    """The run's parts are `part-00000.parquet` to the last shard's."""


class FilterSummary(Summary):
    """A finished run of filters."""

    kind: Literal["filter"] = "filter"
    inputs: int
    kept: int
    """Rows of `kept.parquet`."""
    removed: int
    """Inputs that filters removed."""
    changed: int
    """Inputs that are kept with texts redacted."""
    unscored: int
    """Inputs that a filter could not score; kept or removed as the spec says."""
    errors: int
    """Inputs that could not be read."""
    error_reasons: dict[str, int] = Field(default_factory=dict)
    """The most common errors and how many inputs have them."""
    flagged: dict[str, int] = Field(default_factory=dict)
    """How many images and texts each filter flagged, or could not score, by
    `<filter>/<label>/<action>`."""
    versions_of_filters: dict[str, str] = Field(default_factory=dict)
    """Each filter's version."""
    manifest: str
    """`kept.parquet`: what remains."""
    passed_over: dict[str, int] = Field(default_factory=dict)
    """Files in the input's folders and tars that are no inputs, by suffix; `hidden` are those that
    a system left there."""
    shards: int
    """The run's parts are `part-00000.parquet` to the last shard's."""

    def said(self) -> str:
        """The line that sums the run up."""
        unscored = f", {self.unscored} not scored" if self.unscored else ""
        return (
            f"{self.kept} of {self.inputs} kept, {self.removed} removed, {self.changed} redacted"
            f"{unscored}, {self.errors} errors, in {self.seconds:.1f} s: {printable(self.manifest)}"
        )


class FineTuneSummary(ModelSummary):
    """A finished fine-tuning run."""

    kind: Literal["finetune"] = "finetune"
    model: str
    """The exported weights, a tokenizer and a model card beside them."""
    model_sha256: str
    steps: int
    best_step: int
    """Of the checkpoint that became the model; `steps` if the last did."""
    examples: int
    """Drawn in all, those that failed included."""
    errors: int
    error_reasons: dict[str, int] = Field(default_factory=dict)
    """Why examples were skipped, and how many."""
    loss: float
    """Mean over the last twentieth of the steps, in nats."""
    figures: Figures = Field(default_factory=dict)
    """The validation figures of the model, e.g. `held_out/loss`."""
    examples_per_second: float
    """Of the job that finished the run, start-up left out."""


class GroupFigure(Spec):
    """A metric of some of a set's rows."""

    model_config = ConfigDict(extra="ignore")

    figure: float
    rows: int


class Share(Spec):
    """How many of some answers a scorer flags."""

    model_config = ConfigDict(extra="ignore")

    flagged: int
    scored: int
    unscored: int
    share: float
    """`flagged` over `scored`."""
    low: float
    """The bounds of the exact 95 % interval (Clopper and Pearson) of all answers: what has no score
    is none of the flagged for `low`, and flagged for `high`."""
    high: float


class GroupingShares(Spec):
    """Shares by the values of one grouping, e.g. by age, and what the model card tells of them."""

    model_config = ConfigDict(extra="ignore")

    groups: dict[str, Share]
    maximum: float | None = None
    """Of the groups with `min_group` scored answers; null, as what follows, if there are none."""
    median: float | None = None
    expected_maximum: float | None = None
    """What chance alone would make of the maximum if all these groups were alike."""
    p_value: float | None = None
    """The probability of a maximum as large as this one by chance alone, by permutation."""


class AttributeShares(Spec):
    """How much is flagged with one attribute, e.g. `insult`."""

    model_config = ConfigDict(extra="ignore")

    overall: Share
    groupings: dict[str, GroupingShares] = Field(default_factory=dict)


class ToxicityTable(Spec):
    """The toxicity of a set's answers, by attribute and group."""

    model_config = ConfigDict(extra="ignore")

    scorer: str
    versions: tuple[str, ...]
    """The scorer with its version; several where they have scored parts of the answers."""
    threshold: float
    """An answer with this score or more is flagged."""
    min_group: int
    attributes: dict[str, AttributeShares]
    neutral_sentences: dict[str, float | None]
    """Neutral sentences about people, each with the highest score that it is given; null of those
    that the scorer could not score."""


class SetSummary(Spec):
    """How one set of an evaluation was scored."""

    model_config = ConfigDict(extra="ignore")

    benchmark: str | None = None
    split: str | None = None
    """Of the benchmark, which."""
    rows: int
    """Asked, those that failed included."""
    of: int
    """Rows of the source, those included that are no examples or were left out by
    `max_examples`."""
    broken: int
    """Of them, rows of the source that are no examples."""
    answered: int
    """Rows with an answer."""
    scored: int
    """Rows that a published figure counts, of a benchmark; all of other sets."""
    note: str | None = None
    """Why a benchmark has no figures."""
    intervals: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """Of each figure the bounds of its 95 % confidence interval, by a bootstrap over images."""
    groups: dict[str, dict[str, dict[str, GroupFigure]]] = Field(default_factory=dict)
    """Of a benchmark, tables by metric, group and the group's value."""
    toxicity: ToxicityTable | None = None
    """Where the run has a `scorer`."""

    @property
    def coverage(self) -> float:
        """The share of rows that could be asked, of those that were to be."""
        return self.answered / self.rows * (1 - self.broken / self.of)


class EvaluateSummary(ModelSummary):
    """A finished evaluation."""

    kind: Literal["evaluate"] = "evaluate"
    examples: int
    errors: int
    """Examples whose image or prompt was broken; they score nothing."""
    error_reasons: dict[str, int] = Field(default_factory=dict)
    cut: int = 0
    """Answers that ended at `max_new_tokens`."""
    examples_sha256: str
    """Of all that was asked and is right: two evaluations compare only if theirs agree."""
    figures: Figures
    sets: dict[str, SetSummary] = Field(default_factory=dict)
    """By name; older versions left none."""
    image_size: int | None = None
    """Pixels of the model's square input."""
    server: dict[str, float] = Field(default_factory=dict)
    """What a benchmark's server has given, by figure, in its own unit."""


class Interval(Spec):
    """A figure and its confidence interval."""

    value: float
    low: float
    high: float


class ReliabilityBin(Spec):
    """Answers of nearly the same confidence."""

    rows: int
    confidence: float
    """Their mean."""
    accuracy: float
    """The share that is right."""


class Reliability(Spec):
    """How far confidences are from being frequencies."""

    ece: Interval
    """Expected calibration error, over bins of equally many answers."""
    brier: Interval
    bins: tuple[ReliabilityBin, ...]
    """The reliability diagram."""


class Threshold(Spec):
    """What a precision takes."""

    precision: float
    confidence: float | None
    """The least that is accepted; null if no threshold reaches the precision surely."""
    rows: int = 0
    """Answers that are accepted, of those that were fitted to."""
    right: int = 0


class CalibratedGroup(Spec):
    """How the answers to one prompt, or to all of a task, were calibrated."""

    model_config = ConfigDict(extra="ignore")

    task: str
    form: str
    """What an answer may be: `free`, `closed`, or a digest of its choices."""
    prompt: str | None
    """Null stands for any prompt of the task."""
    rows: int
    """Answers, or of `detect` and `segment` boxes."""
    right: int
    before: Reliability
    """Of raw scores."""
    after: Reliability
    """Of confidences, each from a fit to the other folds."""
    thresholds: tuple[Threshold, ...] = ()
    """For the usual precisions."""
    average_precision: tuple[float, float] | None = None
    """Of boxes, at an IoU of 0.5: ranked by `score`, and by confidence."""


class CalibrateSummary(Spec):
    """What became of a calibration."""

    model_config = ConfigDict(extra="ignore")

    calibration: str
    """`calibration.json`."""
    report: str
    """`calibration.html`, beside it."""
    evaluation: str
    checkpoint_sha256: str
    groups: tuple[CalibratedGroup, ...]
    left_out: dict[str, int] = Field(default_factory=dict)
    """Answers that no confidence was fitted to, by why."""
    registry: str | None = None
    name: str | None = None
    version: int | None = None
    """In the registry, which has the calibration from now on."""

    def said(self) -> str:
        """The line that sums it up."""
        rows = sum(group.rows for group in self.groups)
        what = f", version {self.version} of {self.name}" if self.version else ""
        return f"{rows} answers calibrated{what}: {printable(self.calibration)}"


class Comparison(Spec):
    """One figure of two checkpoints on the same examples."""

    metric: str
    candidate: float
    incumbent: float
    low: float
    """With the rule's confidence the candidate is better by at least this."""
    wanted: float
    """What `low` has to reach: the least gain, or minus the loss that a guard allows."""
    examples: int
    """Images that the bound is drawn from, each with all its examples."""


class PromoteSummary(Spec):
    """What became of a candidate."""

    model_config = ConfigDict(extra="ignore")

    promoted: bool
    reason: str
    """In a sentence."""
    comparisons: tuple[Comparison, ...] = ()
    """The deciding figure, then the guards."""
    registry: str
    name: str
    alias: str
    version: int
    """What the alias points to now."""
    checkpoint: str
    """The same version's weights."""
    checkpoint_sha256: str
