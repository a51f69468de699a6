"""Generation: prefill, then one `while_loop` that stops when every row has ended.

They are two programs, so that a host sees how long each takes.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from paliflow.model.closed import Grammar
from paliflow.model.gemma import Caches, quantised
from paliflow.model.network import Network, apply
from paliflow.model.sampling import Sampler
from paliflow.model.shapes import Bool, Float, Float32, Int, Int32, Key, Shaped
from paliflow.model.slices import sliced
from paliflow.model.tokenizer import LOC_PIECES, SEG_PIECES

# Axes: B batch, P image token, T prompt, C both, M new token, S slot of the cache, V vocabulary,
# D width.


NEARBY = 8
"""Bins of a location on each side: 0.8 % of the image's height or width."""


class Generation(NamedTuple):
    """What was generated, row by row."""

    tokens: Int32[Array, "B M"]
    """The end token included, 0 after it."""
    logprobs: Float32[Array, "B M"]
    """Log-probability of each token, untempered; 0 after the end."""
    lengths: Int32[Array, " B"]
    """Tokens generated, the end token included."""
    finished: Bool[Array, " B"]
    """Whether the row ended by itself."""
    nearby: Float32[Array, "B M"]
    """Of a location: log-probability of all within NEARBY bins of it; of any other token, its
    own."""


class _State(NamedTuple):
    step: Int32[Array, ""]  # tokens generated so far
    last: Int32[Array, " B"]  # the newest token
    cache: Caches
    result: Generation
    place: Int32[Array, " B"] | None  # the grammar's state, if there is one


class Prefilled(NamedTuple):
    """Prompts that were read, in a cache that has room for their answers: S is P + T + M - 1."""

    logits: Float32[Array, "B V"]
    """Of the first new token."""
    cache: Caches
    """Of N x B rows, S slots each, where each row has N copies."""
    seen: Bool[Array, "rows C"]
    """True where a slot holds an image's or a prompt's token."""

    @property
    def copies(self) -> int:
        """N."""
        return len(self.seen) // len(self.logits)


def generate(
    network: Network,
    params: Any,
    image_tokens: Float[Array, "B P D"],
    prompt: Int[Array, "B T"],
    prompt_mask: Bool[Array, "B T"],
    seed: Int[Array, ""] | int,
    *,
    max_new_tokens: int,
    sampler: Sampler,
    eos_id: int | None,
    int8_cache: bool = False,
    slices: int = 1,
) -> Generation:
    """Continues each prompt: `prefill`, then `decode`, which say what the arguments are."""
    prefilled = prefill(
        *(network, params, image_tokens, prompt, prompt_mask),
        max_new_tokens=max_new_tokens,
        int8_cache=int8_cache,
        slices=slices,
    )
    generation: Generation
    generation, _ = decode(*(network, params, *prefilled, seed), sampler=sampler, eos_id=eos_id)
    return generation


