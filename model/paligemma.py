"""`PaliGemma`: a configuration and its weights, ready to encode, score and generate."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike, DTypeLike

from paliflow.model.beam import beam_search
from paliflow.model.checkpoint import read_checkpoint
from paliflow.model.choices import ChoiceScores, ChoiceTable, score_choices
from paliflow.model.closed import Grammar
from paliflow.model.config import PaliGemmaConfig
from paliflow.model.files import local_copy
from paliflow.model.generate import Generation, Prefilled, decode, prefill
from paliflow.model.network import Network, apply
from paliflow.model.sampling import Greedy, Sampler
from paliflow.model.shapes import Float, Float32, Int, Shaped
from paliflow.model.sharding import (
    device_rows,
    inference_mesh,
    placed,
    readable,
    replicated,
    split_rows,
)
from paliflow.model.slices import sliced, slices
from paliflow.model.weights import infer_config, load_params
from paliflow.model.xla import ANY, Backend, backend_of_mesh

# Axes: B batch, F frame, P image tokens of all frames, T text, M new token, V vocabulary.


@dataclass(frozen=True)
class PaliGemma:
    """PaliGemma 1 or 2. Matrix products run in the dtype of the weights.

    Its devices work as one: each has the weights, or its piece of them, and its share of a batch's
    rows where the batch divides among them. Where they are of several processes, each of these has
    to make the same calls in the same order.
    """

    config: PaliGemmaConfig
    params: dict[str, Any]
    mesh: Mesh
    backend: Backend = ANY

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        dtype: DTypeLike = "bfloat16",
        model_parallel: int = 1,
        devices: Sequence[Any] | None = None,
        **config_overrides: Any,
    ) -> "PaliGemma":
        """Loads weights and reads the configuration off them.

        Args:
            path: a big_vision `.npz`, a Hugging Face folder, or an Orbax folder; local or `gs://`.
            dtype: to hold the weights and compute in. `int8` and `float8_e4m3fn` hold matrices
                in eight bits, each output with a scale, and multiply them with activations that
                are rounded to the same token by token (arXiv:2208.07339, without its outliers;
                arXiv:2209.05433); the rest is bfloat16.
            model_parallel: devices that share one copy of the weights.
            devices: of JAX, of this process or of several; all of this process if not given.
            config_overrides: what shapes cannot tell, by its name in `TextConfig`, e.g.
                `query_pre_attn_scalar=256`; or `image_size` in pixels, which resizes the position
                embedding.

        Raises:
            FileNotFoundError: nothing is at `path`.
            CheckpointError: not a PaliGemma, or parameters are missing, unexpected or misshapen.
            ValueError: the devices do not divide into copies.
        """
        mesh = inference_mesh(devices or jax.local_devices(), model_parallel)
        with local_copy(path) as local:
            leaves, described = read_checkpoint(local)
            shapes = {name: leaf.shape for name, leaf in leaves.items()}
            config = infer_config(shapes, **described | config_overrides)
            params = load_params(leaves, config, dtype, mesh)
        return cls(config, params, mesh, backend_of_mesh(mesh))

    def _place(self, *arrays: ArrayLike) -> list[jax.Array]:
        return [split_rows(x, self.mesh) for x in arrays]

    def slices(self, batch: int, tokens: int) -> int:
        """How many slices a batch of so many tokens a row goes through the model in."""
        rows = device_rows(batch, self.mesh.shape["data"])
        return slices(rows, tokens, self.backend.slice_tokens)

    @property
    def network(self) -> Network:
        """The Flax module that these weights belong to."""
        return Network(self.config, backend=self.backend)

    def encode_images(self, images: ArrayLike) -> Float[Array, "B P D"]:
        """Runs the vision tower once, for any number of prompts.

        Args:
            images: [B, H, W, 3] or [B, F, H, W, 3], at the config's image_size; uint8, or float32
                in [-1, 1].

        Returns:
            What enters the language model.
        """
        batch, *frames = np.shape(images)[:-3]
        count = self.slices(batch, prod(frames) * self.config.vision.num_patches)
        tokens: jax.Array = encode_images(self.network, self.params, *self._place(images), count)
        return tokens

    def logits(
        self, images: ArrayLike, text: ArrayLike, mask_ar: ArrayLike
    ) -> Float32[Array, "B T V"]:
        """Teacher-forced logits, as big_vision's training path computes them.

        Args:
            images: as `encode_images`.
            text, mask_ar: int32 [B, T]; mask_ar is 0 for the prefix, 1 for suffix and padding.

        Returns:
            At t, those of token t + 1.
        """
        arrays = self._place(images, text, mask_ar)
        logits: jax.Array = _logits(self.network, self.params, *arrays)
        return logits

    def generate(
        self, images: ArrayLike, prompt: ArrayLike, prompt_mask: ArrayLike, **options: Any
    ) -> Generation:
        """Encodes images and continues prompts; options as `generate_from_tokens`."""
        return self.generate_from_tokens(self.encode_images(images), prompt, prompt_mask, **options)

    def generate_from_tokens(
        self,
        image_tokens: Float[Array | np.ndarray, "B P D"],
        prompt: ArrayLike,
        prompt_mask: ArrayLike,
        *,
        max_new_tokens: int,
        int8_cache: bool = False,
        beams: int = 1,
        **options: Any,
    ) -> Generation:
        """Continues prompts: `prefill`, then `decode`, which has the other options."""
        prefilled = self.prefill(
            *(image_tokens, prompt, prompt_mask),
            max_new_tokens=max_new_tokens,
            int8_cache=int8_cache,
            beams=beams,
        )
        return self.decode(prefilled, **options)

    def prefill(
        self,
        image_tokens: Float[Array | np.ndarray, "B P D"],
        prompt: ArrayLike,
        prompt_mask: ArrayLike,
        *,
        max_new_tokens: int,
        int8_cache: bool = False,
        beams: int = 1,
    ) -> Prefilled:
        """Reads each prompt.

        Args:
            image_tokens: from `encode_images`.
            prompt: int32 [B, T], padded on the right.
            prompt_mask: bool [B, T]; True where `prompt` holds a token.
            max_new_tokens: M.
            int8_cache: keep keys and values in int8, in half the memory of bfloat16.
            beams: above 1, `decode` answers by `beam_search` with so many live hypotheses.
        """
        prompt = np.asarray(prompt, np.int32)
        rows, length = prompt.shape
        prefilled: Prefilled = prefill(
            self.network,
            self.params,
            *self._place(image_tokens, prompt, np.asarray(prompt_mask, bool)),
            max_new_tokens=max_new_tokens,
            copies=beams,
            int8_cache=int8_cache,
            slices=self.slices(rows, image_tokens.shape[1] + length),
        )
        return prefilled

    def decode(
        self,
        prefilled: Prefilled,
        *,
        sampler: Sampler = Greedy(),  # noqa: B008, frozen
        seed: int = 0,
        eos_id: int | None = 1,
        grammar: Grammar | None = None,
        begins: ArrayLike | None = None,
    ) -> Generation:
        """Continues each prompt.

        Args:
            prefilled: from `prefill`; it is used up.
            sampler: how each token is chosen; a beam search does not ask it.
            seed: decides every random choice.
            eos_id: the token that ends a row; None never stops early.
            grammar: allows some tokens only, from `closed.closed_boxes`; None allows all.
            begins: int32 [B], with a grammar, the state that each row's answer begins in.

        Raises:
            ValueError: beams without a token that ends a row, or with a grammar.
        """
        generation: Generation
        if (beams := prefilled.copies) > 1:
            if eos_id is None:
                raise ValueError(f"beams={beams}: a beam search needs eos_id, which ends answers")
            if grammar is not None:
                raise ValueError(f"beams={beams}: a grammar allows no beam search; take 1")
            generation, _ = beam_search(*(self.network, self.params, *prefilled), eos_id=eos_id)
            return readable(generation, self.mesh)
        generation, _ = decode(
            *(self.network, self.params, *prefilled, seed),
            sampler=sampler,
            eos_id=eos_id,
            grammar=None if grammar is None else placed(grammar, replicated(self.mesh)),
            begins=None if begins is None else self._place(np.asarray(begins, np.int32))[0],
        )
        return readable(generation, self.mesh)

    def score_choices(
        self,
        image_tokens: Float[Array | np.ndarray, "B P D"],
        prompt: ArrayLike,
        prompt_mask: ArrayLike,
        table: ChoiceTable,
        which: ArrayLike | None = None,
    ) -> ChoiceScores:
        """Says how likely each choice is as the whole answer, the prompt being read once for all.

        Args:
            image_tokens: from `encode_images`.
            prompt: int32 [B, T], padded on the right.
            prompt_mask: bool [B, T]; True where `prompt` holds a token.
            table: lists of choices, from `choices.tabulate`.
            which: int32 [B], the list of each row; the first if not given.
        """
        prompt = np.asarray(prompt, np.int32)
        rows, length = prompt.shape
        chosen = np.zeros(rows, np.int32) if which is None else np.asarray(which, np.int32)
        scores: ChoiceScores = score_choices(
            self.network,
            self.params,
            *self._place(image_tokens, prompt, np.asarray(prompt_mask, bool), chosen),
            placed(table, replicated(self.mesh)),
            slices=self.slices(rows, image_tokens.shape[1] + length + table.nodes),
        )
        return readable(scores, self.mesh)


@partial(jax.jit, static_argnames=("network", "slices"))
def encode_images(
    network: Network,
    params: Any,
    images: Shaped[Array, "B *F H W 3"],
    slices: int = 1,
) -> Float[Array, "B P D"]:
    """`PaliGemma.encode_images` as one program, which takes the batch in slices."""
    tokens: jax.Array = sliced(partial(apply, network, params, "encode_images"), slices, images)
    return tokens


@partial(jax.jit, static_argnums=0)
def _logits(
    network: Network,
    params: Any,
    images: Shaped[Array, "B *F H W 3"],
    text: Int[Array, "B T"],
    mask_ar: Int[Array, "B T"],
) -> Float32[Array, "B T V"]:
    logits: jax.Array = apply(network, params, "__call__", images, text, mask_ar)
    return logits
