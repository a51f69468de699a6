"""How a run starts: from which weights, by which recipe; settled once, before any worker."""

import re
from typing import Any, Literal, NamedTuple

from jax.sharding import AbstractMesh

from paliflow.configs.base import Spec, SpecError, printable
from paliflow.configs.finetune import Duration, FineTuneSpec
from paliflow.configs.log_lines import say
from paliflow.jobs.registry.cards import decode_warning
from paliflow.jobs.registry.checkpoints import opened
from paliflow.jobs.registry.locations import Resolved, resolve, tokenizer_of
from paliflow.jobs.runs.identity import check_same_spec
from paliflow.jobs.runs.records import commit_spec, find_spec
from paliflow.model import PaliGemmaConfig
from paliflow.model.checkpoint import read_checkpoint
from paliflow.model.recipe import Recipe
from paliflow.model.train import Trainer
from paliflow.model.weights import Leaf, fitting, infer_config


class Start(Spec):
    """`_plan/start.json`: the first file of a run."""

    kind: Literal["finetune"] = "finetune"
    spec: dict[str, Any]
    """The `FineTuneSpec` as JSON."""
    checkpoint: str
    """What a `registry://` URI stood for when the run began."""
    checkpoint_sha256: str
    tokenizer: str


class Steps(NamedTuple):
    """A spec's durations as optimizer steps."""

    total: int
    warmup: int
    validate_every: int
    save_every: int


def begin(spec: FineTuneSpec) -> Start:
    """Settles what a run starts from, or reads what was settled.

    Raises:
        SpecError: the checkpoint or the tokenizer is missing, bad, or another one than when the
            run began; the run is one of another spec; a pattern matches no parameter.
    """
    uri = f"{spec.location}/_plan/start.json"
    start = find_spec(uri, Start)
    if start is None:
        resolved = resolve(spec)
        found, _ = _look(spec, resolved, tokenizer_of(spec.tokenizer, resolved.checkpoint))
        start = commit_spec(uri, found)
        if start is found:
            return start
    check_same_spec(start.spec, spec)
    now, digests = _look(spec, Resolved(start.checkpoint, None), start.tokenizer)
    if start.checkpoint_sha256 not in digests:
        raise SpecError(
            f"checkpoint={start.checkpoint!r}: its sha256 was {start.checkpoint_sha256} when "
            f"run_id={spec.run_id!r} began and is {now.checkpoint_sha256} now; put the weights "
            "and their tokenizer back, or start another run"
        )
    return start


def _look(spec: FineTuneSpec, resolved: Resolved, tokenizer: str) -> tuple[Start, tuple[str, ...]]:
    """What a run would start from now, and the digests that it is known by."""
    with opened(resolved, tokenizer) as files:
        config, _ = open_weights(files.path, spec)
    try:
        # Which parameters are trained depends on no device, and this process may have none.
        mesh: Any = AbstractMesh((1,), ("data",))
        trainer = Trainer(config, recipe_of(spec, Steps(2, 1, 1, 1)), mesh)
    except ValueError as error:
        raise SpecError(str(error)) from None
    if spec.weight_decay and not any(re.fullmatch(spec.decayed, p) for p in trainer.trained):
        say(
            f"weight_decay={spec.weight_decay:g} reaches nothing, since no parameter that "
            f"decayed={spec.decayed!r} matches is trained",
            "warning",
        )
    if warning := decode_warning(spec.decode, resolved.checkpoint):
        say(printable(warning), "warning")
    start = Start(
        spec=spec.model_dump(mode="json"),
        checkpoint=resolved.checkpoint,
        checkpoint_sha256=files.sha256,
        tokenizer=tokenizer,
    )
    return start, files.digests


def open_weights(path: Any, spec: FineTuneSpec) -> tuple[PaliGemmaConfig, dict[str, Leaf]]:
    """A local checkpoint's configuration and its leaves, unread, in that configuration's shapes.

    Raises:
        CheckpointError: not a PaliGemma's.
        TypeError: the image size does not fit.
    """
    leaves, described = read_checkpoint(path)
    fields = {"query_pre_attn_scalar", "image_size"}
    overrides = spec.model_dump(include=fields, exclude_none=True)
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    config = infer_config(shapes, **described | overrides)
    return config, fitting(leaves, config)


def steps_of(spec: FineTuneSpec, examples: int) -> Steps:
    """The durations of a spec in steps: the nearest whole number, and at least one.

    Args:
        spec: in its `duration`, a percentage is of nothing and thus refused.
        examples: of all sources together.

    Raises:
        SpecError: the warmup leaves no step after it.
    """

    def steps(duration: Duration, total: int) -> int:
        if duration.steps:
            return duration.steps
        if duration.epochs:
            return max(1, round(duration.epochs * examples / spec.batch_size))
        return max(1, round(total * (duration.percent or 0) / 100))

    total = steps(spec.duration, 0)
    warmup = steps(spec.warmup, total)
    if spec.warmup.percent:
        warmup = min(warmup, total - 1)
    if warmup >= total:
        raise SpecError(f"warmup: {warmup} steps of {total} leave none to train in; give less")
    return Steps(total, warmup, steps(spec.validate_every, total), steps(spec.save_every, total))


def recipe_of(spec: FineTuneSpec, steps: Steps) -> Recipe:
    """The model's part of a spec."""
    same = "learning_rate", "weight_decay", "decayed", "clip_norm", "label_smoothing", "dropout"
    more = "frozen", "accumulate", "dtype", "seed"
    fields: dict[str, Any] = {name: getattr(spec, name) for name in (*same, *more)}
    accelerated = bool(spec.accelerators_per_worker)
    fields["remat"] = accelerated if spec.remat is None else spec.remat
    if spec.lora:
        fields |= {"lora_rank": spec.lora.rank, "lora_matrices": spec.lora.matrices}
    return Recipe(total_steps=steps.total, warmup_steps=steps.warmup, **fields)
