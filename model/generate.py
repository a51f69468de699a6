"""Generation: prefill, then one `while_loop` that stops when every row has ended."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from paliflow.model.closed import Grammar
from paliflow.model.gemma import Caches, quantised
from paliflow.model.network import Network, apply
from paliflow.model.sampling import Sampler
from paliflow.model.slices import sliced
from paliflow.model.tokenizer import LOC_PIECES, SEG_PIECES

# Axes: B batch, N image token, T prompt, M new token, S slot of the cache, V vocabulary.


NEARBY = 8
"""Bins of a location on each side: 0.8 % of the image's height or width."""


class Generation(NamedTuple):
    """What was generated, row by row."""

    tokens: jax.Array  # int32 [B, M]; the end token included, 0 after it
    logprobs: jax.Array  # float32 [B, M]; log-probability of each token, untempered; 0 after
    lengths: jax.Array  # int32 [B]; tokens generated, the end token included
    finished: jax.Array  # bool [B]; whether the row ended by itself
    nearby: jax.Array  # float32 [B, M]; of a location: log-probability of all within NEARBY bins of
    # it; of any other token, its own


class _State(NamedTuple):
    step: jax.Array  # int32; tokens generated so far
    last: jax.Array  # int32 [B]; the newest token
    cache: Caches
    result: Generation
    place: jax.Array | None  # int32 [B]; the grammar's state, if there is one


@partial(
    jax.jit,
    static_argnames=("network", "max_new_tokens", "sampler", "eos_id", "int8_cache", "slices"),
)
def generate(
    network: Network,
    params: Any,
    image_tokens: jax.Array,
    prompt: jax.Array,
    prompt_mask: jax.Array,
    seed: jax.Array | int,
    *,
    max_new_tokens: int,
    sampler: Sampler,
    eos_id: int | None,
    int8_cache: bool = False,
    slices: int = 1,
    grammar: Grammar | None = None,
    begins: jax.Array | None = None,
) -> Generation:
    """Continues each prompt.

    Prompts stay padded on the right: every row's t-th new token takes slot N + T + t of the cache,
    while its position follows the row's own prompt, so ragged prompts need no realignment.

    Args:
        network, params: the model; params without the top-level `params` key.
        image_tokens: [B, N, D].
        prompt: int32 [B, T], padded on the right.
        prompt_mask: bool [B, T]; True where `prompt` holds a token.
        seed: int32 scalar.
        max_new_tokens: M, at least 1.
        sampler: chooses each token.
        eos_id: ends a row; None never ends one early.
        int8_cache: keep keys and values in int8; for weights that `layout.pack_weights` has laid.
        slices: of the batch, which prefill takes one after the other, as `sliced`.
        grammar: allows some tokens only; the sampler chooses among them, and an answer ends whole
            within `max_new_tokens`. Log-probabilities stay those among all tokens.
        begins: int32 [B], the grammar's state that each row's answer begins in.
    """
    key = jax.random.key(seed)
    rows = jnp.arange(prompt.shape[0])

    def prefill(*rows: jax.Array) -> tuple[jax.Array, Caches]:
        logits, cache = apply(network, params, "prefill", *rows)
        return logits, quantised(cache) if int8_cache else cache

    logits, cache = sliced(prefill, slices, image_tokens, prompt, prompt_mask)
    seen = jnp.concatenate([jnp.ones(image_tokens.shape[:2], bool), prompt_mask], axis=1)
    start = seen.shape[1]

    def grown(x: jax.Array, axis: int) -> jax.Array:
        widths = [(0, 0)] * x.ndim
        widths[axis] = (0, max_new_tokens - 1)
        return jnp.pad(x, widths)

    cache = jax.tree.map(lambda x: grown(x, -3), cache)
    seen = grown(seen, 1)
    slots = jnp.arange(seen.shape[1])

    def append(
        step: jax.Array, logits: jax.Array, result: Generation, place: jax.Array | None
    ) -> tuple[jax.Array, Generation, jax.Array | None]:
        draw = jax.random.fold_in(key, step)
        if grammar is None or place is None:
            token = sampler(logits, draw)
        else:
            allowed = jnp.asarray(grammar.tokens)[place]
            earlier = jax.lax.dynamic_index_in_dim(result.tokens, step - 2, 1)
            fits = step + 1 + jnp.asarray(grammar.needed)[place] <= max_new_tokens
            fits &= (allowed > earlier) | ~jnp.asarray(grammar.above)[place][:, None]
            scores = jnp.where(fits, jnp.take_along_axis(logits, allowed, axis=1), -jnp.inf)
            chosen = sampler(scores, draw)
            token = allowed[rows, chosen]
            place = jnp.asarray(grammar.following)[place, chosen]
        logprobs = jax.nn.log_softmax(logits)
        logprob, nearby = logprobs[rows, token], _nearby(logprobs, token)
        going = ~result.finished
        token = jnp.where(going, token, 0)
        result = Generation(
            result.tokens.at[:, step].set(token),
            result.logprobs.at[:, step].set(jnp.where(going, logprob, 0.0)),
            result.lengths + going,
            result.finished | (token == eos_id) if eos_id is not None else result.finished,
            result.nearby.at[:, step].set(jnp.where(going, nearby, 0.0)),
        )
        return token, result, place

    def going_on(state: _State) -> jax.Array:
        return (state.step < max_new_tokens) & ~state.result.finished.all()

    def advance(state: _State) -> _State:
        index = start + state.step - 1
        position = seen.sum(axis=1) + state.step - 1
        visible = seen | ((slots >= start) & (slots <= index))
        logits, cache = apply(
            network, params, "decode", state.last, position, visible, state.cache, index
        )
        token, result, place = append(state.step, logits, state.result, state.place)
        return _State(state.step + 1, token, cache, result, place)

    shape = (prompt.shape[0], max_new_tokens)
    empty = Generation(
        jnp.zeros(shape, jnp.int32),
        jnp.zeros(shape, jnp.float32),
        jnp.zeros(shape[:1], jnp.int32),
        jnp.zeros(shape[:1], bool),
        jnp.zeros(shape, jnp.float32),
    )
    token, first, place = append(jnp.int32(0), logits, empty, begins)
    state = _State(jnp.int32(1), token, cache, first, place)
    return jax.lax.while_loop(going_on, advance, state).result


def _nearby(logprobs: jax.Array, token: jax.Array) -> jax.Array:
    """float32 [B], as `Generation.nearby`, of log-probabilities [B, V] and the tokens chosen."""
    end = logprobs.shape[1] - len(SEG_PIECES)
    begin = end - len(LOC_PIECES)
    around = token[:, None] + jnp.arange(-NEARBY, NEARBY + 1)
    is_location = (token >= begin) & (token < end)
    # Of a vocabulary without locations, `begin` is negative, and no token is one.
    counts = (around >= begin) & (around < end) & is_location[:, None] & (begin >= 0)
    counts |= around == token[:, None]
    own = jnp.take_along_axis(logprobs, jnp.clip(around, 0, logprobs.shape[1] - 1), axis=1)
    return jax.nn.logsumexp(jnp.where(counts, own, -jnp.inf), axis=1)
