"""Training examples as token rows and masks: which tokens see each other, which are learnt."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paliflow.model.tokenizer import Tokenizer


class Texts(NamedTuple):
    """Prefix-suffix pairs as arrays, big_vision's masks-as-data."""

    text: NDArray[np.int32]  # [B, T]
    mask_ar: NDArray[np.int32]  # [B, T]; 0 for the prefix, 1 for suffix and padding
    mask_loss: NDArray[np.int32]  # [B, T]; 1 for the suffix and its EOS


def encode_examples(
    tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], length: int, *, truncate: bool = False
) -> Texts:
    """Encodes (prefix, suffix) pairs as BOS prefix newline suffix EOS, padded to `length`.

    Args:
        tokenizer: the model's.
        pairs: of an empty suffix, EOS is all that is learnt.
        length: tokens of each row.
        truncate: cut what is longer on the right, as big_vision does, so that the suffix lacks its
            EOS, which teaches the model never to stop.

    Raises:
        ValueError: an example needs more than `length` tokens, or its prefix alone does.
    """
    text = np.full((len(pairs), length), tokenizer.pad_id, np.int32)
    mask_ar = np.ones_like(text)
    mask_loss = np.zeros_like(text)
    for row, (prefix, suffix) in enumerate(pairs):
        prompt = tokenizer.encode_prompt(prefix, length)
        ids = [*prompt, *tokenizer.encode(suffix), tokenizer.eos_id]
        if len(ids) > length and not (truncate and len(prompt) < length):
            raise ValueError(
                f"example of {len(ids)} tokens is longer than {length}: {prefix!r} -> {suffix!r}"
            )
        ids = ids[:length]
        text[row, : len(ids)] = ids
        mask_ar[row, : len(prompt)] = 0
        mask_loss[row, len(prompt) : len(ids)] = 1
    return Texts(text, mask_ar, mask_loss)
