"""What runs have in common: a name, a place, a model, and how a model is asked."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from paliflow.configs.base import Spec, redacted
from paliflow.configs.chips import Dtype
from paliflow.configs.placement import Placement, check_placement, slice_of, with_accelerators
from paliflow.configs.resources import Accelerators
from paliflow.configs.tpus import TOPOLOGY_LABEL, TYPE_LABEL, Slice
from paliflow.configs.video import VideoSpec

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
REGISTERED = re.compile(r"registry://([A-Za-z0-9][A-Za-z0-9._-]*)@([A-Za-z0-9][A-Za-z0-9._-]*)")
"""`registry://name@alias`, or the number of a version in the alias's place."""
_VIDEOS_A_SHARD = 16
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def run_id_now() -> str:
    """The time, as the name of a run that was given none."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def _local_or_gs(value: str) -> str:
    if _SCHEME.match(value) and not value.startswith("gs://"):
        raise ValueError("it has to be a local path or a gs:// URI")
    return value


def _checkpoint(value: str) -> str:
    if not value.startswith("registry://"):
        return _local_or_gs(value)
    if not REGISTERED.fullmatch(value):
        raise ValueError("of a registry it has to be registry://<name>@<alias or version>")
    return value


def _root(value: str) -> str:
    if redacted(value) != value:
        raise ValueError("a user, password or signature in it would be written to the output")
    if value.startswith("https://"):
        raise ValueError("the hosts of https:// are allowed by https_hosts")
    _, slashes, place = value.rpartition("://")
    if slashes and not {"", ".", ".."}.isdisjoint(place.rstrip("/").split("/")):
        raise ValueError("a URI names its bucket, and has no empty part, `.` or `..`")
    return value


def _plain_run_id(value: str) -> str:
    if not RUN_ID.fullmatch(value):
        raise ValueError("letters, digits and . _ + - only, starting with a letter or digit")
    return value


BatchSize = Annotated[int, Field(ge=1, le=65_536)]
Tokens = Annotated[int, Field(ge=1, le=8192)]
"""Of a text: Gemma knows no more positions."""
Stored = Annotated[str, Field(min_length=1), AfterValidator(_local_or_gs)]
"""A local path or a `gs://` URI."""
Checkpoint = Annotated[str, Field(min_length=1), AfterValidator(_checkpoint)]
"""As `Stored`, or `registry://name@alias`."""


Decode = Literal["exact", "fast"]


Root = Annotated[str, Field(min_length=1), AfterValidator(_root)]
"""A local folder, or a bucket and prefix."""


class RunSpec(Spec):
    """What every run has: a name, and a place of its own."""

    EXECUTION_FIELDS: ClassVar[frozenset[str]] = frozenset({"output", "generation"})
    """Fields that say how and where a run is done and not what it is: they may change when it is
    resumed, `output` because the folder was moved."""

    output: Stored
    """Folder or `gs://` prefix; a run writes to `<output>/run_id=<run_id>/`."""
    run_id: Annotated[str, AfterValidator(_plain_run_id)]
    """Names the run. The same id again does only what is missing."""
    generation: Annotated[int, Field(ge=0)] = 0
    """A higher number than the run was made with starts it over, unless it is unfinished and its
    spec the same. Airflow's operators raise it when their task is cleared."""

    @property
    def location(self) -> str:
        """The run's folder."""
        return f"{self.output.rstrip('/')}/run_id={self.run_id}"


class InputsSpec(RunSpec):
    """A run that reads images or videos, some of which may be broken."""

    video: VideoSpec | None = None
    """The inputs are videos, of which these frames or clips are looked at; images if not given."""
    https_hosts: tuple[str, ...] = ()
    """The hosts that `https://` images may come from; none if not given."""
    allowed_roots: tuple[Root, ...] = ()
    """Where else than below its own folder what a manifest names may lie, and what links in a
    folder lead to: local folders, `gs://bucket/prefix`. A remote manifest names no local file."""
    max_pixels: PositiveInt = 100_000_000
    """An image that announces more pixels is an error, undecoded."""
    read_timeout: PositiveFloat = 60.0
    """Seconds that reading and decoding one input may take; then it is an error. Of a video, those
    without a frame or a sign of life."""
    video_timeout: PositiveFloat = 14_400.0
    """Seconds that reading and decoding one video, or one piece of it, may take in all."""
    decoder_memory: PositiveInt = 2048
    """MB that decoding one input may take; an input that needs more is an error. An actor decodes
    as many inputs at once as it has cores, but only one image above 33 megapixels."""
    exif: Literal["apply", "ignore"] = "apply"
    """Whether an image is turned as its EXIF orientation says; `ignore` is what big_vision does."""
    max_error_fraction: float = Field(default=0.1, ge=0.0, le=1.0)
    """The run stops where more of its inputs than this fail (once a hundred are done)."""
    max_errors: Annotated[int, Field(ge=0)] | None = None
    """The run stops where more inputs than this fail."""


