"""How the next token is chosen: small frozen dataclasses, hashable so that jit may specialise."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from paliflow.model.shapes import Float32, Int32, Key


@runtime_checkable
class Sampler(Protocol):
    """Chooses tokens from logits with a random key."""

    def __call__(self, logits: Float32[Array, "B V"], key: Key[Array, ""]) -> Int32[Array, " B"]:
        """A token for each row."""
        ...


@dataclass(frozen=True)
class Greedy:
    """The likeliest token."""

    def __call__(self, logits: Float32[Array, "B V"], key: Key[Array, ""]) -> Int32[Array, " B"]:
        """The key is not used."""
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)


@dataclass(frozen=True)
class Temperature:
    """Samples from softmax(logits / temperature)."""

    temperature: float = 1.0

    def __call__(self, logits: Float32[Array, "B V"], key: Key[Array, ""]) -> Int32[Array, " B"]:
        """A token for each row."""
        return jax.random.categorical(key, logits / self.temperature).astype(jnp.int32)


@dataclass(frozen=True)
class TopK:
    """Samples among the k likeliest tokens."""

    k: int
    temperature: float = 1.0

    def __call__(self, logits: Float32[Array, "B V"], key: Key[Array, ""]) -> Int32[Array, " B"]:
        """A token for each row."""
        least = jax.lax.top_k(logits, min(self.k, logits.shape[-1]))[0][:, -1:]
        kept = jnp.where(logits >= least, logits, -jnp.inf)
        return Temperature(self.temperature)(kept, key)


@dataclass(frozen=True)
class Nucleus:
    """Samples among the likeliest tokens that together reach probability p (arXiv:1904.09751).

    The token with which the sum first reaches p is kept, as in big_vision; the probabilities are
    those after the temperature.
    """

    p: float
    temperature: float = 1.0

    def __call__(self, logits: Float32[Array, "B V"], key: Key[Array, ""]) -> Int32[Array, " B"]:
        """A token for each row."""
        scaled = logits / self.temperature
        descending = -jnp.sort(-scaled, axis=-1)
        reached = jnp.cumsum(jax.nn.softmax(descending), axis=-1)
        last = jnp.sum(reached < self.p, axis=-1, keepdims=True)
        least = jnp.take_along_axis(descending, jnp.minimum(last, logits.shape[-1] - 1), axis=-1)
        return Temperature()(jnp.where(scaled >= least, scaled, -jnp.inf), key)
