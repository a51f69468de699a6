"""PaliGemma in JAX and Flax: arrays in, text out."""

from paliflow.model.config import VARIANTS, PaliGemmaConfig, TextConfig, VisionConfig
from paliflow.model.detections import (
    Detection,
    format_detections,
    parse_detections,
    score_detections,
)
from paliflow.model.files import (
    BUNDLED_CHECKPOINT,
    CheckpointError,
    checkpoint_sha256,
    local_copy,
)
from paliflow.model.generate import Generation
from paliflow.model.images import Decoded, ImageTooLarge, decode_image, preprocess
from paliflow.model.mask_decoder import MaskDecoder
from paliflow.model.paligemma import PaliGemma
from paliflow.model.sampling import Greedy, Nucleus, Sampler, Temperature, TopK
from paliflow.model.tokenizer import Tokenizer

__all__ = [
    "BUNDLED_CHECKPOINT",
    "VARIANTS",
    "CheckpointError",
    "Decoded",
    "Detection",
    "Generation",
    "Greedy",
    "ImageTooLarge",
    "MaskDecoder",
    "Nucleus",
    "PaliGemma",
    "PaliGemmaConfig",
    "Sampler",
    "Temperature",
    "TextConfig",
    "Tokenizer",
    "TopK",
    "VisionConfig",
    "checkpoint_sha256",
    "decode_image",
    "format_detections",
    "local_copy",
    "parse_detections",
    "preprocess",
    "score_detections",
]
