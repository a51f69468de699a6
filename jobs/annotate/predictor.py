"""Asks a batch of inputs its prompts: dispatched at once, answered as rows when wanted."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.errors import JaxRuntimeError
from numpy.typing import NDArray

from paliflow.configs import AnnotateSpec, Sampling
from paliflow.configs.prompts import misspelt_task, task_of
from paliflow.jobs.annotate.rows import answer_row, error_row
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
    """One device batch: whose image, which prompt, its tokens or why there are none."""

    inputs: list[int]
    prompts: list[str]
    tokens: list[list[int] | ValueError]
    generation: Generation | None


@dataclass(frozen=True)
class PendingBatch:
    """A batch that the device is working on."""

    asker: "Predictor"
    batch: Sequence[Input]
    place: tuple[int, ...]
    width: int
    chunks: list[_Chunk]

    def wait(self) -> None:
        """Waits until the device is done with it.

        Raises:
            JaxRuntimeError: the device failed, as `rows` finds out again.
        """
        jax.block_until_ready([chunk.generation for chunk in self.chunks])

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
        rows: list[list[dict[str, Any]]] = [[] for _ in self.batch]
        for chunk in self.chunks:
            answers = chunk.generation and [np.asarray(each) for each in chunk.generation]
            asked = zip(chunk.inputs, chunk.prompts, chunk.tokens, strict=True)
            for place, (number, prompt, tokens) in enumerate(asked):
                source = self.batch[number]
                if isinstance(tokens, ValueError) and not source.error:
                    row = error_row(source, prompt, f"prompt: {tokens}")
                elif answers is None or source.pixels is None:
                    row = error_row(source, prompt, source.error or "not asked")
                else:
                    row = self.asker.row(source, prompt, answers, place)
                rows[number].append(row)
        return rows


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
            ValueError: one of the spec's prompts is too long, or the device too small for a row.
        """
        self._model, self._tokenizer, self._mask_decoder = model, tokenizer, mask_decoder
        self._spec, self._sampler = spec, _sampler(spec.sampling)
        # Asked in every batch, tokenized once.
        self._known = {prompt: self._encode(prompt) for prompt in spec.prompts}
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
        prompts = [source.item.prompts or self._spec.prompts for source in batch]
        pairs = [
            (number, own[turn])
            for turn in range(max(map(len, prompts), default=0))
            for number, own in enumerate(prompts)
            if turn < len(own)
        ]
        chunks = []
        for start in range(0, len(pairs), width):
            inputs, texts = map(list, zip(*pairs[start : start + width], strict=True))
            tokens = [self._try_encode(text) for text in texts]
            seed = _seed(self._spec.seed, *place, start)
            generation = self._generate(image_tokens, inputs, tokens, seed, width)
            chunks.append(_Chunk(inputs, texts, tokens, generation))
        return PendingBatch(self, batch, place, width, chunks)

    def row(
        self, source: Input, prompt: str, answers: Sequence[NDArray[Any]], place: int
    ) -> dict[str, Any]:
        """The row of one answer.

        Args:
            source: what was read.
            prompt: what was asked about it.
            answers: the fields of a device batch's `Generation`.
            place: the answer's row there.
        """
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
        )

    def _generate(
        self,
        image_tokens: Any,
        inputs: list[int],
        tokens: list[list[int] | ValueError],
        seed: int,
        width: int,
    ) -> Generation | None:
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
        if inputs != list(range(len(image_tokens))):
            image_tokens = image_tokens[np.array(inputs + [0] * (width - len(inputs)))]
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

    def _try_encode(self, prompt: str) -> list[int] | ValueError:
        try:
            return self._known.get(prompt) or self._encode(prompt)
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
