"""Closed detection in an annotation run: which tokens the answers to prompts may have."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from paliflow.configs.prompts import task_of
from paliflow.jobs.annotate.questions import Question
from paliflow.model import Tokenizer
from paliflow.model.closed import Grammar, closed_boxes

_Form = tuple[tuple[str, ...], bool]
_KEPT = 64


class Grammars:
    """The grammars of closed questions; those of the last device batches are kept."""

    def __init__(self, tokenizer: Tokenizer, max_new_tokens: int) -> None:
        """The tokenizer is the model's."""
        self._tokenizer, self._max_new_tokens = tokenizer, max_new_tokens
        self._of = lru_cache(_KEPT)(self._made)

    def require(self, question: Question) -> None:
        """
        Raises:
            ValueError: the question names no label, or one that the tokenizer cannot write or that
                `max_new_tokens` has no room for.
        """
        self._of((_form(question),))

    def options(
        self, asked: Sequence[Question], prompts: Sequence[list[int] | ValueError], rows: int
    ) -> dict[str, Any]:
        """The options of `generate_from_tokens` for a device batch.

        Args:
            asked: closed questions.
            prompts: the tokens of each, or why it is not asked; at least one is.
            rows: of the device batch; those of no question are like another's.
        """
        forms = [
            _form(question) if isinstance(tokens, list) else None
            for question, tokens in zip(asked, prompts, strict=True)
        ]
        distinct = tuple(dict.fromkeys(form for form in forms if form))
        grammar, begins = self._of(distinct)
        places = [begins[distinct.index(form)] if form else begins[0] for form in forms]
        begins_of_rows = places + begins[:1] * (rows - len(places))
        return {"grammar": grammar, "begins": np.array(begins_of_rows, np.int32)}

    def _made(self, forms: tuple[_Form, ...]) -> tuple[Grammar, list[int]]:
        labels, masks = zip(*forms, strict=True)
        return closed_boxes(self._tokenizer, labels, masks, self._max_new_tokens)


def _form(question: Question) -> _Form:
    return question.labels or (), task_of(question.prompt) == "segment"
