"""The loss as published: cross-entropy of the suffix, averaged within each example first.

The logits of 257,152 tokens would be the largest array of a training step. They are computed at
the positions of suffixes alone, a chunk of the vocabulary at a time, and again in the backward
pass.
"""

from collections.abc import Callable
from functools import partial
from itertools import takewhile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from paliflow.model.layers import einsum
from paliflow.model.network import Network
from paliflow.model.shapes import Float, Float32, Int, Shaped
from paliflow.model.sharding import chunked_rows, constrain_activations

# Axes: B batch, T text, U the leading ones of T, D width, V vocabulary, n chunk, C token of one.

CHUNK = 40_000
"""Tokens of a chunk at most, where the vocabulary divides: the published one has 7 chunks."""
_LENGTHS = tuple(2**power for power in range(4, 20))
"""To one of which the longest suffix of a batch is rounded up."""


class Batch(NamedTuple):
    """What one step learns from; see `examples.Texts` for the masks.

    A row whose `mask_loss` is all 0 does not count: the step is as if it were not there.
    """

    images: ArrayLike  # float32 in [-1, 1] or uint8; [B, H, W, 3] or [B, F, H, W, 3]
    text: ArrayLike  # int32 [B, T]
    mask_ar: ArrayLike  # int32 [B, T]
    mask_loss: ArrayLike  # int32 [B, T]


class _Kind(NamedTuple):
    softcap: float | None
    label_smoothing: float


class _Targets(NamedTuple):
    """What is scored, and against what."""

    ids: Int[Array, "n C"]  # the tokens of each chunk
    tokens: Int[Array, "B T"]  # those that count first
    longest: Int[Array, ""]  # how many of a row count at most


def suffix_losses(
    states: Float[Array, "B T D"],
    table: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    weights: Shaped[Array, "B T"],
    *,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
) -> Float32[Array, " B"]:
    """Each example's cross-entropy, averaged over its weighted tokens.

    Args:
        states: hidden states, whose products with the table are the logits.
        table: of all tokens.
        targets: the token after each state.
        weights: 1 where the token counts.
        softcap: `cap * tanh(logits / cap)` of the logits.
        label_smoothing: the share s; the target has 1 - s, every other token s / (V - 1).

    Returns:
        In nats; 0 where no token counts.
    """
    # What counts comes first, so that the rest of the rows can be passed over.
    order = jnp.argsort(weights == 0, axis=1, stable=True)
    states = jnp.take_along_axis(states, order[..., None], axis=1)
    targets, weights = (jnp.take_along_axis(x, order, axis=1) for x in (targets, weights))
    chunks, ids = (chunked_rows(x, CHUNK) for x in (table, jnp.arange(len(table))))
    scored = _Targets(ids, targets, (weights != 0).sum(axis=1).max())
    losses = _token_losses(_Kind(softcap, label_smoothing), states, chunks, scored)
    return (losses * weights).sum(-1) / jnp.maximum(weights.sum(-1), 1)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _token_losses(
    kind: _Kind, states: Float[Array, "B T D"], chunks: Float[Array, "n C D"], targets: _Targets
) -> Float32[Array, "B T"]:
    """The cross-entropy of each token; 0 behind the longest suffix.

    Args:
        kind: of loss.
        states: hidden ones.
        chunks: the table.
        targets: of the states.
    """
    return _forward(kind, states, chunks, targets)[0]


def _forward(kind: _Kind, states: Any, chunks: Any, targets: Any) -> tuple[jax.Array, Any]:
    losses, normalisers = _over_longest(targets, partial(_losses, kind), states, chunks)
    return losses, (states, chunks, targets, normalisers)


