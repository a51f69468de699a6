"""Asks a batch of inputs its prompts: dispatched at once, answered as rows when wanted."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.errors import JaxRuntimeError

from paliflow.configs import AnnotateSpec, Sampling
from paliflow.jobs.annotate.answers import AnswerReader, DeviceBatch, PendingBatch, Row
from paliflow.jobs.annotate.choosing import Chooser, PendingChoices
from paliflow.jobs.annotate.closing import Grammars
from paliflow.jobs.annotate.prompts import PromptEncoder
from paliflow.jobs.annotate.questions import Question, questions
from paliflow.jobs.confidence.filling import Confidences
from paliflow.jobs.fleet.accelerators import out_of_memory
from paliflow.jobs.fleet.stages import Stage
from paliflow.jobs.media.reading import Input
from paliflow.jobs.runs.plan import Item
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
)
from paliflow.model.batch_size import fitting_batch

_ImageTokens = jax.Array  # [N, tokens of an image or clip, D]
Repeat = Callable[[Sequence[Input], tuple[int, ...], int], None]
"""Has other processes call `dispatch` with the same arguments."""
Watch = Callable[[Stage, Any], None]
"""Is told of each program that the device was given, in its order: the stage, and the results."""


class Predictor:
    """A model with its tokenizer, and how a spec wants it asked."""

    def __init__(
        self,
        model: PaliGemma,
        tokenizer: Tokenizer,
        mask_decoder: MaskDecoder | None,
        spec: AnnotateSpec,
        confidences: Confidences | None = None,
        repeat: Repeat | None = None,
        watch: Watch = lambda stage, results: None,
    ) -> None:
        """
        Args:
            model, tokenizer, mask_decoder: as loaded.
            spec: the run's.
            confidences: fill the columns of confidence; without them, they are null.
            repeat: where the model's devices are of several processes, tells the others what is
                dispatched, in its order.
            watch: may wait for what the device does.

        Raises:
            ValueError: one of the spec's prompts is too long, its choices or labels cannot be
                written, or the device is too small for a row.
        """
        self._model, self._eos_id = model, tokenizer.eos_id
        self._spec, self._sampler = spec, _sampler(spec.sampling)
        self._repeat, self._watch, self._order = repeat, watch, threading.Lock()
        self._under_way = deque[Any]()  # arrays; their stubs know no `is_ready`
        self._prompts = PromptEncoder(tokenizer, spec.texts, spec.max_prompt_tokens)
        self._answers = AnswerReader(tokenizer, mask_decoder, confidences)
        self._chooser = Chooser(model, tokenizer)
        self._grammars = Grammars(tokenizer, spec.max_new_tokens)
        for question in questions(Item(""), spec):
            if "{" not in question.prompt:  # of a manifest's rows, each is known when it comes
                self._require(question)
        fitting = fitting_batch(model, spec, self._prompts.length)
        self.batch_size, self.memory, self._caches = fitting
        self._notes: list[tuple[str, str]] = []

    @property
    def notes(self) -> tuple[tuple[str, str], ...]:
        """What became known of the device since, as `ShardResult.notes`."""
        return tuple(self._notes)

    def ask(self, inputs: Sequence[Input], place: tuple[int, ...]) -> PendingBatch:
        """Dispatches every prompt of every input; the vision tower sees each image once.

        Prompts and images are paired up and cut into device batches, so that inputs may have
        different numbers of prompts.

        Args:
            inputs: `batch_size` of them fill the device.
            place: of these inputs in the run; it and the spec's seed decide what is sampled.
        """
        while True:
            batch_size = self.batch_size
            try:
                with self._order:
                    if self._repeat:
                        asked = [Input(each.item, pixels=each.pixels) for each in inputs]
                        self._repeat(asked, place, batch_size)
                    return self.dispatch(inputs, place, batch_size)
            except JaxRuntimeError as error:
                self._shrink(batch_size, error)

    def collect(self, pending: PendingBatch) -> list[list[Row]]:
        """Waits for the answers: the rows of each input, in its prompts' order.

        Where the device's memory ran out, asks again with half as many rows at a time.
        """
        while True:
            try:
                return self._answers.rows(pending)
            except JaxRuntimeError as error:
                self._shrink(pending.batch_size, error)
                pending = self.ask(pending.inputs, pending.place)

    def _shrink(self, batch_size: int, error: JaxRuntimeError) -> None:
        """Halves the batch size, if memory ran out with this one and nobody did so since.

        Raises:
            JaxRuntimeError: the error given, if it is another, or the batch is one row.
        """
        if not out_of_memory(error) or batch_size == 1:
            raise error
        if batch_size == self.batch_size:
            self.batch_size, self._caches = batch_size // 2, 1
            said = f"the device's memory ran out with {batch_size} rows at a time"
            self._notes.append((f"batch {self.batch_size}", f"{said}; now {self.batch_size}"))

    def dispatch(
        self, inputs: Sequence[Input], place: tuple[int, ...], batch_size: int
    ) -> PendingBatch:
        """As `ask`, with so many rows at a time; whatever is dispatched follows from the arguments.

        Raises:
            JaxRuntimeError: the device failed.
        """
        image_tokens = self._encode_images(inputs, batch_size)
        pairs = list(_pairs([questions(source.item, self._spec) for source in inputs]))
        batches = []
        # Answers in words, closed detections, choices: each with a program of its own.
        for kind in ("free", "closed", "choices"):
            alike = [pair for pair in pairs if _kind(pair[1]) == kind]
            for start in range(0, len(alike), batch_size):
                places, asked = map(list, zip(*alike[start : start + batch_size], strict=True))
                tokens = [self._encode(question) for question in asked]
                seed = _seed(self._spec.seed, *place, start)
                answers: Generation | PendingChoices | None = None
                if image_tokens is not None and not all(isinstance(t, ValueError) for t in tokens):
                    numbers = [number for number, _ in places]
                    images = _images_of_rows(image_tokens, numbers, batch_size)
                    if kind == "choices":
                        answers = self._choose(images, asked, tokens)
                    else:
                        closed = (
                            self._grammars.options(asked, tokens, batch_size)
                            if kind == "closed"
                            else {}
                        )
                        answers = self._generate(images, tokens, seed, **closed)
                batches.append(DeviceBatch(places, asked, tokens, answers))
        return PendingBatch(inputs, place, batch_size, batches)

    def _encode(self, question: Question) -> list[int] | ValueError:
        """The tokens of a question's prompt, or why it cannot be asked."""
        if question.error:
            return ValueError(question.error)
        try:
            self._require(question)
        except ValueError as error:
            return error
        return self._prompts.encode(question.prompt)

    def _require(self, question: Question) -> None:
        """
        Raises:
            ValueError: its choices or labels cannot be written.
        """
        if question.choices:
            self._chooser.tokens(question.choices)
        if question.labels is not None:
            self._grammars.require(question)

    def _encode_images(self, inputs: Sequence[Input], batch_size: int) -> _ImageTokens | None:
        """Encodes the inputs' pixels, `batch_size` at a time; None if there are none at all."""
        if all(source.pixels is None for source in inputs):
            return None
        size, video = self._model.config.image_size, self._spec.video
        frames = (video.clip.frames,) if video and video.clip else ()
        pieces = -(-len(inputs) // batch_size)
        images = np.zeros((pieces * batch_size, *frames, size, size, 3), np.uint8)
        for image, source in zip(images, inputs, strict=False):
            if source.pixels is not None:
                np.copyto(image, source.pixels)
        encoded = [self._model.encode_images(piece) for piece in np.split(images, pieces)]
        self._watch("vision", encoded)
        return encoded[0] if pieces == 1 else jnp.concatenate(encoded)

    def _generate(
        self,
        image_tokens: _ImageTokens,
        prompts: list[list[int] | ValueError],
        seed: int,
        **closed: Any,
    ) -> Generation:
        """Dispatches a device batch, a row for each image, as soon as there is room for its cache.

        Args:
            image_tokens: of each row.
            prompts: the tokens of the first rows' prompts; of errors and of rows without a prompt
                the answers are not looked at.
            seed: of what is sampled.
            closed: from `Grammars.options`, if the answers are closed detections.
        """
        self._make_room()
        prefilled = self._model.prefill(
            *(image_tokens, *self._prompts.pad(prompts, len(image_tokens))),
            max_new_tokens=self._spec.max_new_tokens,
            int8_cache=self._spec.int8_cache,
            beams=self._spec.sampling.beams,
        )
        self._watch("prefill", prefilled.logits)
        answers = self._model.decode(
            prefilled,
            sampler=self._sampler,
            seed=seed,
            eos_id=self._eos_id,
            **closed,
        )
        self._under_way.append(answers.tokens)
        self._watch("decode", answers)
        return answers

    def _make_room(self) -> None:
        """Waits until there is room for a cache; what went wrong with another's batch is raised
        where that is collected."""
        answers = self._under_way
        while answers and (len(answers) >= self._caches or answers[0].is_ready()):
            with suppress(JaxRuntimeError):
                jax.block_until_ready(answers.popleft())

    def _choose(
        self,
        image_tokens: _ImageTokens,
        asked: list[Question],
        prompts: list[list[int] | ValueError],
    ) -> PendingChoices:
        """As `_generate`, of questions with choices; at least one prompt is no error."""
        lists = [
            question.choices or () if isinstance(tokens, list) else ()
            for question, tokens in zip(asked, prompts, strict=True)
        ]
        some = next(filter(None, lists))  # stands where a question is not asked
        ids, mask = self._prompts.pad(prompts, len(image_tokens))
        self._make_room()
        pending = self._chooser.ask(image_tokens, ids, mask, [own or some for own in lists])
        self._under_way.append(pending.scores.logprob)
        self._watch("prefill", pending.scores)
        return pending


def _kind(question: Question) -> str:
    if question.labels is not None:
        return "closed"
    return "free" if question.choices is None else "choices"


def _pairs(asked: Sequence[Sequence[Question]]) -> Iterator[tuple[tuple[int, int], Question]]:
    """Every input's number, and its question's: the first questions of all, the second, ..."""
    for turn in range(max(map(len, asked), default=0)):
        for number, own in enumerate(asked):
            if turn < len(own):
                yield (number, turn), own[turn]


def _images_of_rows(images: _ImageTokens, numbers: list[int], rows: int) -> _ImageTokens:
    """The image that each row of a device batch is about; the first where a row has no prompt."""
    if numbers == list(range(len(images))):
        return images
    return images[np.array(numbers + [0] * (rows - len(numbers)))]


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
