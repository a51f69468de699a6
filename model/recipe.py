"""`Recipe`: how to train, and which parameters that trains."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from jax.typing import DTypeLike

from paliflow.model.lora import adapter_shapes


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults are those of PaliGemma's transfers (arXiv:2407.07726)."""

    total_steps: int
    warmup_steps: int = 0
    """In which the learning rate rises; from there it falls along a cosine, to zero at the end."""
    learning_rate: float = 1e-5
    """At its peak."""
    weight_decay: float = 0.0
    """A step at the peak takes this share off; the learning rate does not scale it."""
    decayed: str = r".*/kernel"
    """The pattern of the parameter paths that decay, those of them that are trained."""
    clip_norm: float = 1.0
    """The gradient's global norm at most."""
    label_smoothing: float = 0.0
    """The share of each target's probability that goes to all other tokens."""
    dropout: float = 0.0
    """Of the language model's attention and feed-forward outputs."""
    frozen: tuple[str, ...] = ()
    """Patterns of the parameter paths that stay as they are."""
    lora_rank: int | None = None
    """Train adapters of this rank, and nothing else."""
    lora_matrices: str = r"llm/layers/(attn/.*|mlp/.*)"
    """The pattern of the parameter paths that get an adapter."""
    accumulate: int = 1
    """Parts that a batch is cut into, one after another: less memory, the same step."""
    remat: bool = False
    """See `Decoder`."""
    dtype: DTypeLike = "bfloat16"
    """Of the matrix products, and of what is frozen. All that is trained is float32."""
    seed: int = 0
    """Decides fresh adapters and, with the step's number, dropout."""


def trained_shapes(
    shapes: Mapping[str, tuple[int, ...]], recipe: Recipe
) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter or adapter that a recipe trains, by path.

    Raises:
        ValueError: a pattern of the recipe matches no parameter, or nothing is left to train.
    """
    for pattern in recipe.frozen:
        _check_matches("frozen", pattern, shapes, "no parameter")
    if recipe.lora_rank:
        trained = adapter_shapes(shapes, recipe.lora_matrices, recipe.lora_rank)
    else:
        trained = {
            path: shape
            for path, shape in shapes.items()
            if not any(re.fullmatch(pattern, path) for pattern in recipe.frozen)
        }
    if not trained:
        raise ValueError(f"frozen={list(recipe.frozen)} leaves nothing to train")
    if recipe.weight_decay:
        _check_matches("decayed", recipe.decayed, [*shapes, *trained], "no parameter")
    return trained


def _check_matches(field: str, pattern: str, paths: Collection[str], nothing: str) -> None:
    if not any(re.fullmatch(pattern, path) for path in paths):
        some = ", ".join(sorted(paths)[:: -(-len(paths) // 5)])
        raise ValueError(f"{field}={pattern!r} matches {nothing}; there are, e.g., {some}")
