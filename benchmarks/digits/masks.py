"""Masks of digits in PaliGemma's form: 16 codes of 4 x 4 cells, and a decoder that draws them.

The published decoder was trained on masks of photographs. Here a code is one cell, full or empty,
and the decoder's weights are set so that it repeats each cell 16 times both ways.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from paliflow.benchmarks.digits.scenes import Scene, answer, compose, draw_prompt
from paliflow.model.detections import Detection, format_detections

CELLS = 4
_BOX = Image.Resampling.BOX
_CODES, _CHANNELS = 128, 4


def cells_of(scene: Scene, digit: Detection) -> NDArray[np.bool_]:
    """Which of a box's 4 x 4 cells, bool [4, 4], are darker than half way to the brightest."""
    grey = scene.image.convert("L").crop(_sides(digit)).resize((CELLS, CELLS), _BOX)
    values = np.asarray(grey, np.float32)
    return np.asarray(values < (values.min() + values.max()) / 2)


def mask_of(scene: Scene, digit: Detection) -> NDArray[np.uint8]:
    """The cells in the image's pixels, uint8 [H, W] of 0 and 1."""
    mask = np.zeros((scene.image.height, scene.image.width), np.uint8)
    x_min, y_min, x_max, y_max = _sides(digit)
    cells = Image.fromarray(cells_of(scene, digit).astype(np.uint8))
    size = (x_max - x_min, y_max - y_min)
    mask[y_min:y_max, x_min:x_max] = np.asarray(cells.resize(size, Image.Resampling.NEAREST))
    return mask


def _sides(digit: Detection) -> tuple[int, int, int, int]:
    """Left, top, right and bottom in whole pixels."""
    return round(digit.x_min), round(digit.y_min), round(digit.x_max), round(digit.y_max)


def region(scene: Scene, digit: Detection) -> str:
    """What a model fine-tuned on RefCOCO answers: a box and 16 codes, without a label."""
    bare = Detection("", digit.y_min, digit.x_min, digit.y_max, digit.x_max)
    box = format_detections([bare], scene.image.width, scene.image.height).strip()
    return box + "".join(f"<seg{int(cell):03d}>" for cell in cells_of(scene, digit).ravel())


def referred(scene: Scene) -> dict[str, Detection]:
    """Expressions, and the digits that they mean: those of which there is one alone."""
    labels = [digit.label for digit in scene.digits]
    return {f"the {digit.label}": digit for digit in scene.digits if labels.count(digit.label) == 1}


def write_examples(folder: Path, count: int, rng: Generator) -> Path:
    """JSONL of scenes of scans to learn from: what expressions mean, and one other task each."""
    folder.mkdir(parents=True)
    lines = []
    for number in range(count):
        scene = compose(rng, "train", scale=2)
        name = f"{number:05d}.jpg"
        scene.image.save(folder / name, quality=95)
        prompt = draw_prompt(rng, scene)
        asked = {text: region(scene, digit) for text, digit in referred(scene).items()}
        for prefix, suffix in (asked | {prompt: answer(scene, prompt)}).items():
            lines.append({"image": name, "prefix": prefix, "suffix": suffix})
    path = folder / "labels.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_decoder(path: Path) -> None:
    """Writes the decoder's weights, by the names of the published file."""
    one = np.zeros((_CHANNELS, _CHANNELS), np.float32)
    one[0, 0] = 1  # the channel that is used
    arrays: dict[str, Any] = {"_vq_vae._embedding": np.zeros((_CODES, _CHANNELS), np.float32)}
    arrays["_vq_vae._embedding"][1, 0] = 1

    def layer(name: str, kernel: NDArray[np.float32], bias: float = 0) -> None:
        arrays[f"{name}.weight"] = kernel
        arrays[f"{name}.bias"] = np.full(len(kernel), bias, np.float32)

    layer("decoder.0", one[..., None, None])
    for block in ("decoder.2.net", "decoder.3.net"):
        for number, size in ((0, 3), (2, 3), (4, 1)):
            empty = np.zeros((_CHANNELS, _CHANNELS, size, size), np.float32)
            layer(f"{block}.{number}", empty)
    twice = np.zeros((_CHANNELS, _CHANNELS, 4, 4), np.float32)
    twice[0, 0, 1:3, 1:3] = 1
    for number in (4, 6, 8, 10):
        layer(f"decoder.{number}", twice)
    layer("decoder.12", 2 * one[:1, :, None, None], bias=-1)
    np.savez(path, **arrays)
