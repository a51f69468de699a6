"""Fixed choices in an annotation run: lists of texts to a model's tables, its scores to answers."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paliflow.jobs.annotate.questions import Question
from paliflow.jobs.annotate.rows import answer_row
from paliflow.jobs.media.reading import Input
from paliflow.model import PaliGemma, Tokenizer
from paliflow.model.choices import (
    ChoiceScores,
    ChoiceTable,
    columns_of,
    encode_choices,
    tabulate,
)

Choices = tuple[str, ...]
_LISTS = 4096
"""Whose tokens are kept: rows may each have a list of their own."""
_TABLES = 16


class Chosen(NamedTuple):
    """The likeliest of some choices, and all of them."""

    text: str
    logprob: float
    """Of the likeliest as the whole answer, before normalising."""
    min_logprob: float
    """Of its least likely token."""
    token_count: int
    choices: list[dict[str, Any]]
    """Labels and probabilities, the likeliest first; all add up to 1."""
    mass: float
    """What all choices have together of the probability of any answer."""


class PendingChoices(NamedTuple):
    """Scores that the device is working on."""

    lists: Sequence[Choices]
    """Of each row."""
    columns: dict[Choices, NDArray[np.intp]]
    lengths: dict[Choices, list[int]]
    scores: ChoiceScores

    def chosen(self, top: Sequence[int | None]) -> list[Chosen]:
        """Waits for the scores; of each row, at most so many of its choices are kept."""
        logprobs = np.asarray(self.scores.logprob, np.float64)
        least = np.asarray(self.scores.least)
        answers = []
        for row, (choices, most) in enumerate(zip(self.lists, top, strict=True)):
            own = logprobs[row, self.columns[choices]]
            shares = np.exp(own - own.max())
            mass = float(np.exp(own.max()) * shares.sum())
            shares /= shares.sum()
            order = np.argsort(-own, kind="stable")
            best = int(order[0])
            kept = [
                {"label": choices[place], "probability": float(shares[place])}
                for place in order[:most]
            ]
            length = self.lengths[choices][best]
            lowest = float(least[row, self.columns[choices][best]])
            answers.append(
                Chosen(choices[best], float(own[best]), lowest, length, kept, min(mass, 1.0))
            )
        return answers


class Chooser:
    """Has a model say how likely each of some choices is."""

    def __init__(self, model: PaliGemma, tokenizer: Tokenizer) -> None:
        """Tokens of lists and tables of tokens are kept for the next batch."""
        self._model, self._tokenizer = model, tokenizer
        self.tokens = lru_cache(_LISTS)(self._tokens)
        self._table = lru_cache(_TABLES)(self._tabulated)

    def _tokens(self, choices: Choices) -> list[list[int]]:
        return encode_choices(self._tokenizer, choices)

    def _tabulated(self, lists: tuple[Choices, ...]) -> tuple[ChoiceTable, list[NDArray[np.intp]]]:
        tokens = [self.tokens(choices) for choices in lists]
        table = tabulate(tokens, self._tokenizer.eos_id)
        return table, [columns_of(own, table) for own in tokens]

    def ask(
        self,
        image_tokens: Any,
        prompt: NDArray[np.int32],
        prompt_mask: NDArray[np.bool_],
        lists: Sequence[Choices],
    ) -> PendingChoices:
        """Dispatches a device batch.

        Args:
            image_tokens, prompt, prompt_mask: as `PaliGemma.score_choices` takes them.
            lists: the choices of each row that has a prompt; others may follow.

        Raises:
            ValueError: as `encode_choices`.
        """
        distinct = tuple(dict.fromkeys(lists))
        table, columns = self._table(distinct)
        which = np.zeros(len(prompt), np.int32)
        which[: len(lists)] = [distinct.index(choices) for choices in lists]
        scores = self._model.score_choices(image_tokens, prompt, prompt_mask, table, which)
        lengths = {choices: [len(own) + 1 for own in self.tokens(choices)] for choices in distinct}
        return PendingChoices(lists, dict(zip(distinct, columns, strict=True)), lengths, scores)


def chosen_row(source: Input, question: Question, chosen: Chosen) -> dict[str, Any]:
    """The row of an answer that is one of some choices."""
    return answer_row(
        *(source, question.prompt, chosen.text, None),
        logprob=chosen.logprob,
        min_logprob=chosen.min_logprob,
        token_count=chosen.token_count,
        finished=True,
        name=question.name,
        choices=chosen.choices,
        choices_mass=chosen.mass,
    )
