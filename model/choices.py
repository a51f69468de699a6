"""Fixed choices: the probability of each text of a list as the answer, all of them in one pass."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from paliflow.model.network import Network, apply
from paliflow.model.shapes import Bool, Float, Float32, Int, Shaped
from paliflow.model.slices import sliced
from paliflow.model.tokenizer import Tokenizer

# Axes: B batch, T prompt, S image and prompt, U list of choices, G group of a list's choices,
# N node of a group's trie, E child of a node, F child of the root, C choice, L token of a choice.

NODES = 256
"""Nodes of a trie that go through the decoder at once; a longer list goes in groups."""
CHOICE_NODES = 256
"""Nodes of all rows whose logits, of the whole vocabulary, are in memory at once."""


class ChoiceTable(NamedTuple):
    """Lists of choices as tries of tokens, padded to one shape.

    Each trie's root is the prompt's last token. Its other nodes are read by the decoder; each
    predicts its children, of which the end token is one where a choice ends.
    """

    tokens: Any  # int32 [U, G, N]; of each node
    depth: Any  # int32 [U, G, N]; 0 for the root's children
    visible: Any  # bool [U, G, N, N]; a node sees its ancestors and itself
    first: Any  # int32 [U, G, F]; the tokens of the root's children
    children: Any  # int32 [U, G, N, E]; the tokens of each node's children
    paths: Any  # int32 [U, G, C, L]; a choice's steps in F, N x E and a last one for pads

    @property
    def nodes(self) -> int:
        """Tokens that each row reads besides image and prompt, of one group."""
        return int(self.tokens.shape[2])


class ChoiceScores(NamedTuple):
    """How likely each choice is as the whole answer, its end token included.

    The columns [G x C] are those of the table; `columns_of` says which are a list's.
    """

    logprob: Float32[Array, "B G*C"]  # natural, not normalised over the list
    least: Float32[Array, "B G*C"]  # of the choice's least likely token


def encode_choices(tokenizer: Tokenizer, choices: Sequence[str]) -> list[list[int]]:
    """The tokens of each choice, as an answer is taught, without the end token.

    Raises:
        ValueError: the tokenizer cannot write a choice, or writes two alike.
    """
    known: dict[tuple[int, ...], str] = {}
    for choice in choices:
        tokens = tuple(tokenizer.encode(choice))
        if not tokens or tokenizer.unk_id in tokens:
            raise ValueError(f"choice {choice!r}: the tokenizer cannot write it")
        if (other := known.setdefault(tokens, choice)) is not choice:
            raise ValueError(f"choices {other!r} and {choice!r} are the same to the tokenizer")
    return [list(tokens) for tokens in known]


def tabulate(
    lists: Sequence[Sequence[Sequence[int]]], eos_id: int, most_nodes: int = NODES
) -> ChoiceTable:
    """Lays lists of choices out for `score_choices`; sizes are powers of two, to share programs.

    Args:
        lists: of choices, each its tokens without the end token, no two of a list the same.
        eos_id: the end token.
        most_nodes: of a group's trie; a choice of more tokens is a group of its own.
    """
    grouped = [_grouped(choices, most_nodes) for choices in lists]
    tries = [[_Trie(choices, eos_id) for choices in groups] for groups in grouped]
    every = [trie for own in tries for trie in own]
    lists_, groups = _size(len(lists)), _size(max(map(len, tries)))
    nodes = _size(max(len(trie.tokens) for trie in every), 8)
    first = _size(max(len(trie.children[-1]) for trie in every), 8)
    children = _size(max(len(own) for trie in every for own in trie.children[:-1]))
    count = _size(max(len(trie.choices) for trie in every), 8)
    length = _size(max(len(choice) + 1 for trie in every for choice in trie.choices))
    size = (lists_, groups)
    table = ChoiceTable(
        np.zeros((*size, nodes), np.int32),
        np.zeros((*size, nodes), np.int32),
        np.broadcast_to(np.eye(nodes, dtype=bool), (*size, nodes, nodes)).copy(),
        np.zeros((*size, first), np.int32),
        np.zeros((*size, nodes, children), np.int32),
        np.full((*size, count, length), first + nodes * children, np.int32),
    )
    for u, own in enumerate(tries):
        for g, trie in enumerate(own):
            at = (u, g)
            table.tokens[at][: len(trie.tokens)] = trie.tokens
            table.depth[at][: len(trie.depth)] = trie.depth
            for node, parent in enumerate(trie.parents):
                if parent >= 0:
                    table.visible[at][node] |= table.visible[at][parent]
            table.first[at][: len(trie.children[-1])] = list(trie.children[-1])
            for node, tokens in enumerate(trie.children[:-1]):
                table.children[at][node, : len(tokens)] = list(tokens)
            for number, path in enumerate(trie.paths):
                table.paths[at][number, : len(path)] = [
                    slot if node < 0 else first + node * children + slot for node, slot in path
                ]
    return table


def columns_of(
    choices: Sequence[Sequence[int]], table: ChoiceTable, most_nodes: int = NODES
) -> NDArray[np.intp]:
    """Which columns of `ChoiceScores` are those of a list's choices, in the list's order."""
    width = table.paths.shape[2]
    found = {
        tuple(choice): group * width + place
        for group, own in enumerate(_grouped(choices, most_nodes))
        for place, choice in enumerate(own)
    }
    return np.array([found[tuple(choice)] for choice in choices])


@partial(jax.jit, static_argnames=("network", "slices"))
def score_choices(
    network: Network,
    params: Any,
    image_tokens: Float[Array, "B P D"],
    prompt: Int[Array, "B T"],
    prompt_mask: Bool[Array, "B T"],
    which: Int[Array, " B"],
    table: ChoiceTable,
    *,
    slices: int = 1,
) -> ChoiceScores:
    """How likely each choice is as the answer to each prompt.

    A prompt is read once. The nodes of its list's trie are then read side by side, each seeing
    image, prompt and its ancestors, at the position that it has in its choices: what each predicts
    is what it would predict if its choice were read alone.

    Args:
        network, params: the model; params without the top-level `params` key.
        image_tokens: as `Network.encode_images` gives them.
        prompt: padded on the right.
        prompt_mask: True where `prompt` holds a token.
        which: the list of each row.
        table: of the lists.
        slices: of the batch, which are taken one after the other, as `sliced`.
    """

    def score(*rows: Shaped[Array, "b ..."]) -> ChoiceScores:
        *asked, which = rows
        logits, cache = apply(network, params, "prefill", *asked)
        root = jax.nn.log_softmax(logits)
        seen = jnp.concatenate([jnp.ones(asked[0].shape[:2], bool), asked[2]], axis=1)
        cache = jax.tree.map(
            lambda x: jnp.pad(x, [(0, 0), (0, table.nodes), (0, 0), (0, 0)]), cache
        )

        def group(number: Int[Array, ""] | int) -> ChoiceScores:
            own = ChoiceTable(*(jnp.asarray(x)[which, number] for x in table))
            batch, nodes = own.tokens.shape
            before = jnp.broadcast_to(seen[:, None], (batch, nodes, seen.shape[1]))
            hidden = apply(
                *(network, params, "extend", own.tokens),
                seen.sum(axis=1)[:, None] + own.depth,
                *(jnp.concatenate([before, own.visible], axis=2), cache, seen.shape[1]),
            )
            first = jnp.take_along_axis(root, own.first, axis=1)
            steps = _child_logprobs(network, params, hidden, own.children)
            none = jnp.zeros((batch, 1))
            flat = jnp.concatenate([first, steps.reshape(batch, -1), none], axis=1)
            paths = own.paths.reshape(batch, -1)
            taken = jnp.take_along_axis(flat, paths, axis=1).reshape(own.paths.shape)
            return ChoiceScores(taken.sum(-1), taken.min(-1))

        groups = table.tokens.shape[1]
        if groups == 1:
            return group(0)
        scores: ChoiceScores = jax.lax.map(group, jnp.arange(groups))  # [G, b, C]
        # [b, G x C]
        return ChoiceScores(*(jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1) for x in scores))

    return sliced(score, slices, image_tokens, prompt, prompt_mask, which)


def _child_logprobs(
    network: Network,
    params: Any,
    hidden: Float[Array, "B N D"],
    children: Int[Array, "B N E"],
) -> Float32[Array, "B N E"]:
    """Log-probabilities of the children, of hidden states; some nodes at a time."""
    batch, nodes, _ = hidden.shape
    size = max(1, min(nodes, CHOICE_NODES // batch))

    def some(block: tuple[jax.Array, jax.Array]) -> jax.Array:
        states, tokens = block
        logits = apply(network, params, "score", states)
        chosen = jnp.take_along_axis(logits, tokens, axis=2)
        return chosen - jax.nn.logsumexp(logits, axis=2, keepdims=True)

    if size == nodes:
        return some((hidden, children))

    def blocks(x: jax.Array) -> jax.Array:
        padded = jnp.pad(x, ((0, 0), (0, -nodes % size), (0, 0)))
        return jnp.moveaxis(padded.reshape(batch, -1, size, x.shape[2]), 1, 0)

    steps = jax.lax.map(some, (blocks(hidden), blocks(children)))
    return jnp.moveaxis(steps, 0, 1).reshape(batch, -1, children.shape[2])[:, :nodes]


class _Trie:
    """A trie of choices; node -1 is the root, and `children[-1]` are its."""

    def __init__(self, choices: Sequence[Sequence[int]], eos_id: int) -> None:
        self.choices = choices
        self.tokens: list[int] = []
        self.depth: list[int] = []
        self.parents: list[int] = []
        self.paths: list[list[tuple[int, int]]] = []
        """Of each choice: node after node, and which of its children comes next."""
        below: dict[int, dict[int, int]] = {-1: {}}
        """Of each node: its children's places among them, by their tokens."""
        nodes: dict[tuple[int, int], int] = {}
        for choice in choices:
            node, path = -1, []
            for depth, token in enumerate(choice):
                path.append((node, below[node].setdefault(token, len(below[node]))))
                if (node, token) not in nodes:
                    nodes[node, token] = len(self.tokens)
                    below[len(self.tokens)] = {}
                    self.tokens.append(token)
                    self.depth.append(depth)
                    self.parents.append(node)
                node = nodes[node, token]
            path.append((node, below[node].setdefault(eos_id, len(below[node]))))
            self.paths.append(path)
        self.children = [tuple(below[node]) for node in [*range(len(self.tokens)), -1]]


def _grouped(choices: Sequence[Sequence[int]], most_nodes: int) -> list[list[Sequence[int]]]:
    """The choices in groups whose tries have few enough nodes, those that begin alike together."""
    ordered = sorted(choices, key=tuple)
    groups, nodes = [[ordered[0]]], len(ordered[0])
    for before, choice in pairwise(ordered):
        shared = next(
            (n for n, (a, b) in enumerate(zip(before, choice, strict=False)) if a != b),
            min(len(before), len(choice)),
        )
        if nodes + len(choice) - shared > most_nodes:
            groups.append([])
            nodes = shared
        groups[-1].append(choice)
        nodes += len(choice) - shared
    return groups


def _size(count: int, least: int = 1) -> int:
    """The next power of two."""
    return max(least, 1 << (count - 1).bit_length())
