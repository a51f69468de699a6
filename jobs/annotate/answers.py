"""What the device has been asked, and the rows that its answers make."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paliflow.configs.prompts import task_of
from paliflow.jobs.annotate.choosing import PendingChoices, chosen_row
from paliflow.jobs.annotate.questions import Question
from paliflow.jobs.annotate.rows import answer_row, error_row
from paliflow.jobs.confidence.calibration import form_of
from paliflow.jobs.confidence.filling import Confidences
from paliflow.jobs.media.reading import Input
from paliflow.model import (
    Detection,
    Generation,
    MaskDecoder,
    Tokenizer,
    parse_detections,
    score_detections,
)

Row = dict[str, Any]


@dataclass(frozen=True)
class DeviceBatch:
    """Up to `batch_size` questions about images, and what the device makes of them."""

    places: list[tuple[int, int]]
    """Which input each question is about, by its place in `PendingBatch.inputs`; and which of that
    input's questions it is."""
    questions: list[Question]
    tokens: list[list[int] | ValueError]
    """Of each prompt, or why it is not asked."""
    answers: Generation | PendingChoices | None
    """A row for each question; None if none is asked."""


@dataclass(frozen=True)
class PendingBatch:
    """Inputs whose prompts are with the device."""

    inputs: Sequence[Input]
    place: tuple[int, ...]
    """In the run; see `Predictor.ask`."""
    batch_size: int
    """Rows of each device batch."""
    device_batches: list[DeviceBatch]


class AnswerReader:
    """Makes rows of the device's answers: their text, what it says of boxes, and how sure it is."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        mask_decoder: MaskDecoder | None,
        confidences: Confidences | None,
    ) -> None:
        """
        Args:
            tokenizer, mask_decoder: the model's.
            confidences: fill the columns of confidence; without them, they are null.
        """
        self._tokenizer, self._mask_decoder = tokenizer, mask_decoder
        self._confidences = confidences

    def rows(self, pending: PendingBatch) -> list[list[Row]]:
        """Waits for the answers: the rows of each input, in its prompts' order.

        Raises:
            JaxRuntimeError: the device failed.
        """
        found: dict[tuple[int, int], Row] = {}
        for batch in pending.device_batches:
            row_of = self._collected(batch)
            asked = zip(batch.places, batch.questions, batch.tokens, strict=True)
            for row, (place, question, tokens) in enumerate(asked):
                source = pending.inputs[place[0]]
                if isinstance(tokens, ValueError) and not source.error:
                    error = f"prompt: {tokens}"
                elif row_of is None or source.pixels is None:
                    error = source.error or "not asked"
                else:
                    found[place] = row_of(source, question, row)
                    if self._confidences:
                        form = form_of(question.choices, closed=question.labels is not None)
                        self._confidences.fill(found[place], form)
                    continue
                found[place] = error_row(source, question.prompt, error, question.name)
        rows: list[list[Row]] = [[] for _ in pending.inputs]
        for place in sorted(found):
            rows[place[0]].append(found[place])
        return rows

    def _collected(self, batch: DeviceBatch) -> Callable[[Input, Question, int], Row] | None:
        """Waits for a device batch; what makes the output's rows of its rows."""
        answers = batch.answers
        if answers is None:
            return None
        if isinstance(answers, PendingChoices):
            chosen = answers.chosen([question.top_choices for question in batch.questions])
            return lambda source, question, row: chosen_row(source, question, chosen[row])
        fields = [np.asarray(field) for field in answers]
        return lambda source, question, row: self._row(
            source, question, [field[row].tolist() for field in fields]
        )

    def _row(self, source: Input, question: Question, answer: Sequence[Any]) -> Row:
        """The row of one answer: a row of each field of `Generation`."""
        prompt = question.prompt
        tokens, logprobs, length, finished, nearby = answer
        ids = tokens[: length - finished]  # without the end token
        text = self._tokenizer.decode(ids)
        detections = None
        if task_of(prompt) in ("detect", "segment"):
            known = logprobs[: len(ids)], nearby[: len(ids)]
            detections = self._detections(source, text, ids, *known)
        return answer_row(
            *(source, prompt, text, detections),
            logprob=sum(logprobs),
            min_logprob=min(logprobs[:length], default=None),
            token_count=length,
            finished=finished,
            name=question.name,
        )

    def _detections(
        self,
        source: Input,
        text: str,
        ids: list[int],
        logprobs: list[float],
        nearby: list[float],
    ) -> list[Detection]:
        assert source.width is not None
        assert source.height is not None
        found = parse_detections(text, source.width, source.height, self._mask_decoder)
        return score_detections(found, self._tokenizer.offsets(ids), logprobs, nearby)
