"""Beam search: the likeliest ended answer among those that a few live ones lead to."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from paliflow.model.gemma import Caches
from paliflow.model.generate import Generation, grown, room
from paliflow.model.network import Network, apply
from paliflow.model.shapes import Bool, Float32, Int, Int32

_Token = Int[Array, ""] | int

# Axes: B batch, N live hypotheses of a row, C image and prompt, M new token, V vocabulary.


class _Best(NamedTuple):
    """The likeliest ended hypothesis of each row so far."""

    tokens: Int32[Array, "B M"]  # the end token included, 0 after it
    logprobs: Float32[Array, "B M"]
    score: Float32[Array, " B"]  # the sum of logprobs
    lengths: Int32[Array, " B"]


class _Live(NamedTuple):
    """The hypotheses that have not ended."""

    tokens: Int32[Array, "B N M"]
    logprobs: Float32[Array, "B N M"]
    score: Float32[Array, "B N"]


class _State(NamedTuple):
    step: Int32[Array, ""]  # tokens of each live hypothesis
    best: _Best
    live: _Live
    cache: Caches


@partial(jax.jit, static_argnames="network", donate_argnames="cache")
def beam_search(
    network: Network,
    params: Any,
    logits: Float32[Array, "B V"],
    cache: Caches,
    seen: Bool[Array, "rows C"],
    *,
    eos_id: _Token,
) -> tuple[Generation, Caches]:
    """Continues each prompt with the likeliest ended answer that beam search finds.

    Each step every live hypothesis is also tried with the end token, and the likeliest ended one
    is kept, the older at a tie; no length is preferred. The likeliest continuations of all live
    ones live on. A row is done when no live one is as likely as its ended one, or after
    M tokens. The answer is an ended one, always.

    As big_vision's `_beam_decode` does it, trainers/proj/paligemma/predict_fns.py.

    Args:
        network, params: the model; params without the top-level `params` key.
        logits, cache, seen: as `Prefilled`, with N copies of each row, its live hypotheses; the
            cache is used up.
        eos_id: the end token.

    Returns:
        As `decode`.
    """
    rows = len(logits)
    beams, start = len(seen) // rows, seen.shape[1]
    max_new_tokens = room(cache, start)
    seen = grown(seen, max_new_tokens - 1, axis=1)
    slots = jnp.arange(seen.shape[1])
    nothing = _Best(
        jnp.zeros((rows, max_new_tokens), jnp.int32),
        jnp.zeros((rows, max_new_tokens), jnp.float32),
        jnp.full((rows,), -jnp.inf),
        jnp.zeros((rows,), jnp.int32),
    )
    one = _Live(
        jnp.zeros((rows, 1, max_new_tokens), jnp.int32),
        jnp.zeros((rows, 1, max_new_tokens), jnp.float32),
        jnp.zeros((rows, 1), jnp.float32),
    )

    def advance(state: _State) -> _State:
        index = start + state.step - 1
        position = seen.sum(axis=1) + state.step - 1
        visible = seen | ((slots >= start) & (slots <= index))
        last = state.live.tokens[:, :, state.step - 1].reshape(-1)
        logits, cache = apply(
            network, params, "decode", last, position, visible, state.cache, index
        )
        best, live, parents = _step(state.best, state.live, logits, state.step, beams, eos_id)
        return _State(state.step + 1, best, live, _of_parents(cache, parents))

    def unfinished(state: _State) -> Bool[Array, ""]:
        done = state.live.score.max(axis=1) < state.best.score
        return (state.step < max_new_tokens) & ~done.all()

    best, live, _ = _step(nothing, one, logits, jnp.int32(0), beams, eos_id)
    last = jax.lax.while_loop(unfinished, advance, _State(jnp.int32(1), best, live, cache))
    found = last.best
    # Beams keep no neighbours' probabilities: a location's own stands for that of those around it.
    finished = jnp.ones((rows,), bool)
    answers = Generation(found.tokens, found.logprobs, found.lengths, finished, found.logprobs)
    return answers, last.cache


def _step(
    best: _Best,
    live: _Live,
    logits: Float32[Array, "rows V"],
    step: Int32[Array, ""],
    beams: int,
    eos_id: _Token,
) -> tuple[_Best, _Live, Int32[Array, "B N"]]:
    """Ends every live hypothesis, and continues the likeliest.

    Args:
        best, live: of `step` tokens; at first there is one live hypothesis a row.
        logits: of each live hypothesis, row by row.
        step: tokens so far.
        beams: N after it.
        eos_id: the end token.

    Returns:
        The best, the live ones of `step + 1` tokens, and which of those before they continue.
    """
    rows, before = live.score.shape
    logprobs = jax.nn.log_softmax(logits).reshape(rows, before, -1)
    best = _ended(best, live, logprobs[:, :, eos_id], step, eos_id)

    values, tokens = jax.lax.top_k(logprobs, beams + 1)
    scores = live.score[..., None] + values
    scores = jnp.where(tokens == eos_id, -jnp.inf, scores)
    flat = (rows, before * (beams + 1))
    score, chosen = jax.lax.top_k(scores.reshape(flat), beams)
    parents = chosen // (beams + 1)

    def taken(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x.reshape(flat), chosen, axis=1)

    def continued(x: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, parents[..., None], axis=1).at[:, :, step].set(new)

    live = _Live(
        continued(live.tokens, taken(tokens)), continued(live.logprobs, taken(values)), score
    )
    return best, live, parents


def _ended(
    best: _Best,
    live: _Live,
    end: Float32[Array, "B N"],
    step: Int32[Array, ""],
    eos_id: _Token,
) -> _Best:
    """The best, or the likeliest live hypothesis with the end token if that is likelier."""
    score = live.score + end
    which = score.argmax(axis=1)[:, None]

    def taken(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, which[..., None] if x.ndim == 3 else which, axis=1)[:, 0]

    better = taken(score) > best.score
    tokens = taken(live.tokens).at[:, step].set(eos_id)
    logprobs = taken(live.logprobs).at[:, step].set(taken(end))
    return _Best(
        jnp.where(better[:, None], tokens, best.tokens),
        jnp.where(better[:, None], logprobs, best.logprobs),
        jnp.where(better, taken(score), best.score),
        jnp.where(better, step + 1, best.lengths),
    )


def _of_parents(cache: Caches, parents: Int32[Array, "B N"]) -> Caches:
    """The cache [..., B * N, S, K, H] of the hypotheses that live on."""
    rows, beams = parents.shape

    def taken(x: jax.Array) -> jax.Array:
        apart = x.reshape(*x.shape[:-4], rows, beams, *x.shape[-3:])
        index = parents.reshape(*[1] * (x.ndim - 4), rows, beams, 1, 1, 1)
        return jnp.take_along_axis(apart, index, axis=-4).reshape(x.shape)

    continued: Caches = jax.tree.map(taken, cache)
    return continued