@partial(jax.jit, static_argnames=("network", "max_new_tokens", "copies", "int8_cache", "slices"))
def prefill(
    network: Network,
    params: Any,
    image_tokens: Float[Array, "B P D"],
    prompt: Int[Array, "B T"],
    prompt_mask: Bool[Array, "B T"],
    *,
    max_new_tokens: int,
    copies: int = 1,
    int8_cache: bool = False,
    slices: int = 1,
) -> Prefilled:
    """Reads each prompt.

    Args:
        network, params: the model; params without the top-level `params` key.
        image_tokens: as `Network.encode_images` gives them.
        prompt: padded on the right.
        prompt_mask: True where `prompt` holds a token.
        max_new_tokens: M, at least 1.
        copies: N, answers of each row.
        int8_cache: keep keys and values in int8; for weights that `layout.pack_weights` has laid.
        slices: of the batch, which are taken one after the other, as `sliced`.
    """
    read = partial(_read_prompts, network, params, int8_cache)
    logits, cache = sliced(read, slices, image_tokens, prompt, prompt_mask)
    seen = jnp.concatenate([jnp.ones(image_tokens.shape[:2], bool), prompt_mask], axis=1)

    def spread(x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        return jnp.repeat(grown(x, max_new_tokens - 1, axis=-3), copies, axis=-4)

    return Prefilled(logits, jax.tree.map(spread, cache), jnp.repeat(seen, copies, axis=0))


@partial(
    jax.jit,
    static_argnames=("network", "sampler", "eos_id"),
    donate_argnames="cache",
)
def decode(
    network: Network,
    params: Any,
    logits: Float32[Array, "B V"],
    cache: Caches,
    seen: Bool[Array, "B C"],
    seed: Int[Array, ""] | int,
    *,
    sampler: Sampler,
    eos_id: int | None,
    grammar: Grammar | None = None,
    begins: Int[Array, " B"] | None = None,
) -> tuple[Generation, Caches]:
    """Continues prompts that were read.

    Prompts stay padded on the right: every row's t-th new token takes slot P + T + t of the cache,
    while its position follows the row's own prompt, so ragged prompts need no realignment.

    Args:
        network, params: the model; params without the top-level `params` key.
        logits, cache, seen: as `Prefilled`, of one copy of each row; the cache is used up.
        seed: decides every random choice.
        sampler: chooses each token.
        eos_id: ends a row; None never ends one early.
        grammar: allows some tokens only; the sampler chooses among them, and an answer ends whole
            within M. Log-probabilities stay those among all tokens.
        begins: the grammar's state that each row's answer begins in.

    Returns:
        What was generated; and the cache's memory, in which the loop has worked.
    """
    key = jax.random.key(seed)
    start = seen.shape[1]
    max_new_tokens = room(cache, start)
    seen = grown(seen, max_new_tokens - 1, axis=1)
    slots = jnp.arange(seen.shape[1])

    def choose(
        step: Int32[Array, ""],
        logits: Float32[Array, "B V"],
        result: Generation,
        place: Int32[Array, " B"] | None,
    ) -> tuple[Int32[Array, " B"], Generation, Int32[Array, " B"] | None]:
        draw = jax.random.fold_in(key, step)
        if grammar is None or place is None:
            token = sampler(logits, draw)
        else:
            earlier = jax.lax.dynamic_index_in_dim(result.tokens, step - 2, 1)
            left = max_new_tokens - step
            token, place = _allowed_token(grammar, sampler, draw, logits, earlier, left, place)
        token, result = _append(result, step, token, logits, eos_id)
        return token, result, place

    def unfinished(state: _State) -> Bool[Array, ""]:
        return (state.step < max_new_tokens) & ~state.result.finished.all()

    def advance(state: _State) -> _State:
        index = start + state.step - 1
        position = seen.sum(axis=1) + state.step - 1
        visible = seen | ((slots >= start) & (slots <= index))
        logits, cache = apply(
            network, params, "decode", state.last, position, visible, state.cache, index
        )
        token, result, place = choose(state.step, logits, state.result, state.place)
        return _State(state.step + 1, token, cache, result, place)

    empty = _nothing_yet(len(seen), max_new_tokens)
    token, first, place = choose(jnp.int32(0), logits, empty, begins)
    state = _State(jnp.int32(1), token, cache, first, place)
    last = jax.lax.while_loop(unfinished, advance, state)
    return last.result, last.cache


def room(cache: Caches, start: int) -> int:
    """How many tokens an answer may have in a cache whose slots from `start` on are free.

    The last token of an answer is never read, and needs no slot.
    """
    slots: int = jax.tree.leaves(cache)[0].shape[-3]
    return slots - start + 1


def _read_prompts(
    network: Network,
    params: Any,
    int8_cache: bool,
    image_tokens: Float[Array, "B P D"],
    prompt: Int[Array, "B T"],
    prompt_mask: Bool[Array, "B T"],
) -> tuple[Float32[Array, "B V"], Caches]:
    """Logits of the first new token, and the cache of P + T slots."""
    logits, cache = apply(network, params, "prefill", image_tokens, prompt, prompt_mask)
    return logits, quantised(cache) if int8_cache else cache


def grown(x: Shaped[Array, "..."], by: int, axis: int) -> Shaped[Array, "..."]:
    """With zeros behind along an axis."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, by)
    return jnp.pad(x, widths)


def _nothing_yet(rows: int, max_new_tokens: int) -> Generation:
    shape = (rows, max_new_tokens)
    return Generation(
        jnp.zeros(shape, jnp.int32),
        jnp.zeros(shape, jnp.float32),
        jnp.zeros(shape[:1], jnp.int32),
        jnp.zeros(shape[:1], bool),
        jnp.zeros(shape, jnp.float32),
    )


def _append(
    result: Generation,
    step: Int32[Array, ""],
    token: Int32[Array, " B"],
    logits: Float32[Array, "B V"],
    eos_id: int | None,
) -> tuple[Int32[Array, " B"], Generation]:
    """Writes a token into each row that has not ended; 0 is the token of the others.

    Args:
        result: so far.
        step: how many tokens that has.
        token: as chosen from the logits.
        logits: of all tokens.
        eos_id: as `decode`.
    """
    logprobs = jax.nn.log_softmax(logits)
    logprob, nearby = logprobs[jnp.arange(len(token)), token], _nearby(logprobs, token)
    going = ~result.finished
    token = jnp.where(going, token, 0)
    return token, Generation(
        result.tokens.at[:, step].set(token),
        result.logprobs.at[:, step].set(jnp.where(going, logprob, 0.0)),
        result.lengths + going,
        result.finished | (token == eos_id) if eos_id is not None else result.finished,
        result.nearby.at[:, step].set(jnp.where(going, nearby, 0.0)),
    )


def _allowed_token(
    grammar: Grammar,
    sampler: Sampler,
    draw: Key[Array, ""],
    logits: Float32[Array, "B V"],
    earlier: Int32[Array, "B 1"],
    left: Int32[Array, ""],
    place: Int32[Array, " B"],
) -> tuple[Int32[Array, " B"], Int32[Array, " B"]]:
    """Chooses among the tokens that a grammar allows.

    Args:
        draw: the sampler's key.
        logits: of all tokens.
        earlier: the token but one before, which some tokens must be greater than.
        left: how many tokens there is room for.
        place: the grammar's state.

    Returns:
        Tokens, and the grammar's next states.
    """
    allowed = jnp.asarray(grammar.tokens)[place]
    fits = jnp.asarray(grammar.needed)[place] < left
    fits &= (allowed > earlier) | ~jnp.asarray(grammar.above)[place][:, None]
    scores = jnp.where(fits, jnp.take_along_axis(logits, allowed, axis=1), -jnp.inf)
    chosen = sampler(scores, draw)
    rows = jnp.arange(len(place))
    return allowed[rows, chosen], jnp.asarray(grammar.following)[place, chosen]


def _nearby(logprobs: Float32[Array, "B V"], token: Int32[Array, " B"]) -> Float32[Array, " B"]:
    """As `Generation.nearby`, of log-probabilities and the tokens chosen."""
    end = logprobs.shape[1] - len(SEG_PIECES)
    begin = end - len(LOC_PIECES)
    around = token[:, None] + jnp.arange(-NEARBY, NEARBY + 1)
    is_location = (token >= begin) & (token < end)
    # Of a vocabulary without locations, `begin` is negative, and no token is one.
    counts = (around >= begin) & (around < end) & is_location[:, None] & (begin >= 0)
    counts |= around == token[:, None]
    own = jnp.take_along_axis(logprobs, jnp.clip(around, 0, logprobs.shape[1] - 1), axis=1)
    return jax.nn.logsumexp(jnp.where(counts, own, -jnp.inf), axis=1)
