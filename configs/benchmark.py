"""`Benchmark`: one row of the model card as data: files, prompt, decoding, metric, figures."""

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from paliflow.configs.base import Spec, SpecError
from paliflow.configs.load import read_fields
from paliflow.configs.safety import Scorer
from paliflow.configs.video import ClipSpec, VideoSpec

_FOLDER = Path(__file__).with_name("benchmarks")
Resolution = PositiveInt
"""Pixels of the square input."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Metric = str
"""A name of `configs.examples.MetricName`, which the fields of an evaluation check."""


class Join(Spec):
    """Records of another file, or of another list of the same one, that belong to rows."""

    file: Name
    """Which of the benchmark's `files`."""
    at: str = ""
    """Where in the file the list is, e.g. `annotations`; the whole file if not given."""
    on: str
    """The row's field that says which record belongs to it."""
    key: str
    """The record's field that has the same value. Of several with one value the last counts."""
    all: bool = False
    """Instead, all of them count, and each of their fields is a list."""


class Turned(Spec):
    """A table of images that are to be turned before they are asked about."""

    file: Name
    """Which of the benchmark's `files`; without it no image is turned, which is said."""
    on: str
    """The row's field that says which record is its image's."""
    key: str
    """The record's field that has the same value."""
    degrees: str
    """The record's field that says by how much, counterclockwise: a multiple of 90, or nothing."""


class Rows(Spec):
    """How the records of a file become rows: a JSON list or object, lines of JSON, CSV or TSV.

    Fields are named by their path in the record, e.g. `types.structural`; through a list the path
    goes to all of its items.
    """

    file: Name = "rows"
    """Which of the benchmark's `files` has a record for each row."""
    at: str = ""
    """Where in the file the list of records is, e.g. `data`; the whole file if not given. Of an
    object the keys become each record's field `key`."""
    lines: bool = False
    """Whether the file is of lines of JSON, though its name says JSON."""
    where: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    """Fields, and the values of them that are wanted, or templates of these; other records are no
    rows."""
    join: tuple[Join, ...] = ()
    """What is looked up in other files; a row's own fields win over those of a join."""
    group_by: str | None = None
    """Records with the same value of this field are one row with the answers of all."""
    id: str
    """A template of the row's id, e.g. `{image_id}-{question_id}`; `{row}` is the record's number
    in its file, from 0."""
    key: str | None = None
    """The field whose value, of its own type, is the row's id for the server."""
    answers: str | None = None
    """The field of what is right: a text, or a list of them."""
    index: str | None = None
    """The field that says which of the answers is right, counted from 0."""
    groups: dict[Name, str] = Field(default_factory=dict)
    """Fields whose values divide the rows for tables and figures."""
    cluster: str | None = None
    """The field whose value makes rows dependent beyond a shared image, e.g. the pair of one."""
    keep: tuple[str, ...] = ()
    """Fields that a metric or a submission needs besides."""
    turned: Turned | None = None
    """Which images are turned."""


class Prepared(Spec):
    """The benchmark as TensorFlow Datasets prepares it, by a builder of its own or big_vision's."""

    name: str | tuple[str, ...]
    """Templates of the folder in which its versions are, of several the first that is there: TFDS
    makes the name of the builder's class, big_vision writes some otherwise."""
    splits: dict[str, str] = Field(default_factory=dict)
    """Templates of what splits are called there, where they are called otherwise."""
    split: str = "{split}"
    """The same of all others."""
    image: str = "image"
    """The feature that is the image."""
    names: dict[Name, str] = Field(default_factory=dict)
    """What the prompt's template calls features that have another name there."""
    rows: Rows
    """How its records become rows; features are flat, as `captions/text`."""