class FleetSpec(RunSpec):
    """A run whose inputs are cut into shards, which actors take."""

    EXECUTION_FIELDS: ClassVar[frozenset[str]] = RunSpec.EXECUTION_FIELDS | {
        "actors", "cpus_per_actor", "stall_timeout", "start_timeout",
    }  # fmt: skip

    stall_timeout: PositiveFloat = 900.0
    """Seconds without a finished batch after which an actor is killed and its shard given back;
    the first batch includes compilation."""
    start_timeout: PositiveFloat = 1800.0
    """Seconds without a single actor, because none fits or the cluster does not grow, after which
    the job gives up; the next try may find room."""
    shard_size: PositiveInt = 256
    """Inputs a shard: the unit of retry, and of one Parquet part. Of videos 16, if not given."""
    actors: PositiveInt | None = None
    """Annotator actors; as many as the cluster has room for if not given."""
    cpus_per_actor: PositiveFloat = 1.0
    """Cores of one actor. Without accelerators XLA uses these, or an actor's share of the cluster's
    if that is more."""

    @property
    def actor_resources(self) -> dict[str, float]:
        """What Ray is asked for one actor: `CPU`, and its accelerators if it has any."""
        return {"CPU": self.cpus_per_actor}

    @property
    def actor_labels(self) -> dict[str, str]:
        """What the nodes of actors have to be labelled with in Ray."""
        return {}

    @property
    def actor_slice(self) -> Slice | None:
        """The slice whose hosts an actor has a process on each of; None if it is one process."""
        return None

    @model_validator(mode="before")
    @classmethod
    def _videos_are_many_inputs(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("video") and "shard_size" not in data:
            return data | {"shard_size": _VIDEOS_A_SHARD}
        return data


class ModelSpec(InputsSpec):
    """A run that starts from a checkpoint."""

    EXECUTION_FIELDS: ClassVar[frozenset[str]] = InputsSpec.EXECUTION_FIELDS | {
        "max_error_fraction", "max_errors", "max_usd", "usd_per_chip_hour",
    }  # fmt: skip

    decode: Decode = "fast"
    """How images are read. `fast` decodes large JPEGs to fewer pixels, twice the model's side at
    least, and averages blocks of pixels before it resizes: for photographs a third of the time.
    `exact` resizes all pixels at once, as big_vision does. What differs is in docs/performance.md;
    a model is best asked as it was trained."""
    checkpoint: Checkpoint | None = None
    """A big_vision .npz, a Hugging Face or an Orbax folder, local or `gs://`, or
    `registry://name@alias`; the bundled handwriting reader if not given."""
    registry: Stored | None = None
    """The folder whose `registry.json` knows `registry://` checkpoints."""
    tokenizer: Stored | None = None
    """A sentencepiece model; `tokenizer.model` beside the checkpoint if not given."""
    query_pre_attn_scalar: PositiveFloat | None = None
    """Overrides what the checkpoint's shapes suggest."""
    seed: int = 0
    """Of all that is drawn at random; the same seed gives the same."""
    usd_per_chip_hour: PositiveFloat | None = None
    """What a chip costs you; the list price of `configs/chips.yaml` if not given."""
    max_usd: PositiveFloat | None = None
    """The run stops where the chips of its finished shards, or of a training's steps up to a
    checkpoint, have cost more than this, and goes on from there with a higher limit."""

    def require_whole_clips(self) -> None:
        """
        Raises:
            ValueError: a video would be several inputs, where each has one answer.
        """
        video = self.video
        if video and not (video.clip and not video.clip.length_s and not video.clip.scenes):
            raise ValueError(
                "video: each example has one answer, so that its video has to be one clip: give "
                "clip, e.g. {frames: 8}, without length_s or scenes"
            )

    @model_validator(mode="after")
    def _names_the_registry(self) -> "ModelSpec":
        if self.checkpoint and self.checkpoint.startswith("registry://") and not self.registry:
            raise ValueError(f"checkpoint={self.checkpoint!r} needs `registry`, its folder")
        return self


class InferenceSpec(ModelSpec, FleetSpec):
    """A run whose actors ask a model about images."""

    EXECUTION_FIELDS: ClassVar[frozenset[str]] = (
        ModelSpec.EXECUTION_FIELDS
        | FleetSpec.EXECUTION_FIELDS
        | {
            "accelerators_per_actor", "placement", "accelerator_type", "topology",
            "compilation_cache",
        }
    )  # fmt: skip

    dtype: Dtype = "bfloat16"
    """Of weights and matrix products. int8, and float8_e4m3fn on an H100, H200 or L4, take half of
    bfloat16's memory and are faster; what they cost in accuracy is in docs/performance.md."""
    int8_cache: bool = False
    """Keep keys and values in int8, so that about twice the batch fits."""
    model_parallel: PositiveInt = 1
    """Devices of an actor that share one copy of the weights, where one cannot hold them."""
    compilation_cache: Stored | None = None
    """Folder or `gs://` prefix where compiled programs are kept, so that only the first actor
    compiles them. Whoever can write there runs code in the actors: a local folder that other users
    can write to is refused."""
    mask_decoder: Stored | None = None
    """The mask decoder's weights (`vae-oid.npz`); without it `segment` gives boxes only."""
    image_size: PositiveInt | None = None
    """Pixels of the square input, if not the checkpoint's: its position embedding is resized."""
    max_new_tokens: Tokens = 64
    """Tokens generated at most; an answer cut by this has `finished` false."""
    max_prompt_tokens: Tokens = 512
    """A prompt with more tokens is refused before anything runs."""
    batch_size: BatchSize | None = None
    """Images a device batch. If not given, as many as are estimated to fit in the chips' memory,
    and 16 on a CPU. Refused where it is estimated to take more than there is; halved where the
    memory runs out all the same."""
    accelerators_per_actor: Accelerators = Field(default_factory=dict)
    """Ray resources of one actor, e.g. `{"TPU": 4}` or `{"GPU": 1}`; with `placement: slice`, of
    each of its hosts. An actor that finds other devices than these refuses to load."""
    placement: Placement | None = None
    """How models are laid onto TPUs: `chip` has an actor on every chip, `host` one on every host,
    alone even where its slice has more hosts, `slice` one on every slice, with a process on each of
    its hosts. `accelerators_per_actor` follows from it. It needs `accelerator_type` and
    `topology`."""
    accelerator_type: str | None = None
    """The generation of the TPUs, e.g. `v5e`: v4, v5e, v5p, v6e or v7x. With `topology`; actors run
    on such slices alone."""
    topology: str | None = None
    """Of the TPU slices, in chips, e.g. `2x4`."""

    @property
    def actor_resources(self) -> dict[str, float]:
        """What Ray is asked for one actor."""
        return super().actor_resources | self.accelerators_per_actor

    @property
    def actor_labels(self) -> dict[str, str]:
        """What the nodes of actors have to be labelled with, if the spec names a slice."""
        slice_ = self.slice
        return {TYPE_LABEL: slice_.tpu.ray, TOPOLOGY_LABEL: slice_.topology} if slice_ else {}

    @property
    def slice(self) -> Slice | None:
        """The slice whose hosts the actors are on, if one is named."""
        return slice_of(self.accelerator_type, self.topology)

    @property
    def actor_slice(self) -> Slice | None:
        """The slice whose hosts an actor has a process on each of; None if it is one process."""
        slice_ = self.slice
        return slice_ if self.placement == "slice" and slice_ and slice_.hosts > 1 else None

    @property
    def actor_topology(self) -> str | None:
        """The sides of the mesh that an actor's chips form, if it is known."""
        if self.actor_slice:
            return self.topology
        slice_, chips = self.slice, self.accelerators_per_actor.get("TPU")
        if slice_ and chips == slice_.chips_per_host:
            return slice_.host_topology
        return "1x1" if chips == 1 else None

    @model_validator(mode="before")
    @classmethod
    def _placement_says_how_many(cls, data: Any) -> Any:
        return with_accelerators(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _can_be_placed(self) -> "InferenceSpec":
        check_placement(
            self.placement,
            self.accelerator_type,
            self.topology,
            self.accelerators_per_actor,
            self.model_parallel,
        )
        if self.dtype == "float8_e4m3fn" and "TPU" in self.accelerators_per_actor:
            raise ValueError("dtype='float8_e4m3fn' is for an H100, H200 or L4; TPUs take int8")
        return self
