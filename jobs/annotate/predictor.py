"""Asks a batch of inputs its prompts: dispatched at once, answered as rows when wanted."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.errors import JaxRuntimeError
from numpy.typing import NDArray

from paliflow.configs import AnnotateSpec, PromptSpec, Sampling
from paliflow.configs.prompts import misspelt_task, task_of
from paliflow.jobs.annotate.choosing import Chooser, PendingChoices
from paliflow.jobs.annotate.questions import Question, questions
from paliflow.jobs.annotate.rows import answer_row, chosen_row, error_row
from paliflow.jobs.media.reading import Input
from paliflow.model import (
    Generation,
    Greedy,
    MaskDecoder,
    Nucleus,
    PaliGemma,
    Sampler,
    Temperature,
    Tokenizer,
    TopK,
    parse_detections,
    score_detections,
)
from paliflow.model.batch_size import fitting_batch

PROMPT_BUCKET = 8
"""Prompts are padded to a multiple of this many tokens, so that runs share compiled programs."""

_OUT_OF_MEMORY = re.compile("RESOURCE_EXHAUSTED|out of memory", re.IGNORECASE)
"""In XLA's errors: the first where a program is sent off, the second where its result is due."""


@dataclass(frozen=True)
class _Chunk:
    """One device batch: which question of which input, its tokens or why there are none."""

    places: list[tuple[int, int]]
    """Of each row: the input, and the question's place among its own."""
    questions: list[Question]
    tokens: list[list[int] | ValueError]
    answers: Generation | PendingChoices | None


@dataclass(frozen=True)
class PendingBatch:
    """A batch that the device is working on."""

    asker: "Predictor"
    batch: Sequence[Input]
    place: tuple[int, ...]
    width: int
    chunks: list[_Chunk]
    at: float
    """When it was dispatched, by `time.monotonic`."""

    def rows(self) -> list[list[dict[str, Any]]]:
        """Waits for the answers: the rows of each input of the batch, in its prompts' order.

        Where the device's memory ran out, asks again with half as many rows at a time.
        """
        try:
            return self._rows()
        except JaxRuntimeError as error:
            self.asker.shrink(self.width, error)
            return self.asker.ask(self.batch, self.place).rows()

    def _rows(self) -> list[list[dict[str, Any]]]:
        rows: dict[tuple[int, int], dict[str, Any]] = {}
        for chunk in self.chunks:
            answer = self.asker.answers(chunk)
            asked = zip(chunk.places, chunk.questions, chunk.tokens, strict=True)
            for row, (place, question, tokens) in enumerate(asked):
                source = self.batch[place[0]]
                if isinstance(tokens, ValueError) and not source.error:
                    error = f"prompt: {tokens}"
                elif answer is None or source.pixels is None:
                    error = source.error or "not asked"
                else:
                    rows[place] = answer(source, row)
                    continue
                rows[place] = error_row(source, question.prompt, error, question.name)
        own: list[list[dict[str, Any]]] = [[] for _ in self.batch]
        for place in sorted(rows):
            own[place[0]].append(rows[place])
        return own


