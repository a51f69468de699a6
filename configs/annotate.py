"""`AnnotateSpec`: which images, which prompts, which checkpoint, where the rows go."""

import re
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from paliflow.configs.base import Spec, redacted

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")


class Sampling(Spec):
    """How tokens are chosen: the likeliest, unless a temperature is given."""

    temperature: float = Field(default=0.0, ge=0.0)
    """0 takes the likeliest token; above 0, samples from `softmax(logits / temperature)`."""
    top_k: PositiveInt | None = None
    """Sample among the k likeliest tokens only."""
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    """Sample among the likeliest tokens that together reach this probability (nucleus)."""

    @model_validator(mode="after")
    def _needs_temperature(self) -> "Sampling":
        if not self.temperature and (self.top_k or self.top_p):
            raise ValueError("top_k and top_p need a temperature above 0")
        if self.top_k and self.top_p:
            raise ValueError("give top_k or top_p, not both")
        return self


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
HOW_FIELDS = frozenset(
    {
        "actors", "cpus_per_actor", "accelerators_per_actor", "stall_timeout", "max_error_fraction",
        "max_errors", "compact", "report", "output",
    }
)  # fmt: skip
"""Fields that say how and where a run is done and not what it is: they may change when it is
resumed, `output` because the folder was moved."""


class AnnotateSpec(Spec):
    """One annotation run: every input times every prompt becomes rows of Parquet."""

    input: str = Field(min_length=1)
    """An image file, a folder (searched recursively), a glob, a manifest (.parquet, .csv, .jsonl)
    with one image path a row, or a WebDataset (.tar, or a glob of them); local, `gs://`, and with
    an extra of the same name `s3://` and `https://`."""
    output: str = Field(min_length=1)
    """Folder or `gs://` prefix; rows go to `<output>/run_id=<run_id>/`."""
    prompts: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """What the model is asked about each image, e.g. `caption en` or `detect cat ; dog`. Of a
    manifest's rows, `{name}` stands for a column: `answer en {question}`."""
    run_id: str
    """Names the run. The same id again does only what is missing."""
    checkpoint: str | None = None
    """A big_vision .npz, a Hugging Face or an Orbax folder, local or `gs://`; the bundled
    handwriting reader if not given."""
    tokenizer: str | None = None
    """A sentencepiece model; `tokenizer.model` beside the checkpoint if not given."""
    mask_decoder: str | None = None
    """The mask decoder's weights (`vae-oid.npz`); without it `segment` gives boxes only."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of weights and matrix products."""
    query_pre_attn_scalar: PositiveFloat | None = None
    """Overrides what the checkpoint's shapes suggest."""
    sampling: Sampling = Sampling()
    seed: int = 0
    """Of sampling; the same seed gives the same rows."""
    max_new_tokens: PositiveInt = 64
    """Tokens generated at most; an answer cut by this has `finished` false."""
    max_prompt_tokens: PositiveInt = 512
    """A prompt with more tokens is refused before anything runs."""
    image_column: str = "image"
    """The manifest's column of paths; relative paths are relative to the manifest."""
    prompt_column: str | None = None
    """The manifest's column with one more prompt for each row."""
    id_column: str | None = None
    """The manifest's column that becomes the output's `id`."""
    metadata_columns: tuple[str, ...] = ()
    """The manifest's columns that are carried through to `metadata`, as JSON."""
    https_hosts: tuple[str, ...] = ()
    """The hosts that `https://` images may come from; none if not given."""
    only_new: bool = False
    """Skip inputs that an earlier run of this output has answered, unchanged, with the same
    prompts by the same checkpoint."""
    max_pixels: PositiveInt = 100_000_000
    """An image that announces more pixels becomes an error row, undecoded."""
    read_timeout: PositiveFloat = 60.0
    """Seconds that reading and decoding one input may take; then it becomes an error row."""
    stall_timeout: PositiveFloat = 900.0
    """Seconds without a finished batch after which an actor is killed and its shard given back;
    the first batch includes compilation."""
    max_error_fraction: float = Field(default=0.1, ge=0.0, le=1.0)
    """The run stops where more of its inputs than this fail (once a hundred are done)."""
    max_errors: Annotated[int, Field(ge=0)] | None = None
    """The run stops where more inputs than this fail."""
    shard_size: PositiveInt = 256
    """Inputs a shard: the unit of retry, and of one Parquet part."""
    row_group_size: PositiveInt = 16_384
    """Rows a Parquet row group."""
    compression_level: int = Field(default=3, ge=1, le=22)
    """Of zstd, in which the Parquet files are compressed."""
    thumbnail: PositiveInt | None = None
    """Keep each image in the output's `image_thumbnail`: a JPEG whose longer side has this many
    pixels."""
    compact: bool = False
    """Rewrite the finished run into files of about 256 MB."""
    report: bool = True
    """Leave `_report.html` beside the manifest: sampled rows drawn over their images, errors."""
    batch_size: PositiveInt = 16
    """Images a device batch."""
    actors: PositiveInt | None = None
    """Annotator actors; as many as the cluster has room for if not given."""
    cpus_per_actor: PositiveFloat = 1.0
    """Cores of one actor; XLA on CPU takes what it finds."""
    accelerators_per_actor: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Ray resources of one actor, e.g. `{"TPU": 4}` or `{"GPU": 1}`."""

    @field_validator("run_id")
    @classmethod
    def _plain_run_id(cls, value: str) -> str:
        if not RUN_ID.fullmatch(value):
            raise ValueError("letters, digits and . _ + - only, starting with a letter or digit")
        return value

    @field_validator("output", "checkpoint", "tokenizer", "mask_decoder")
    @classmethod
    def _local_or_gs(cls, value: str | None) -> str | None:
        if value and _SCHEME.match(value) and not value.startswith("gs://"):
            raise ValueError("it has to be a local path or a gs:// URI")
        return value

    @field_validator("input")
    @classmethod
    def _without_credentials(cls, value: str) -> str:
        if redacted(value) != value:
            raise ValueError("a user, password or signature in it would be written to the output")
        return value

    @field_validator("prompts", mode="before")
    @classmethod
    def _one_prompt(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("prompts")
    @classmethod
    def _distinct_prompts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("the same prompt twice would double its rows")
        return value

    @model_validator(mode="after")
    def _asks_something(self) -> "AnnotateSpec":
        if not self.prompts and not self.prompt_column:
            raise ValueError("give prompts, or the prompt_column of a manifest")
        return self
