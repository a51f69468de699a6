"""Prompts as tokens: encoded once, padded so that runs share compiled programs."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paliflow.configs.prompts import misspelt_task
from paliflow.model import Tokenizer

_BUCKET = 8
"""Prompts are padded to a multiple of this many tokens."""


def padded_length(tokens: int) -> int:
    """Returns how many tokens a prompt is padded to."""
    return -(-tokens // _BUCKET) * _BUCKET


class PromptEncoder:
    """Turns prompts into tokens; those that are asked in every batch are tokenized once."""

    def __init__(self, tokenizer: Tokenizer, prompts: Sequence[str], max_tokens: int) -> None:
        """
        Args:
            tokenizer: the model's.
            prompts: those that are asked in every batch.
            max_tokens: of a prompt.

        Raises:
            ValueError: one of the prompts is too long.
        """
        self._tokenizer, self._max_tokens = tokenizer, max_tokens
        self._known = {prompt: self._encode(prompt) for prompt in prompts}
        lengths = [padded_length(len(tokens)) for tokens in self._known.values()]
        self._length = max(lengths, default=0)
        self.length = self._length or max_tokens
        """Tokens that prompts are padded to; where no prompts are known, at most."""

    def encode(self, prompt: str) -> list[int] | ValueError:
        """Returns the tokens of a prompt, or why it cannot be asked."""
        try:
            return self._known.get(prompt) or self._encode(prompt)
        except ValueError as error:
            return error

    def pad(
        self, prompts: Sequence[list[int] | ValueError], rows: int
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Returns tokens and mask [rows, T]; of errors and beyond the prompts, no prompt."""
        asked = [tokens for tokens in prompts if not isinstance(tokens, ValueError)]
        length = max([self._length, *(padded_length(len(tokens)) for tokens in asked)])
        ids = np.full((rows, length), self._tokenizer.pad_id, np.int32)
        mask = np.zeros((rows, length), bool)
        mask[:, 0] = True  # a row without a prompt attends to something, too
        for row, tokens in enumerate(prompts):
            if not isinstance(tokens, ValueError):
                ids[row, : len(tokens)] = tokens
                mask[row, : len(tokens)] = True
        return ids, mask

    def _encode(self, prompt: str) -> list[int]:
        if not prompt:
            raise ValueError("the row gives none")
        if said := misspelt_task(prompt):
            raise ValueError(said)
        return self._tokenizer.encode_prompt(prompt, self._max_tokens)