class Figure(Spec):
    """One figure: a metric of all rows or some of them, or its mean over groups."""

    name: str = Field(pattern=r"^[a-z0-9_.-]+$")
    metric: Metric
    where: dict[Name, str] = Field(default_factory=dict)
    """The group whose rows count; all if not given."""
    mean_over: Name | None = None
    """The unweighted mean of the figures of this group's values."""
    without: tuple[str, ...] = ()
    """Values of that group that do not count."""
    scale: PositiveFloat = 100.0
    """Published figures are so many times ours."""
    rule: str
    """Which scorer's rule it is, in a few words."""


class Submission(Spec):
    """The file that a benchmark's server takes: one JSON of all answers of a split."""

    splits: tuple[str, ...]
    """Those that the server scores."""
    key: str
    """What a row's id is called."""
    answer: str
    """What its answer is called."""
    integer: bool = False
    """Whether ids are numbers; text if not."""
    by_key: bool = False
    """An object of answers by id; a list of objects if not."""
    choose: bool = False
    """Whether an answer has to be one of the row's choices: the nearest is taken."""
    server: str
    """Where it is sent."""


class Recipe(Spec):
    """The published fine-tuning, in the fields of `FineTuneSpec`."""

    epochs: PositiveFloat | None = None
    batch_size: PositiveInt | None = None
    learning_rate: PositiveFloat | None = None
    weight_decay: float | None = None
    label_smoothing: float | None = None
    dropout: float | None = None
    frozen: tuple[str, ...] | None = None


class Benchmark(Spec):
    """A benchmark, as `configs/benchmarks/<name>.yaml` describes it."""

    title: str
    card: str
    """The row of the model card's table; other figures are not the card's."""
    reader: Name = "records"
    """How its files are read: `rows` says of most how, others have a reader of their own."""
    files: dict[Name, str | tuple[str, ...]]
    """Templates of paths below the data's folder; of several the first that is there."""
    folders: dict[Name, str] = Field(default_factory=dict)
    """Templates of folders in which a reader finds a file for each row."""
    rows: Rows | None = None
    prepared: Prepared | None = None
    """Where TensorFlow Datasets has prepared it, which is read if the official files lack."""
    images: str | tuple[str, ...] = ""
    """Templates of the paths of a row's image, or of its images; none where the reader finds them
    inside of its files."""
    splits: dict[str, dict[Name, str]]
    """By name, what templates call by a name of their own in that split."""
    split: str
    """The split that is evaluated if none is asked for."""
    train: tuple[str, ...] = ()
    """The splits of the published fine-tuning."""
    parts: dict[Name, tuple[str, ...]] = Field(default_factory=dict, max_length=1)
    """A name in templates and all its values: each has files of its own, and is a group."""
    unanswered: tuple[str, ...] = ()
    """Splits whose answers a server has."""
    scorer: Scorer | None = None
    """What scores the answers by themselves, where none is right or wrong."""
    prefix: str
    """A template of what is asked."""
    joined: str = ", "
    """What stands between the items of a list in a template."""
    lower: bool = False
    """Whether answers are learnt in lower case."""
    text_length: PositiveInt
    """Tokens of prefix and suffix in training, and of an answer at most."""
    video: VideoSpec | None = None
    """How videos are sampled, each as one clip."""
    beams: PositiveInt = 1
    """Live hypotheses of the beam search that answers; 1 is greedy."""
    resolutions: tuple[Resolution, ...]
    figures: Annotated[tuple[Figure, ...], Field(min_length=1)]
    groups: dict[Metric, tuple[Name, ...]] = Field(default_factory=dict)
    """Metrics, and by which groups their tables are."""
    published: dict[str, dict[str, float]]
    """Figures by the model's variant and resolution, e.g. `pt-224`."""
    published_split: str
    """What they are of, where a figure here may be of another split."""
    published_rows: PositiveInt | None = None
    """How many rows that has."""
    submission: Submission | None = None
    """What its server takes, if it has one."""
    reuses: str | None = None
    """The benchmark whose fine-tuned model is asked."""
    recipe: Recipe | None = None
    recipe_at: dict[Resolution, Recipe] = Field(default_factory=dict)
    """What of the recipe is otherwise at a resolution."""
    licence: str
    data: str
    """Where the data is to be had."""
    differs: tuple[str, ...] = ()
    """What is known to differ from how the published figures were made."""

    @model_validator(mode="after")
    def _is_coherent(self) -> "Benchmark":
        known = set(self.splits)
        if self.submission and (unknown := set(self.submission.splits) - known):
            raise ValueError(f"submission.splits: no such split as {', '.join(sorted(unknown))}")
        for field in ("train", "unanswered"):
            if unknown := set(getattr(self, field)) - known:
                raise ValueError(f"{field}: no such split as {', '.join(sorted(unknown))}")
        if not known.issuperset(self.split.split("+")):
            raise ValueError(f"split={self.split!r}: no such split")
        names = [figure.name for figure in self.figures]
        if len(set(names)) < len(names):
            raise ValueError("figures: two have one name")
        for variant, figures in self.published.items():
            if unknown := set(figures) - set(names):
                raise ValueError(f"published.{variant}: no figure {', '.join(sorted(unknown))}")
        if (self.reader == "records") != (self.rows is not None):
            raise ValueError("rows: the reader `records` needs them, and no other has them")
        return self

    @property
    def sampling(self) -> VideoSpec | None:
        """What becomes of a row's images, if they are several or a video."""
        if isinstance(self.images, tuple):
            return VideoSpec(frame_rate=1, clip=ClipSpec(frames=len(self.images)))
        return self.video

    def training_fields(self, resolution: int | None) -> dict[str, Any]:
        """The published recipe in the fields of `FineTuneSpec`, and `epochs`.

        Args:
            resolution: pixels of the square input; the recipe that holds for most if not given.
        """
        fields: dict[str, Any] = {
            "max_tokens": self.text_length + 1,
            "max_new_tokens": self.text_length,
            "too_long": "truncate",
            "exif": "ignore",
        }
        if isinstance(self.images, tuple):
            fields["images_per_example"] = len(self.images)
        elif self.video:
            fields["video"] = self.video
        for recipe in (self.recipe, self.recipe_at.get(resolution or 0)):
            if recipe:
                fields |= recipe.model_dump(exclude_none=True)
        return fields

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of its figures, each once."""
        return tuple(dict.fromkeys(figure.metric for figure in self.figures))


def benchmark_names() -> tuple[str, ...]:
    """The names of all benchmarks, in the alphabet's order."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