def _backward(kind: _Kind, kept: Any, slopes: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    states, chunks, targets, normalisers = kept
    gradients = partial(_gradients, kind)
    of_both = _over_longest(targets, gradients, states, chunks, normalisers, slopes)
    return *of_both, None


_token_losses.defvjp(_forward, _backward)


def _over_longest(targets: _Targets, function: Callable[..., Any], *args: Any) -> Any:
    """A function of targets, args and a number of leading states: the longest suffix's or more."""
    length = targets.tokens.shape[1]
    lengths = [*takewhile(lambda each: each < length, _LENGTHS), length]
    branches = [partial(function, length=each) for each in lengths]
    branch = jnp.searchsorted(jnp.array(lengths), targets.longest)
    return jax.lax.switch(branch, branches, targets, *args)


def _losses(
    kind: _Kind,
    targets: _Targets,
    states: Float[Array, "B T D"],
    chunks: Float[Array, "n C D"],
    *,
    length: int,
) -> tuple[Float32[Array, "B T"], Float32[Array, "B T"]]:
    """Each token's loss and the logarithm of its normaliser."""
    leading = states[:, :length]

    def of_chunk(chunk: Any) -> tuple[jax.Array, jax.Array]:
        ids, rows = chunk
        logits = _logits(kind, leading, rows)
        wanted = _wanted(kind, targets, ids, length)
        return jax.nn.logsumexp(logits, axis=-1), (wanted * logits).sum(-1)

    normalisers, hits = jax.lax.map(of_chunk, (targets.ids, chunks))
    normaliser = jax.nn.logsumexp(normalisers, axis=0)
    rest = ((0, 0), (0, states.shape[1] - length))
    return jnp.pad(normaliser - hits.sum(0), rest), jnp.pad(normaliser, rest)


def _gradients(
    kind: _Kind,
    targets: _Targets,
    states: Float[Array, "B T D"],
    chunks: Float[Array, "n C D"],
    normalisers: Float32[Array, "B T"],
    slopes: Float32[Array, "B T"],
    *,
    length: int,
) -> tuple[Float[Array, "B T D"], Float[Array, "n C D"]]:
    """Those of states and chunks, given those of the losses.

    Chunks add up in float32, so that a bfloat16 gradient of a state is rounded once.
    """
    leading = states[:, :length]

    def of_chunk(total: jax.Array, chunk: Any) -> tuple[jax.Array, jax.Array]:
        ids, rows = chunk
        logits = _logits(kind, leading, rows)
        share = jnp.exp(logits - normalisers[:, :length, None])
        slope = (share - _wanted(kind, targets, ids, length)) * slopes[:, :length, None]
        if kind.softcap is not None:
            slope *= 1 - jnp.square(logits / kind.softcap)
        slope = slope.astype(states.dtype)
        flat = slope.reshape(-1, slope.shape[-1]).T, leading.reshape(-1, leading.shape[-1])
        of_rows = einsum("CU,UD->CD", *flat, chunks.dtype)
        return total + einsum("BUC,CD->BUD", slope, rows, jnp.float32), of_rows

    start = jnp.zeros(leading.shape, jnp.float32)
    total, of_chunks = jax.lax.scan(of_chunk, start, (targets.ids, chunks))
    rest = ((0, 0), (0, states.shape[1] - length), (0, 0))
    return jnp.pad(total.astype(states.dtype), rest), of_chunks


def _logits(
    kind: _Kind, states: Float[Array, "B U D"], rows: Float[Array, "C D"]
) -> Float32[Array, "B U C"]:
    logits = constrain_activations(einsum("BUD,CD->BUC", states, rows, jnp.float32))
    return logits if kind.softcap is None else kind.softcap * jnp.tanh(logits / kind.softcap)


def _wanted(
    kind: _Kind, targets: _Targets, ids: Int[Array, " C"], length: int
) -> Float32[Array, "B U C"]:
    """What the probabilities should be."""
    other = kind.label_smoothing / (targets.ids.size - 1)
    hit = ids == targets.tokens[:, :length, None]
    return jnp.where(hit, 1 - kind.label_smoothing, other)


def count_examples(batch: Batch) -> jax.Array:
    """int32, the rows that count."""
    count: jax.Array = (jnp.asarray(batch.mask_loss)[:, 1:] != 0).any(1).sum()
    return count


def count_targets(batch: Batch) -> jax.Array:
    """int32, the tokens that are scored."""
    count: jax.Array = (jnp.asarray(batch.mask_loss)[:, 1:] != 0).sum()
    return count


def batch_losses(
    network: Network,
    params: Any,
    batch: Batch,
    label_smoothing: float = 0.0,
    rngs: dict[str, jax.Array] | None = None,
) -> jax.Array:
    """`suffix_losses` of a network with these parameters.

    Args:
        rngs: `dropout`'s key, if the network has any.
    """
    text, mask_ar, mask_loss = (jnp.asarray(x) for x in batch[1:])
    inputs = batch.images, text[:, :-1], mask_ar[:, :-1]
    states: Any = network.apply({"params": params}, *inputs, rngs=rngs, method="states")
    return suffix_losses(
        states,
        params["llm"]["embedder"]["input_embedding"],
        text[:, 1:],
        mask_loss[:, 1:],
        softcap=network.config.text.final_logits_softcap,
        label_smoothing=label_smoothing,
    )
