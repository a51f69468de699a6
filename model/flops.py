"""How much arithmetic a training step is, to set against what a chip can do."""

from collections.abc import Collection
from math import prod

from paliflow.model.config import PaliGemmaConfig
from paliflow.model.weights import expected_shapes


def train_flops(
    config: PaliGemmaConfig,
    text_length: int,
    targets: float,
    images: int = 1,
    *,
    trained: Collection[str],
) -> float:
    """Floating-point operations of one example, forwards and backwards.

    A product counts twice its multiplications: once forwards, once backwards for its input where
    anything before it is trained, once for its weight where that is trained. Adapters themselves,
    norms and what is computed again to save memory do not count (arXiv:2204.02311, appendix B).

    Args:
        config: of the model.
        text_length: T of a `Batch`, of which the model reads all but the last token.
        targets: tokens of its suffix, for which alone there are logits.
        images: of an example.
        trained: paths of what is trained, `Trainer.trained`.
    """
    text, vision = config.text, config.vision
    patches = images * vision.num_patches
    sequence = patches + text_length - 1
    trains_vision = any(path.startswith("img/") for path in trained)
    total = 0.0
    for path, shape in expected_shapes(config).items():
        if path.endswith(("scale", "bias", "pos_embedding")):
            continue
        through = trains_vision and path != "img/embedding/kernel"
        tokens: float = patches
        if path.startswith("llm/"):
            through, tokens = True, sequence
        if path == "llm/embedder/input_embedding":
            tokens = targets
        total += 2 * prod(shape) * tokens * (1 + through + (path in trained))
    # Scores and mixtures of attention: everyone with everyone, masked or not.
    per_image = vision.depth * vision.width * vision.num_patches**2
    total += 4 * images * per_image * (3 if trains_vision else 1)
    total += 4 * text.depth * text.num_heads * text.head_dim * sequence**2 * 3
    return total
