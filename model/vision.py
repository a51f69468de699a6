"""The SigLIP vision tower: images in, tokens of the decoder's width out."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from paliflow.model.attention import attend
from paliflow.model.config import VisionConfig
from paliflow.model.layers import Affine, LayerNorm
from paliflow.model.shapes import Float, Float32, Shaped
from paliflow.model.sharding import constrain_activations
from paliflow.model.xla import tied

# Axes: B batch, P patch, which is an image token, D width, F mlp_dim, N head, H head_dim,
# E the decoder's width; y row and x column of a patch, h row and w column in a patch, C colour.


def normalised(images: Shaped[Array, "*any"]) -> Float32[Array, "*any"]:
    """uint8 to the float32 in [-1, 1] that `images.normalize` makes of it on a host, bit by bit.

    `levels / 127.5 - 1`, rounded twice, is this whole multiple of 2**-24. An accelerator's division
    need not be correctly rounded, and XLA may multiply by a reciprocal instead.
    """
    levels = images.astype(jnp.int32)
    wholes = 131_586 * levels + (levels >= 64) + (levels >= 128) - 2**24
    return wholes.astype(jnp.float32) * 2.0**-24


class SelfAttention(nn.Module):
    """Multi-head attention of all tokens to all tokens, with biases."""

    num_heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "B P D"]) -> Float[Array, "B P D"]:
        """As the class says."""
        width = x.shape[-1]
        head_dim = width // self.num_heads
        shape = (width, self.num_heads, head_dim)
        query, key, value = (
            Affine("BPD,DNH->BPNH", shape, name=name)(x) for name in ("query", "key", "value")
        )
        mixed = attend(query * head_dim**-0.5, key, value, mask=None, softcap=None)
        return Affine("BPNH,NHD->BPD", (*shape[1:], width), fan_in=2, name="out")(mixed)


class Mlp(nn.Module):
    """Two layers around a tanh-approximated GELU."""

    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, "B P D"]) -> Float[Array, "B P D"]:
        """As the class says."""
        width = x.shape[-1]
        y = Affine("BPD,DF->BPF", (width, self.hidden), name="Dense_0")(x)
        y = jax.nn.gelu(y, approximate=True)
        return Affine("BPF,FD->BPD", (self.hidden, width), name="Dense_1")(y)


class EncoderBlock(nn.Module):
    """One pre-norm transformer layer, with the reference's parameter names."""

    config: VisionConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B P D"]) -> tuple[Float[Array, "B P D"], None]:
        """The None is what `nn.scan` collects."""
        attention = SelfAttention(self.config.num_heads, name="MultiHeadDotProductAttention_0")
        x = x + attention(LayerNorm(name="LayerNorm_0")(x))
        x = x + Mlp(self.config.mlp_dim, name="MlpBlock_0")(LayerNorm(name="LayerNorm_1")(x))
        return constrain_activations(x), None


class Encoder(nn.Module):
    """All layers, their parameters stacked or each layer's apart, and the final norm."""

    config: VisionConfig
    remat: bool

    @nn.compact
    def __call__(self, x: Float[Array, "B P D"]) -> Float[Array, "B P D"]:
        """As the class says."""
        block = nn.remat(EncoderBlock, prevent_cse=False) if self.remat else EncoderBlock
        if self.has_variable("params", "encoderblock_0"):  # laid by `layout.pack_weights`
            for layer in range(self.config.depth):
                x, _ = EncoderBlock(self.config, name=f"encoderblock_{layer}")(x)
                x = tied(x)
            return LayerNorm(name="encoder_norm")(x)
        layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.config.depth,
            unroll=1 if self.remat else self.config.depth,
        )
        x, _ = layers(self.config, name="encoderblock")(constrain_activations(x))
        return LayerNorm(name="encoder_norm")(x)


class VisionTower(nn.Module):
    """SigLIP without pooling, every token projected to the decoder's width.

    `remat` recomputes each layer in the backward pass instead of keeping its activations, and
    rolls the layers into a loop.
    """

    config: VisionConfig
    output_width: int
    remat: bool = False

    @nn.compact
    def __call__(
        self, images: Shaped[Array, "B height width colour"], dtype: DTypeLike
    ) -> Float[Array, "B P E"]:
        """Encodes images; patches and positions in float32, the layers in `dtype`.

        Args:
            images: [B, image_size, image_size, 3], float32 in [-1, 1] or uint8.
            dtype: of the matrix products and of the result.

        Returns:
            Tokens, row-major over the grid of patches.

        Raises:
            ValueError: images of another size.
        """
        c = self.config
        if images.shape[1:] != (c.image_size, c.image_size, 3):
            raise ValueError(
                f"images are {images.shape[1:]}, the checkpoint takes "
                f"({c.image_size}, {c.image_size}, 3); `preprocess` makes them, and the override "
                "image_size lets a checkpoint take another size"
            )
        side = c.image_size // c.patch_size
        levels = images.dtype == jnp.uint8
        patches = (normalised(images) if levels else images.astype(jnp.float32)).reshape(
            images.shape[0], side, c.patch_size, side, c.patch_size, 3
        )
        embed = Affine(
            "ByhxwC,hwCD->ByxD",
            (c.patch_size, c.patch_size, 3, c.width),
            fan_in=3,
            name="embedding",
        )
        x = embed(patches).reshape(images.shape[0], c.num_patches, c.width)
        init = nn.initializers.normal(c.width**-0.5)
        x = x + self.param("pos_embedding", init, (1, c.num_patches, c.width)).astype(jnp.float32)
        x = Encoder(c, self.remat, name="Transformer")(x.astype(dtype))
        return constrain_activations(
            Affine("BPD,DE->BPE", (c.width, self.output_width), name="head")(x)
        )
