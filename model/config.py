"""Frozen configurations of the network and the published PaliGemma variants."""

from dataclasses import dataclass, replace
from math import isqrt


@dataclass(frozen=True)
class VisionConfig:
    """SigLIP vision tower (arXiv:2303.15343, section 3; So400m/14 in PaliGemma)."""

    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    patch_size: int
    num_patches: int

    @property
    def image_size(self) -> int:
        """Height and width of the square input, in pixels."""
        return isqrt(self.num_patches) * self.patch_size


@dataclass(frozen=True)
class TextConfig:
    """Gemma (arXiv:2403.08295) or Gemma 2 (arXiv:2408.00118) decoder.

    `query_pre_attn_scalar`: the query is multiplied by its inverse square root.
    `attn_logits_softcap`: `cap * tanh(logits / cap)` on attention logits; None for none.
    `final_logits_softcap`: the same on the vocabulary's logits. None by default, for Gemma 2 too:
    the reference leaves the cap out when it trains and applies it from the second decoded token
    on, so its decoding disagrees with its own teacher forcing. Here the cap holds everywhere or
    nowhere; greedy tokens do not depend on it, log-probabilities do.
    `bos_id`, `eos_id`, `pad_id`: the tokens that the weights were trained with.
    """

    vocab_size: int
    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    query_pre_attn_scalar: float
    attn_logits_softcap: float | None = None
    final_logits_softcap: float | None = None
    post_norms: bool = False
    bos_id: int = 2
    eos_id: int = 1
    pad_id: int = 0


@dataclass(frozen=True)
class PaliGemmaConfig:
    """The whole network: a vision tower whose tokens precede the text in the decoder."""

    vision: VisionConfig
    text: TextConfig

    @property
    def image_size(self) -> int:
        """Height and width of the square input, in pixels."""
        return self.vision.image_size


def _so400m(image_size: int) -> VisionConfig:
    return VisionConfig(1152, 27, 4304, 16, patch_size=14, num_patches=(image_size // 14) ** 2)


_GEMMA_2B = TextConfig(257_152, 2048, 18, 16_384, 8, 1, 256, query_pre_attn_scalar=256)
_GEMMA2_2B = TextConfig(
    257_152, 2304, 26, 9216, 8, 4, 256, 256, attn_logits_softcap=50.0, post_norms=True
)
_GEMMA2_9B = replace(_GEMMA2_2B, width=3584, depth=42, mlp_dim=14_336, num_heads=16, num_kv_heads=8)
_GEMMA2_27B = replace(
    _GEMMA2_9B,
    width=4608,
    depth=46,
    mlp_dim=36_864,
    num_heads=32,
    num_kv_heads=16,
    head_dim=128,
    query_pre_attn_scalar=4608 // 32,
)

RESOLUTIONS = (224, 448, 896)
VARIANTS = {
    f"{family}-{size}": PaliGemmaConfig(_so400m(size), text)
    for family, text in {
        "paligemma-3b": _GEMMA_2B,
        "paligemma2-3b": _GEMMA2_2B,
        "paligemma2-10b": _GEMMA2_9B,
        "paligemma2-28b": _GEMMA2_27B,
    }.items()
    for size in RESOLUTIONS
}
"""Every published architecture, e.g. `VARIANTS["paligemma-3b-224"]`."""
