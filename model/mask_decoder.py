"""The mask decoder: 16 <seg> codes to a 64 x 64 mask."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from paliflow.model.files import CheckpointError, local_copy, reading
from paliflow.model.npz import read_npz
from paliflow.model.shapes import Float32, Int

_RESBLOCKS = ("decoder.2.net", "decoder.3.net")
_UPSAMPLES = ("decoder.4", "decoder.6", "decoder.8", "decoder.10")
_CONVOLUTIONS = (
    "decoder.0",
    *(f"{block}.{layer}" for block in _RESBLOCKS for layer in (0, 2, 4)),
    *_UPSAMPLES,
    "decoder.12",
)
_CODEBOOK = "_vq_vae._embedding"
_CODES = 128


@dataclass(frozen=True)
class MaskDecoder:
    """The decoder half of PaliGemma's VQ-VAE (big_vision `vae-oid.npz`)."""

    params: dict[str, jax.Array]

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> "MaskDecoder":
        """Reads `vae-oid.npz` or a like file, local or `gs://`; computes in float32.

        Raises:
            CheckpointError: arrays are missing or misshapen.
        """
        wanted = [_CODEBOOK, *(f"{c}.{p}" for c in _CONVOLUTIONS for p in ("weight", "bias"))]
        with local_copy(path) as local:
            arrays = read_npz(local)
            if missing := [name for name in wanted if name not in arrays]:
                raise CheckpointError(f"{path} is not a mask decoder, missing: {missing}")
            params = {n: jnp.asarray(arrays[n].read(np.dtype(np.float32))) for n in wanted}
        codes = jax.ShapeDtypeStruct((1, 16), jnp.int32)
        with reading(local, "mask decoder"):
            made = jax.eval_shape(_decode, params, codes).shape
            if (len(params[_CODEBOOK]), made) != (_CODES, (1, 64, 64)):
                raise ValueError(f"{len(params[_CODEBOOK])} codes become masks of {made[1:]}")
        return cls(params)

    def __call__(self, codes: ArrayLike) -> Float32[Array, "B 64 64"]:
        """Codes int32 [B, 16], row by row of a 4 x 4 grid, to masks in about [-1, 1]."""
        masks: jax.Array = _decode(self.params, jnp.asarray(codes))
        return masks


def _convolve(
    params: dict[str, jax.Array], name: str, x: Float32[Array, "B H W C"], **options: Any
) -> Float32[Array, "B h w c"]:
    y = lax.conv_general_dilated(
        x,
        params[f"{name}.weight"],
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
        precision="highest",
        **{"window_strides": (1, 1), "padding": "SAME"} | options,
    )
    return y + params[f"{name}.bias"]


def _upsample(
    params: dict[str, jax.Array], name: str, x: Float32[Array, "B H W C"]
) -> Float32[Array, "B 2*H 2*W c"]:
    """A transposed convolution, 4 x 4, stride 2: the published weight is [in, out, 4, 4]."""
    flipped = params[f"{name}.weight"].transpose(1, 0, 2, 3)[..., ::-1, ::-1]
    flipped_params = {f"{name}.weight": flipped, f"{name}.bias": params[f"{name}.bias"]}
    return _convolve(flipped_params, name, x, padding=((2, 2), (2, 2)), lhs_dilation=(2, 2))


@jax.jit
def _decode(params: dict[str, jax.Array], codes: Int[Array, "B 16"]) -> Float32[Array, "B H W"]:
    x = params[_CODEBOOK][codes].reshape(codes.shape[0], 4, 4, -1)
    x = jax.nn.relu(_convolve(params, "decoder.0", x))
    for block in _RESBLOCKS:
        y = jax.nn.relu(_convolve(params, f"{block}.0", x))
        y = jax.nn.relu(_convolve(params, f"{block}.2", y))
        x = x + _convolve(params, f"{block}.4", y)
    for name in _UPSAMPLES:
        x = jax.nn.relu(_upsample(params, name, x))
    return _convolve(params, "decoder.12", x)[..., 0]