@cache
def benchmark(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
        SpecError: there is none.
    """
    if name not in benchmark_names():
        raise SpecError(f"no benchmark {name!r} is known; there are {', '.join(benchmark_names())}")
    try:
        return Benchmark.parse(read_fields(_FOLDER / f"{name}.yaml"))
    except SpecError as error:
        raise SpecError(f"benchmarks/{name}.yaml: {error}") from None


def evaluation_defaults(
    benchmarks: Mapping[str, Benchmark], given: Collection[str]
) -> dict[str, Any]:
    """The fields of an evaluation that its benchmarks decide where it does not say otherwise.

    Args:
        benchmarks: by the names of their sets.
        given: the fields that the evaluation says.

    Raises:
        SpecError: two want the same field otherwise.
    """
    fields: dict[str, Any] = {}
    for name, own in benchmarks.items():
        wanted = {
            "max_new_tokens": own.text_length,
            "beams": own.beams,
            "exif": "ignore",
            "video": own.sampling,
            **({"scorer": own.scorer} if own.scorer else {}),
        }
        for field, value in wanted.items():
            if field not in given and fields.setdefault(field, value) != value:
                raise SpecError(
                    f"sets.{name}: the benchmark is asked with {field}={value}, another of the run "
                    f"with {fields[field]}; give {field}, or evaluate them in runs of their own"
                )
    return fields
