"""PaliGemma in JAX and Flax: arrays in, text out.

Its names are imported when they are first used, so that who decodes images needs no JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paliflow.model.config import VARIANTS as VARIANTS
    from paliflow.model.config import PaliGemmaConfig as PaliGemmaConfig
    from paliflow.model.config import TextConfig as TextConfig
    from paliflow.model.config import VisionConfig as VisionConfig
    from paliflow.model.detections import Detection as Detection
    from paliflow.model.detections import format_detections as format_detections
    from paliflow.model.detections import parse_detections as parse_detections
    from paliflow.model.detections import score_detections as score_detections
    from paliflow.model.files import BUNDLED_CHECKPOINT as BUNDLED_CHECKPOINT
    from paliflow.model.files import CheckpointError as CheckpointError
    from paliflow.model.files import checkpoint_sha256 as checkpoint_sha256
    from paliflow.model.files import local_copy as local_copy
    from paliflow.model.generate import Generation as Generation
    from paliflow.model.images import Decoded as Decoded
    from paliflow.model.images import ImageTooLarge as ImageTooLarge
    from paliflow.model.images import decode_image as decode_image
    from paliflow.model.images import preprocess as preprocess
    from paliflow.model.mask_decoder import MaskDecoder as MaskDecoder
    from paliflow.model.paligemma import PaliGemma as PaliGemma
    from paliflow.model.sampling import Greedy as Greedy
    from paliflow.model.sampling import Nucleus as Nucleus
    from paliflow.model.sampling import Sampler as Sampler
    from paliflow.model.sampling import Temperature as Temperature
    from paliflow.model.sampling import TopK as TopK
    from paliflow.model.tokenizer import Tokenizer as Tokenizer

_MODULES = {
    "config": ("VARIANTS", "PaliGemmaConfig", "TextConfig", "VisionConfig"),
    "detections": ("Detection", "format_detections", "parse_detections", "score_detections"),
    "files": ("BUNDLED_CHECKPOINT", "CheckpointError", "checkpoint_sha256", "local_copy"),
    "generate": ("Generation",),
    "images": ("Decoded", "ImageTooLarge", "decode_image", "preprocess"),
    "mask_decoder": ("MaskDecoder",),
    "paligemma": ("PaliGemma",),
    "sampling": ("Greedy", "Nucleus", "Sampler", "Temperature", "TopK"),
    "tokenizer": ("Tokenizer",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