class Predictor:
    """A model with its tokenizer, and how a spec wants it asked."""

    def __init__(
        self,
        model: PaliGemma,
        tokenizer: Tokenizer,
        mask_decoder: MaskDecoder | None,
        spec: AnnotateSpec,
    ) -> None:
        """
        Raises:
            ValueError: one of the spec's prompts is too long, the tokenizer cannot write a choice,
                or the device is too small for a row.
        """
        self._model, self._tokenizer, self._mask_decoder = model, tokenizer, mask_decoder
        self._spec, self._sampler = spec, _sampler(spec.sampling)
        self._chooser = Chooser(model, tokenizer)
        # Asked in every batch, tokenized once.
        self._known = {prompt: self._encode(prompt) for prompt in spec.texts}
        for prompt in spec.prompts:
            if isinstance(prompt, PromptSpec) and prompt.choices:
                self._chooser.tokens(prompt.choices)
        self._length = max(map(self._padded, self._known.values()), default=0)
        # Where a manifest has the prompts, the longest that it may ask.
        self.width, self.memory = fitting_batch(model, spec, self._length or spec.max_prompt_tokens)
        self.notes: list[tuple[str, str]] = []

    def ask(self, batch: Sequence[Input], place: tuple[int, ...]) -> PendingBatch:
        """Dispatches every prompt of every input; the vision tower sees each image once.

        Prompts and images are paired up and cut into device batches, so that inputs may have
        different numbers of prompts.

        Args:
            batch: inputs; `width` of them fill the device.
            place: of the batch in the run; it and the spec's seed decide what is sampled.
        """
        while True:
            width = self.width
            try:
                return self._ask(batch, place, width)
            except JaxRuntimeError as error:
                self.shrink(width, error)

    def shrink(self, width: int, error: JaxRuntimeError) -> None:
        """Halves the device batch, if its memory ran out with this one and nobody did so since.

        Raises:
            JaxRuntimeError: the error given, if it is another, or the batch is one row.
        """
        if not _OUT_OF_MEMORY.search(str(error)) or width == 1:
            raise error
        if width == self.width:
            self.width = width // 2
            said = f"the device's memory ran out with {width} rows at a time; now {self.width}"
            self.notes.append((f"batch {self.width}", said))

    def _ask(self, batch: Sequence[Input], place: tuple[int, ...], width: int) -> PendingBatch:
        asked_at = time.monotonic()
        size = self._model.config.image_size
        video = self._spec.video
        frames = (video.clip.frames,) if video and video.clip else ()
        pieces = -(-len(batch) // width)
        images = np.zeros((pieces * width, *frames, size, size, 3), np.float32)
        for image, source in zip(images, batch, strict=False):
            if source.pixels is not None:
                image[:] = source.pixels
        readable = any(source.pixels is not None for source in batch)
        image_tokens = None
        if readable:
            encoded = [self._model.encode_images(piece) for piece in np.split(images, pieces)]
            image_tokens = encoded[0] if pieces == 1 else jnp.concatenate(encoded)
        asked = [questions(source.item, self._spec) for source in batch]
        pairs = [
            ((number, turn), own[turn])
            for turn in range(max(map(len, asked), default=0))
            for number, own in enumerate(asked)
            if turn < len(own)
        ]
        chunks = []
        # Answers in words, then those that are choices: two programs, one vision tower.
        for fixed in (False, True):
            alike = [pair for pair in pairs if (pair[1].choices is not None) == fixed]
            for start in range(0, len(alike), width):
                places, own = map(list, zip(*alike[start : start + width], strict=True))
                tokens = [self._try_encode(question) for question in own]
                seed = _seed(self._spec.seed, *place, start)
                answers = self._answer(image_tokens, places, own, tokens, seed, width)
                chunks.append(_Chunk(places, own, tokens, answers))
        return PendingBatch(self, batch, place, width, chunks, asked_at)

    def answers(self, chunk: _Chunk) -> Callable[[Input, int], dict[str, Any]] | None:
        """Waits for a device batch: what makes a row of an input and the answer's row there."""
        if chunk.answers is None:
            return None
        asked = chunk.questions
        if isinstance(chunk.answers, PendingChoices):
            chosen = chunk.answers.chosen([question.top_choices for question in asked])
            return lambda source, row: chosen_row(source, asked[row], chosen[row])
        generation = [np.asarray(each) for each in chunk.answers]
        return lambda source, row: self._row(source, asked[row], generation, row)

    def _row(
        self, source: Input, question: Question, answers: Sequence[NDArray[Any]], place: int
    ) -> dict[str, Any]:
        """The row of one answer.

        Args:
            source: what was read.
            question: what was asked about it.
            answers: the fields of a device batch's `Generation`.
            place: the answer's row there.
        """
        prompt = question.prompt
        tokens, logprobs, length, finished = (each[place].tolist() for each in answers)
        ids = tokens[: length - finished]  # without the end token
        text = self._tokenizer.decode(ids)
        detections = None
        if task_of(prompt) in ("detect", "segment"):
            assert source.width is not None
            assert source.height is not None
            found = parse_detections(text, source.width, source.height, self._mask_decoder)
            offsets = self._tokenizer.offsets(ids)
            detections = score_detections(found, offsets, logprobs[: len(ids)])
        return answer_row(
            *(source, prompt, text, detections),
            logprob=sum(logprobs),
            token_count=length,
            finished=finished,
            name=question.name,
        )

    def _answer(
        self,
        image_tokens: Any,
        places: list[tuple[int, int]],
        own: list[Question],
        tokens: list[list[int] | ValueError],
        seed: int,
        width: int,
    ) -> Generation | PendingChoices | None:
        asked = [ids for ids in tokens if not isinstance(ids, ValueError)]
        if image_tokens is None or not asked:
            return None
        length = max(self._length, *map(self._padded, asked))
        ids = np.full((width, length), self._tokenizer.pad_id, np.int32)
        mask = np.zeros((width, length), bool)
        mask[:, 0] = True  # a row without a prompt attends to something, too
        for row, known in enumerate(tokens):
            if not isinstance(known, ValueError):
                ids[row, : len(known)] = known
                mask[row, : len(known)] = True
        inputs = [number for number, _ in places]
        if inputs != list(range(len(image_tokens))):
            image_tokens = image_tokens[np.array(inputs + [0] * (width - len(inputs)))]
        lists = [
            None if isinstance(known, ValueError) else question.choices
            for question, known in zip(own, tokens, strict=True)
        ]
        if given := next(filter(None, lists), None):
            return self._chooser.ask(image_tokens, ids, mask, [each or given for each in lists])
        return self._model.generate_from_tokens(
            *(image_tokens, ids, mask),
            max_new_tokens=self._spec.max_new_tokens,
            sampler=self._sampler,
            seed=seed,
            eos_id=self._tokenizer.eos_id,
            int8_cache=self._spec.int8_cache,
        )

    def _encode(self, prompt: str) -> list[int]:
        if not prompt:
            raise ValueError("the row gives none")
        if said := misspelt_task(prompt):
            raise ValueError(said)
        return self._tokenizer.encode_prompt(prompt, self._spec.max_prompt_tokens)

    def _try_encode(self, question: Question) -> list[int] | ValueError:
        try:
            if question.error:
                raise ValueError(question.error)
            if question.choices:
                self._chooser.tokens(question.choices)
            return self._known.get(question.prompt) or self._encode(question.prompt)
        except ValueError as error:
            return error

    def _padded(self, tokens: list[int]) -> int:
        return -(-len(tokens) // PROMPT_BUCKET) * PROMPT_BUCKET


def _sampler(sampling: Sampling) -> Sampler:
    if sampling.top_k:
        return TopK(sampling.top_k, sampling.temperature)
    if sampling.top_p:
        return Nucleus(sampling.top_p, sampling.temperature)
    return Temperature(sampling.temperature) if sampling.temperature else Greedy()


def _seed(*parts: int) -> int:
    """One seed for each place in a run, whoever works there and when."""
    entropy = np.random.SeedSequence([part % 2**32 for part in parts])
    return int(entropy.generate_state(1)[0] >> 1)
