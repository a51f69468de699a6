"""`FineTuneSpec`: which examples, which recipe, which checkpoint to start from."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from paliflow.configs.base import Spec, items_of
from paliflow.configs.benchmark import benchmark, benchmark_names
from paliflow.configs.examples import EvaluationSet, ExampleSource, SetName
from paliflow.configs.placement import check_workers, slice_of
from paliflow.configs.resources import Accelerators
from paliflow.configs.run import BatchSize, ModelSpec, Tokens
from paliflow.configs.tpus import Slice


class Duration(Spec):
    """A length of training: give one of the three."""

    steps: PositiveInt | None = None
    """Optimizer steps."""
    epochs: PositiveFloat | None = None
    """Passes over as many examples as all sources hold together."""
    percent: float | None = Field(default=None, gt=0.0, le=100.0)
    """Of the whole training."""

    @model_validator(mode="after")
    def _one_of_three(self) -> "Duration":
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(f"give one of steps, epochs and percent, not {given or 'none'}")
        return self


class Lora(Spec):
    """Low-rank adapters (arXiv:2106.09685): all else is frozen, and they merge into the weights."""

    rank: PositiveInt = 16
    matrices: str = r"llm/layers/(attn/.*|mlp/.*)"
    """The pattern of parameter paths that get an adapter."""


class FineTuneSpec(ModelSpec):
    """One fine-tuning run: examples and a recipe turn a checkpoint into another.

    The defaults are those of PaliGemma's published transfers (arXiv:2407.07726, appendix J).
    """

    EXECUTION_FIELDS: ClassVar[frozenset[str]] = ModelSpec.EXECUTION_FIELDS | {
        "workers", "min_workers", "cpus_per_worker", "accelerators_per_worker", "topology",
        "accelerator_type", "save_every", "keep", "max_failures", "start_timeout",
    }  # fmt: skip

    kind: Literal["finetune"] = "finetune"
    """What the run is."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of matrix products, and of weights that are not trained."""
    benchmark: str | None = None
    """A public benchmark that `paliflow benchmarks list` names: its training splits are learnt from
    by its published recipe, where the spec does not say otherwise."""
    data: str | None = None
    """The folder of the benchmark's official files."""
    train: tuple[ExampleSource, ...] = ()
    """What is learnt from: one source, or a mixture of weighted ones."""
    validation: dict[SetName, EvaluationSet] = Field(default_factory=dict)
    """Held-out sets by name: their loss (`<name>/loss`) and metrics (`<name>/<metric>`) are taken
    while training goes on."""
    exclude_near: tuple[ExampleSource, ...] = ()
    """Examples of evaluations: whatever has an image that is nearly the same as one of theirs is
    not learnt from, and counted. Each is a source like those of `train`, the path of one, the name
    of a benchmark in `data`, or the folder of a finished filter run over their images (with
    `exif: ignore` beside a benchmark)."""
    duration: Duration = Duration(epochs=5)
    """How long to train."""
    warmup: Duration = Duration(percent=5)
    """In which the learning rate rises to its peak, before it falls to zero along a cosine."""
    learning_rate: PositiveFloat = 1e-5
    """At its peak."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """A step at the schedule's peak takes this share off; the learning rate does not scale it."""
    decayed: str = r".*/kernel"
    """The pattern of parameter paths that decay: big_vision's, which is the vision tower alone."""
    clip_norm: PositiveFloat = 1.0
    """The gradient's global norm at most."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """The share of each target's probability that goes to all other tokens."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Of the language model's attention and feed-forward outputs."""
    frozen: tuple[str, ...] = ()
    """Patterns of parameter paths that stay as they are, e.g. `img/.*`."""
    lora: Lora | None = None
    """Train low-rank adapters instead of the weights."""
    batch_size: BatchSize = 32
    """Examples an optimizer step, over all workers."""
    accumulate: PositiveInt = 1
    """Parts that a batch is cut into, one after another: less memory, the same step."""
    remat: bool | None = None
    """Recompute each layer in the backward pass instead of keeping its activations: less memory
    for a third more time. If not given, on accelerators and not on CPUs, where it costs more."""
    max_tokens: Tokens = 128
    """Tokens of prefix and suffix together; one more than big_vision's text length."""
    too_long: Literal["refuse", "truncate"] = "refuse"
    """What becomes of a longer example: an error, or it is cut on the right as in big_vision, where
    it teaches no end."""
    images_per_example: PositiveInt = 1
    """Images of every example, concatenated in the order of its list; with `video`, its paths are
    of videos, each one clip."""
    image_size: PositiveInt | None = None
    """Pixels of the square input, if not the checkpoint's."""
    max_new_tokens: Tokens = 64
    """Tokens generated at most where a validation metric needs answers."""
    validate_every: Duration = Duration(percent=20)
    """Between two looks at the validation sets."""
    save_every: Duration = Duration(percent=10)
    """Between two checkpoints: what a killed run repeats at most."""
    keep: PositiveInt = 2
    """Newest checkpoints to keep."""
    best: str | None = None
    """The validation figure whose best checkpoint becomes the model, e.g. `held_out/exact_match`
    or `held_out/loss`; the last step's if not given."""
    export: Literal["npz", "huggingface"] = "npz"
    """What the model is written as: big_vision's .npz, or a Hugging Face folder."""
    export_dtype: Literal["bfloat16", "float32"] | None = None
    """Of the exported weights; `dtype` if not given. To bfloat16 what was trained is rounded
    stochastically, by `seed`, so that small updates are kept on average."""
    workers: PositiveInt = 1
    """Processes, one a host."""
    min_workers: PositiveInt | None = None
    """Train with so few of them, too, while the cluster has room for no more: a training that loses
    a node goes on without it, and grows again. Without this it waits for all."""
    cpus_per_worker: PositiveFloat = 1.0
    """Cores of one worker."""
    accelerators_per_worker: Accelerators = Field(default_factory=dict)
    """Ray resources of one worker, e.g. `{"TPU": 4}` or `{"GPU": 1}`. A worker that finds other
    devices than these refuses to train."""
    start_timeout: PositiveFloat = 1800.0
    """Seconds in which the cluster has to have room for all workers; then the job gives up, and the
    next try may find it."""
    topology: str | None = None
    """Of the TPU slices that the workers are the hosts of, in chips, e.g. `4x4`; needed where
    several workers have TPUs."""
    accelerator_type: str | None = None
    """The generation of these TPUs, e.g. `v6e`: v4, v5e, v5p, v6e or v7x."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """Lost workers after which the job gives up; preempted ones do not count, unless their node is
    gone before the time that it was given."""

    @property
    def exported_dtype(self) -> Literal["bfloat16", "float32"]:
        """What the model is written in."""
        return self.export_dtype or self.dtype

    @property
    def frames_per_example(self) -> int:
        """Images that the model is shown of each example."""
        return self.video.clip.frames if self.video and self.video.clip else self.images_per_example

    @property
    def possible_workers(self) -> range:
        """How many workers there may be at a time: whole slices, if one is named."""
        slice_ = self.slice
        fewest = self.min_workers or self.workers
        return range(fewest, self.workers + 1, slice_.hosts if slice_ else 1)

    @property
    def slice(self) -> Slice | None:
        """The slice whose hosts the workers are, if one is named."""
        return slice_of(self.accelerator_type, self.topology)

    @model_validator(mode="before")
    @classmethod
    def _near_by_name(cls, data: Any) -> Any:
        """A source of `exclude_near` may be given as its path, or as a benchmark's name."""
        given = data.get("exclude_near") if isinstance(data, dict) else None
        if not isinstance(given, str | list | tuple):
            return data
        named: list[Any] = []
        for each in items_of(given) if isinstance(given, str) else given:
            if each in benchmark_names():
                if not data.get("data"):
                    raise ValueError(f"exclude_near: {each}: give data, the folder of its files")
                named.append({"benchmark": each, "path": data["data"]})
            else:
                named.append({"path": each} if isinstance(each, str) else each)
        return data | {"exclude_near": named}

    @model_validator(mode="after")
    def _compares_images(self) -> "FineTuneSpec":
        if self.exclude_near and self.video:
            raise ValueError("exclude_near compares images, not videos: leave out one of them")
        return self

    @model_validator(mode="after")
    def _learns_something(self) -> "FineTuneSpec":
        if self.benchmark:
            if not self.data:
                raise ValueError("benchmark: give data, the folder of its files")
            known = benchmark(self.benchmark)
            if not known.train:
                of = f"; its figures are of the model that was fine-tuned on {known.reuses}"
                raise ValueError(
                    f"benchmark={self.benchmark!r}: nothing is published to learn it from"
                    f"{of if known.reuses else ''}"
                )
            splits = "+".join(known.train)
            source = ExampleSource(benchmark=self.benchmark, path=self.data, split=splits)
            wanted = known.training_fields(self.image_size) | {"train": (source,)}
            if epochs := wanted.pop("epochs", None):
                wanted["duration"] = Duration(epochs=epochs)
            for field in wanted.keys() - self.model_fields_set:
                self.__dict__[field] = wanted[field]
        if not self.train:
            raise ValueError("train=[]: give at least one source, or benchmark and data")
        return self

    @model_validator(mode="after")
    def _knows_what_is_right(self) -> "FineTuneSpec":
        for source in (*self.train, *self.validation.values()):
            if lacking := source.unanswered_splits:
                raise ValueError(
                    f"{source.benchmark}: its files do not say what is right to answer in "
                    f"{', '.join(lacking)}: leave it out of train and validation"
                )
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> "FineTuneSpec":
        self.require_whole_clips()
        if self.video and self.images_per_example > 1:
            raise ValueError("images_per_example: with video, clip.frames says how many")
        if self.duration.percent:
            raise ValueError("duration.percent: of what? give steps or epochs")
        if (gpus := self.accelerators_per_worker.get("GPU", 1.0)) % 1:
            raise ValueError(f"accelerators_per_worker: GPU={gpus:g}: workers take whole GPUs")
        fewest = self.min_workers or self.workers
        if fewest > self.workers:
            raise ValueError(f"min_workers={fewest} is more than workers={self.workers}")
        for workers in (self.workers, fewest):
            check_workers(
                workers, self.accelerator_type, self.topology, self.accelerators_per_worker
            )
        chips = max(1, int(max(self.accelerators_per_worker.values(), default=1)))
        devices = chips * (self.slice.tpu.devices_per_chip if self.slice else 1)
        each = f" times the {devices} devices of each" if devices > 1 else ""
        for workers in self.possible_workers:
            if self.batch_size % (self.accumulate * workers * devices):
                allowed = f", which min_workers={fewest} allows," if self.min_workers else ""
                raise ValueError(
                    f"batch_size={self.batch_size} has to divide by accumulate={self.accumulate} "
                    f"times workers={workers}{allowed}{each}"
                )
        name = self.best and self.best.partition("/")[0]
        if name and name not in self.validation:
            known = ", ".join(self.validation) or "none"
            raise ValueError(f"best={self.best!r}: no validation set {name!r}; there are: {known}")
        return self
