"""Trains the bundled checkpoint: its tokenizer, its configuration, its two stages."""

import io
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import sentencepiece
from flax import traverse_util
from numpy.typing import NDArray

from paliflow.benchmarks.digits import scenes
from paliflow.benchmarks.digits.loop import fit
from paliflow.benchmarks.digits.pretraining import (
    init_pretraining,
    make_patch_batch,
    make_pretrain_step,
    patch_accuracy,
)
from paliflow.model.config import PaliGemmaConfig, TextConfig, VisionConfig
from paliflow.model.examples import encode_examples
from paliflow.model.images import preprocess
from paliflow.model.loss import Batch
from paliflow.model.network import Network
from paliflow.model.optimizer import Params, learning_schedule, make_optimizer
from paliflow.model.recipe import Recipe
from paliflow.model.sharding import global_mesh
from paliflow.model.tokenizer import LOC_PIECES, Tokenizer, add_extra_pieces
from paliflow.model.train import Trainer, TrainState

TEXT_LENGTH = 29
PRETRAINING_STEPS, PRETRAINING_SCHEDULE = 5500, 12_000
"""The first stage ends in the midst of its schedule, since the second goes on at a high rate."""


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


def make_batch(tokenizer: Tokenizer, image_size: int, seed: int, size: int, step: int) -> Batch:
    """One batch of fresh scenes, each with one prompt; seed and step decide all of it."""
    rng = np.random.default_rng((seed, step))
    images, pairs = [], []
    for _ in range(size):
        scene = scenes.compose(rng, "train", 2)
        prompt = scenes.draw_prompt(rng, scene)
        images.append(preprocess(scene.image, image_size))
        pairs.append((prompt, scenes.answer(scene, prompt)))
    return Batch(np.stack(images), *encode_examples(tokenizer, pairs, TEXT_LENGTH))


def grid_positions(side: int, width: int) -> NDArray[np.float32]:
    """Sines and cosines of row and column, [1, side * side, width]: where training starts.

    A patch finds its neighbours from the first step on; from random positions, learning that
    takes longer than the rest.
    """
    frequency = np.geomspace(np.pi / 2, np.pi / 2 / side, width // 4)
    rows, columns = np.mgrid[:side, :side].reshape(2, -1, 1) * frequency
    waves = np.concatenate([np.sin(rows), np.cos(rows), np.sin(columns), np.cos(columns)], axis=-1)
    return (waves[None] / 2).astype(np.float32)


def fresh_params(config: PaliGemmaConfig, seed: int) -> Params:
    """Random float32 parameters."""
    images = jnp.zeros((1, config.image_size, config.image_size, 3))
    text = jnp.zeros((1, 1), jnp.int32)
    params: Params = jax.jit(Network(config).init)(jax.random.key(seed), images, text, text)
    return params["params"]  # type: ignore[return-value]


def restore_params(directory: Path, tokenizer: Tokenizer) -> Params:
    """The parameters of the newest checkpoint in `directory`."""
    trainer = Trainer(make_config(tokenizer.vocab_size), Recipe(1), global_mesh())
    with ocp.CheckpointManager(directory.absolute()) as manager:
        state: TrainState = manager.restore(
            manager.latest_step(), args=ocp.args.StandardRestore(trainer.abstract[0])
        )
    return state.params


def train(
    work: Path,
    tokenizer: Tokenizer,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> TrainState:
    """Both stages; each goes on from its newest checkpoint in `work`.

    The vision tower is pretrained on labels of patches, then the whole network on prompts.
    """
    network = Network(make_config(tokenizer.vocab_size), dtype="float32")
    vision = network.config.vision
    side = vision.image_size // vision.patch_size
    flat = traverse_util.flatten_dict(fresh_params(network.config, seed), sep="/")
    flat["img/pos_embedding"] = jnp.asarray(grid_positions(side, vision.width))
    params = traverse_util.unflatten_dict(flat, sep="/")

    schedule = learning_schedule(PRETRAINING_SCHEDULE, PRETRAINING_SCHEDULE // 20)
    pretraining = make_optimizer(learning_rate, schedule)
    pretrained = fit(
        work / "pretraining",
        init_pretraining(params, pretraining, seed),
        make_pretrain_step(network, pretraining),
        partial(make_patch_batch, vision.image_size, side, seed + 1, batch_size),
        PRETRAINING_STEPS,
    )
    print(f"patches read: {patch_accuracy(network, pretrained, side):.1%}", flush=True)
    warmup = max(1, round(0.03 * steps))
    recipe = Recipe(steps, warmup, learning_rate, dtype="float32", seed=seed)
    trainer = Trainer(network.config, recipe, global_mesh())
    state, frozen = trainer.init({**params, "img": pretrained.trained["img"]})
    return fit(
        work / "checkpoints",
        state,
        lambda state, batch: trainer.step(state, frozen, batch),
        partial(make_batch, tokenizer, vision.image_size, seed, batch_size),
        steps,
    )
