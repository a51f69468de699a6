"""Fixed choices: how fast they are beside plain generation, and that they are exact.

    python -m paliflow.benchmarks.choices --scenes 256

Every way asks the same question about the same scenes of handwritten digits, with the bundled
checkpoint, images in memory, after one batch that compiles; the best of three rounds counts. The
lines below say what free text pays for all this, and compare the probabilities in float32 with
teacher forcing each choice by itself.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import paliflow.model.generate as generation
from paliflow.benchmarks.digits.scenes import answer, compose
from paliflow.configs.prompts import expanded
from paliflow.model import BUNDLED_CHECKPOINT, Greedy, PaliGemma, Tokenizer, preprocess
from paliflow.model.choices import columns_of, encode_choices, tabulate
from paliflow.model.examples import encode_examples

BATCH = 16
ROUNDS = 3
NEW_TOKENS = 8
LIKELY = 1e-3
QUESTION = "answer en how many digits are there?"
LISTS = ("0..2", "0..19", "0..199")


def batches(count: int, size: int) -> tuple[list[NDArray[np.float32]], list[str]]:
    """Scenes of digits that training never saw, and how many digits each has."""
    rng = np.random.default_rng(0)
    drawn = [compose(rng, "test", scale=4) for _ in range(count)]
    pixels = [preprocess(scene.image, size) for scene in drawn]
    whole = range(0, count - count % BATCH, BATCH)
    images = [np.stack(pixels[start : start + BATCH]) for start in whole]
    return images, [answer(scene, QUESTION) for scene in drawn]


def timed(ask: Callable[[NDArray[np.float32]], Any], images: list[NDArray[np.float32]]) -> float:
    """Images a second in the best of some rounds, after a batch that compiles."""
    jax.block_until_ready(ask(images[0]))
    best = 0.0
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for batch in images:
            jax.block_until_ready(ask(batch))
        best = max(best, len(images) * BATCH / (time.perf_counter() - start))
    return best


def main(scenes: int = 256, dtype: str = "bfloat16") -> None:
    """Prints the table and the lines below it."""
    tokenizer = Tokenizer.from_file(BUNDLED_CHECKPOINT.with_name("tokenizer.model"))
    model = PaliGemma.from_checkpoint(BUNDLED_CHECKPOINT, dtype=dtype)
    images, counts = batches(scenes, model.config.image_size)
    ids = tokenizer.encode_prompt(QUESTION, 64)
    prompt = np.tile(np.array(ids, np.int32), (BATCH, 1))
    mask = np.ones_like(prompt, bool)
    table = Table("way", "images a second", "of generate's", "right")

    def generated(batch: NDArray[np.float32]) -> Any:
        return model.generate(batch, prompt, mask, max_new_tokens=NEW_TOKENS)

    texts = [
        tokenizer.decode(row[: length - 1])
        for batch in images
        for row, length in zip(*map(np.asarray, generated(batch)[:3:2]), strict=True)
    ]
    right = np.mean([text == count for text, count in zip(texts, counts, strict=False)])
    plain = timed(generated, images)
    table.add_row("generate", f"{plain:.1f}", "1", f"{right:.1%}")
    for written in LISTS:
        choices = expanded([written])
        tokens = encode_choices(tokenizer, choices)
        tries = tabulate([tokens], tokenizer.eos_id)
        columns = columns_of(tokens, tries)

        def scored(batch: NDArray[np.float32], tries: Any = tries) -> Any:
            return model.score_choices(model.encode_images(batch), prompt, mask, tries).logprob

        best = np.concatenate([np.asarray(scored(batch))[:, columns].argmax(1) for batch in images])
        right = np.mean(
            [choices[place] == count for place, count in zip(best, counts, strict=False)]
        )
        rate = timed(scored, images)
        share = f"{rate / plain:.2f}"
        table.add_row(f"{len(choices)} choices", f"{rate:.1f}", share, f"{right:.1%}")
    Console().print(table)
    flops, accessed = free_text_pays(model, model.encode_images(images[0]), prompt)
    print(
        f"free text of {NEW_TOKENS} tokens pays for the locations' neighbours {flops:.4%} of its "
        f"operations and {accessed:.4%} of its memory traffic, and for choices and closed answers "
        "nothing: its program has none of them"
    )
    choices = expanded([LISTS[1]])
    probability, logprob = furthest_from_teacher_forcing(images, choices)
    print(
        f"{len(images) * BATCH} scenes, {len(choices)} choices, float32: at most {probability:.1e} "
        f"from teacher forcing in probability, and {logprob:.1e} in log-probability of choices "
        f"likelier than {LIKELY:g}"
    )


def free_text_pays(
    model: PaliGemma, tokens: jax.Array, prompt: NDArray[np.int32]
) -> tuple[float, float]:
    """By how much free generation is dearer than it would be without the locations' neighbours:
    shares of its operations and of the bytes that it accesses, as the compiler counts them."""

    def cost() -> tuple[float, float]:
        jax.clear_caches()
        options: Any = {"max_new_tokens": NEW_TOKENS, "sampler": Greedy(), "eos_id": 1}
        program = jax.jit(partial(generation.generate, model.network, **options))
        lowered = program.lower(model.params, tokens, prompt, np.ones_like(prompt, bool), 0)
        found: Any = lowered.compile().cost_analysis()
        return found["flops"], found["bytes accessed"]

    whole = cost()
    with patch.object(generation, "_nearby", lambda logprobs, token: jnp.zeros(len(token))):
        without = cost()
    flops, accessed = (1 - less / more for less, more in zip(without, whole, strict=True))
    return flops, accessed


def furthest_from_teacher_forcing(
    images: list[NDArray[np.float32]], choices: Sequence[str]
) -> tuple[float, float]:
    """How far choices' probabilities are at most from those of each alone, in float32; and the
    log-probabilities of those likelier than LIKELY: float32 itself has steps of 4e-6 at -32."""
    tokenizer = Tokenizer.from_file(BUNDLED_CHECKPOINT.with_name("tokenizer.model"))
    model = PaliGemma.from_checkpoint(BUNDLED_CHECKPOINT, dtype="float32")
    tokens = encode_choices(tokenizer, choices)
    table = tabulate([tokens], tokenizer.eos_id)
    columns = columns_of(tokens, table)
    prompt = np.tile(np.array(tokenizer.encode_prompt(QUESTION, 64), np.int32), (BATCH, 1))
    probability = logprob = 0.0
    for batch in images:
        scores = model.score_choices(
            model.encode_images(batch), prompt, np.ones_like(prompt, bool), table
        )
        for choice, column in zip(choices, columns, strict=True):
            pairs = [(QUESTION, choice)] * BATCH
            texts = encode_examples(tokenizer, pairs, prompt.shape[1] + 4)
            logits = model.logits(batch, texts.text, texts.mask_ar)
            logprobs = np.asarray(jax.nn.log_softmax(logits))[:, :-1]
            own = np.take_along_axis(logprobs, texts.text[:, 1:, None], 2)[..., 0]
            alone = (own * texts.mask_loss[:, 1:]).sum(1)
            beside = np.asarray(scores.logprob)[:, column]
            differences = np.abs(np.exp(alone) - np.exp(beside))
            probability = max(probability, float(differences.max()))
            likely = np.abs(alone - beside)[alone > np.log(LIKELY)]
            logprob = max(logprob, float(likely.max(initial=0)))
    return probability, logprob


if __name__ == "__main__":
    typer.run(main)
