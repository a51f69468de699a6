"""The actor: takes shards, reads ahead of the device, asks each prompt, commits parts."""

import posixpath
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from itertools import count, islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from paliflow.configs import AnnotateSpec, Sampling
from paliflow.configs.base import SpecError
from paliflow.jobs.driver import Done
from paliflow.jobs.plan import read_shard
from paliflow.jobs.reading import Input, read_input
from paliflow.jobs.rows import answer_row, error_row, task_of
from paliflow.jobs.sink import commit_part
from paliflow.model import (
    BUNDLED_CHECKPOINT,
    Generation,
    Greedy,
    MaskDecoder,
    Nucleus,
    PaliGemma,
    Sampler,
    Temperature,
    Tokenizer,
    TopK,
    checkpoint_sha256,
    local_copy,
    parse_detections,
    score_detections,
)

_T = TypeVar("_T")
_R = TypeVar("_R")
_READERS = 8
"""Threads that read and decode; Pillow and the storage client release the GIL."""
_BATCHES_AHEAD = 2
_PROMPT_BUCKET = 8
"""Prompts are padded to a multiple of this many tokens, so that runs share compiled programs."""


class Annotator:
    """One model on one host's devices. `load` comes first, then any number of shards."""

    def __init__(self, spec: AnnotateSpec, run: str) -> None:
        """Keeps the spec and the run's folder; fast, so that what can fail fails in `load`."""
        self._spec = spec
        self._run = run

    def load(self) -> None:
        """Loads the weights and tokenizes the prompts.

        Raises:
            SpecError: the checkpoint, the tokenizer or the mask decoder is missing or bad, or a
                prompt is too long.
        """
        spec = self._spec
        tokenizer, checkpoint = _tokenizer_of(spec), checkpoint_of(spec)
        with _loading("tokenizer", tokenizer), local_copy(tokenizer) as path:
            self._tokenizer = Tokenizer.from_file(path)
        with _loading("max_prompt_tokens", spec.max_prompt_tokens):
            encode = self._tokenizer.encode_prompt
            self._prompts = [encode(prompt, spec.max_prompt_tokens) for prompt in spec.prompts]
        overrides = spec.model_dump(include={"query_pre_attn_scalar"}, exclude_none=True)
        with _loading("checkpoint", checkpoint), local_copy(checkpoint) as path:
            sha256 = checkpoint_sha256(path)
            self._model = PaliGemma.from_checkpoint(path, dtype=spec.dtype, **overrides)
        self._mask_decoder = None
        if spec.mask_decoder:
            with _loading("mask_decoder", spec.mask_decoder):
                self._mask_decoder = MaskDecoder.from_checkpoint(spec.mask_decoder)
        longest = max(map(len, self._prompts))
        self._prompt_length = -(-longest // _PROMPT_BUCKET) * _PROMPT_BUCKET
        self._about = {
            "spec": spec.model_dump_json(),
            "checkpoint_sha256": sha256,
            "version": version("paliflow"),
        }

    def annotate(self, shard: int) -> Done:
        """Answers every prompt about every input of a shard and commits its part."""
        uris = read_shard(self._run, shard)
        size = self._model.config.image_size
        read = partial(read_input, size=size, max_pixels=self._spec.max_pixels)
        rows: list[dict[str, Any]] = []
        errors = 0
        with ThreadPoolExecutor(_READERS) as pool:
            inputs = _ahead(pool, read, uris, _BATCHES_AHEAD * self._spec.batch_size)
            for index in count():
                # A broken input keeps its place, so that no other's batch depends on it.
                if not (batch := list(islice(inputs, self._spec.batch_size))):
                    break
                rows += self._answer(batch, (shard, index))
                errors += sum(source.pixels is None for source in batch)
        commit_part(self._run, shard, rows, self._about)
        return Done(len(uris), errors)

    def _answer(self, batch: list[Input], place: tuple[int, int]) -> list[dict[str, Any]]:
        spec = self._spec
        size = self._model.config.image_size
        images = np.zeros((spec.batch_size, size, size, 3), np.float32)
        for image, source in zip(images, batch, strict=False):
            if source.pixels is not None:
                image[:] = source.pixels
        answers: list[Generation | None] = [None] * len(spec.prompts)
        if any(source.pixels is not None for source in batch):
            image_tokens = self._model.encode_images(images)
            # All prompts are dispatched before the first answer is waited for.
            answers = [
                self._model.generate_from_tokens(
                    image_tokens,
                    *_repeat(ids, self._prompt_length, spec.batch_size),
                    max_new_tokens=spec.max_new_tokens,
                    sampler=_sampler(spec.sampling),
                    seed=_seed(spec.seed, *place, number),
                    eos_id=self._tokenizer.eos_id,
                )
                for number, ids in enumerate(self._prompts)
            ]
        return [
            self._row(source, prompt, answer, row)
            for row, source in enumerate(batch)
            for prompt, answer in zip(spec.prompts, answers, strict=True)
        ]

    def _row(
        self, source: Input, prompt: str, answer: Generation | None, row: int
    ) -> dict[str, Any]:
        if answer is None or source.width is None or source.height is None:
            return error_row(source, prompt)
        tokens, logprobs, length, finished = (np.asarray(x)[row].tolist() for x in answer)
        ids = tokens[: length - finished]  # without the end token
        text = self._tokenizer.decode(ids)
        detections = None
        if task_of(prompt) in ("detect", "segment"):
            found = parse_detections(text, source.width, source.height, self._mask_decoder)
            offsets = self._tokenizer.offsets(ids)
            detections = score_detections(found, offsets, logprobs[: len(ids)])
        return answer_row(
            *(source, prompt, text, detections),
            logprob=sum(logprobs),
            token_count=length,
            finished=finished,
        )


@contextmanager
def _loading(field: str, value: object) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, PermissionError, ValueError) as error:
        raise SpecError(f"{field}={value!r}: {error}") from error


def checkpoint_of(spec: AnnotateSpec) -> str:
    """Where a spec's weights are."""
    return spec.checkpoint or str(BUNDLED_CHECKPOINT)


def _tokenizer_of(spec: AnnotateSpec) -> str:
    checkpoint = checkpoint_of(spec)
    folder = posixpath.dirname(checkpoint) if checkpoint.endswith(".npz") else checkpoint
    return spec.tokenizer or posixpath.join(folder, "tokenizer.model")


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


def _repeat(
    ids: list[int], length: int, batch_size: int
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """A prompt for every row of a batch: ids and mask, [batch_size, length] each."""
    prompt = np.zeros((batch_size, length), np.int32)
    prompt[:, : len(ids)] = ids
    mask = np.zeros((batch_size, length), bool)
    mask[:, : len(ids)] = True
    return prompt, mask


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[_T], _R], items: Iterable[_T], depth: int
) -> Iterator[_R]:
    """Results in order, with at most `depth` more of them begun."""
    begun: deque[Future[_R]] = deque()
    for item in items:
        begun.append(pool.submit(function, item))
        if len(begun) > depth:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()
