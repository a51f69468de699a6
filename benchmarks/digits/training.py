"""Trains the bundled checkpoint: its tokenizer, its configuration and the resumable loop."""

import io
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import sentencepiece
from flax import traverse_util
from numpy.typing import NDArray

from paliflow.benchmarks.digits import scenes
from paliflow.model import PaliGemma
from paliflow.model.config import PaliGemmaConfig, TextConfig, VisionConfig
from paliflow.model.examples import encode_examples
from paliflow.model.images import preprocess
from paliflow.model.network import Network
from paliflow.model.tokenizer import LOC_PIECES, Tokenizer, add_extra_pieces
from paliflow.model.train import (
    Batch,
    Params,
    TrainState,
    init_state,
    learning_schedule,
    make_optimizer,
    make_train_step,
)

TEXT_LENGTH = 29
SINGLE_STEPS, SINGLE_LENGTH = 3000, 8
"""The first steps show one digit and ask to read it, nothing else: telling digits apart is what
takes longest. Their order is learnt later, from boxes; reading alone does not teach it."""


def make_tokenizer(seed: int = 0, sentences: int = 4000) -> bytes:
    """A small byte-fallback BPE model over the tasks' own texts, with <loc> and <seg> appended."""
    rng = np.random.default_rng(seed)
    corpus = []
    for _ in range(sentences):
        scene = scenes.compose(rng, "train", scale=1)
        prompt = scenes.draw_prompt(rng, scene)
        suffix = scenes.answer(scene, prompt)
        for piece in LOC_PIECES:
            suffix = suffix.replace(piece, "")
        corpus += [prompt, suffix]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(corpus),
        model_writer=model,
        model_type="bpe",
        vocab_size=384,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_digits=False,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        user_defined_symbols=["\n"],
        minloglevel=2,
    )
    return add_extra_pieces(model.getvalue())


def make_config(vocab_size: int) -> PaliGemmaConfig:
    """PaliGemma's architecture at a hundredth of the width: 64 tokens of 7 x 7 pixels."""
    return PaliGemmaConfig(
        VisionConfig(width=128, depth=4, mlp_dim=512, num_heads=4, patch_size=7, num_patches=64),
        TextConfig(
            vocab_size,
            width=128,
            depth=3,
            mlp_dim=256,
            num_heads=4,
            num_kv_heads=1,
            head_dim=32,
            query_pre_attn_scalar=32,
        ),
    )


def make_batch(tokenizer: Tokenizer, image_size: int, *, seed: int, step: int, size: int) -> Batch:
    """One batch of fresh scenes, each with one prompt; seed and step decide all of it."""
    rng = np.random.default_rng((seed, step))
    single = step < SINGLE_STEPS
    images, pairs = [], []
    for _ in range(size):
        scene = scenes.compose(rng, "train", 2, 1 if single else scenes.MAX_DIGITS)
        prompt = "ocr" if single else scenes.draw_prompt(rng, scene)
        images.append(preprocess(scene.image, image_size))
        pairs.append((prompt, scenes.answer(scene, prompt)))
    length = SINGLE_LENGTH if single else TEXT_LENGTH
    return Batch(np.stack(images), *encode_examples(tokenizer, pairs, length))


def batches(
    tokenizer: Tokenizer, image_size: int, *, seed: int, first: int, last: int, size: int
) -> Iterator[Batch]:
    """The batches of steps `first` to `last`, composed one ahead in another thread."""
    with ThreadPoolExecutor(1) as pool:

        def submit(step: int) -> Future[Batch]:
            return pool.submit(make_batch, tokenizer, image_size, seed=seed, step=step, size=size)

        ahead = [submit(step) for step in range(first, min(first + 2, last))]
        for step in range(first, last):
            if step + 2 < last:
                ahead.append(submit(step + 2))
            yield ahead.pop(0).result()


def grid_positions(side: int, width: int) -> NDArray[np.float32]:
    """Sines and cosines of row and column, [1, side * side, width]: where training starts.

    A patch finds its neighbours from the first step on; from random positions, learning that
    takes longer than the rest.
    """
    frequency = np.geomspace(np.pi / 2, np.pi / 2 / side, width // 4)
    rows, columns = np.mgrid[:side, :side].reshape(2, -1, 1) * frequency
    waves = np.concatenate([np.sin(rows), np.cos(rows), np.sin(columns), np.cos(columns)], axis=-1)
    return (waves[None] / 2).astype(np.float32)


def _fresh_state(
    network: Network, optimizer: optax.GradientTransformation, seed: int
) -> TrainState:
    state = init_state(network, optimizer, seed)
    vision = network.config.vision
    positions = grid_positions(vision.image_size // vision.patch_size, vision.width)
    flat = traverse_util.flatten_dict(state.params, sep="/")
    flat["img/pos_embedding"] = jnp.asarray(positions)
    return replace(state, params=traverse_util.unflatten_dict(flat, sep="/"))


def restore_params(directory: Path, tokenizer: Tokenizer) -> Params:
    """The parameters of the newest checkpoint in `directory`."""
    network = Network(make_config(tokenizer.vocab_size))
    empty = init_state(network, make_optimizer(0.0, learning_schedule(100)), seed=0)
    with ocp.CheckpointManager(directory.absolute()) as manager:
        state: TrainState = manager.restore(
            manager.latest_step(), args=ocp.args.StandardRestore(empty)
        )
    return state.params


def train(
    directory: Path,
    tokenizer: Tokenizer,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    save_every: int,
    start: PaliGemma | None = None,
) -> TrainState:
    """Trains to `steps`, or goes on from the newest checkpoint in `directory`.

    `start` gives the first weights where there is no checkpoint yet; with them, the steps of single
    digits are skipped.
    """
    network = Network(make_config(tokenizer.vocab_size))
    optimizer = make_optimizer(learning_rate, learning_schedule(steps, warmup=0.03))
    state = _fresh_state(network, optimizer, seed)
    if start is not None:
        state = replace(state, step=jnp.int32(SINGLE_STEPS), params=start.params)
    options = ocp.CheckpointManagerOptions(max_to_keep=2)
    with ocp.CheckpointManager(directory.absolute(), options=options) as manager:
        if (newest := manager.latest_step()) is not None:
            state = manager.restore(newest, args=ocp.args.StandardRestore(state))
        first = int(state.step)
        train_step = make_train_step(network, optimizer)
        size = network.config.image_size
        started, losses = time.monotonic(), []
        stream = batches(tokenizer, size, seed=seed, first=first, last=steps, size=batch_size)
        for step, batch in enumerate(stream, first + 1):
            state, metrics = train_step(state, batch)
            losses.append(metrics["loss"])
            if step % 50 == 0:
                loss = float(np.mean(losses))
                losses.clear()
                rate = (step - first) / (time.monotonic() - started)
                left = (steps - step) / rate / 60
                print(
                    f"step {step}/{steps}  loss {loss:.4f}"
                    f"  {rate:.2f} steps/s  {left:.0f} min left",
                    flush=True,
                )
            if step % save_every == 0 or step == steps:
                manager.save(step, args=ocp.args.StandardSave(state))
    return state
