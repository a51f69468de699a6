"""Scenes composed of real scanned digits on paper-like backgrounds, with questions and answers."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from sklearn.datasets import load_digits

from paliflow.model.detections import Detection, format_detections

GRID = 56
"""Scenes are laid out on a grid of GRID x GRID cells; every box edge lies on it."""
MAX_DIGITS = 3
TEST_SHARE = 0.2
NUMBER_WORDS = ("no", "one", "two", "three")


@dataclass(frozen=True)
class Scene:
    """An image and the digits on it, from left to right, boxes in pixels."""

    image: Image.Image
    digits: tuple[Detection, ...]


@cache
def scans(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """scikit-learn's digits, [n, 8, 8] in 0..255 and labels; `train` and `test` share no scan."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    cut = int(len(order) * TEST_SHARE)
    chosen = {"test": order[:cut], "train": order[cut:]}[split]
    return (data.images[chosen] / 16 * 255).astype(np.uint8), data.target[chosen]


def compose(rng: Generator, split: str, scale: int, max_digits: int = MAX_DIGITS) -> Scene:
    """Draws one to `max_digits` digits, dark on light, at `scale` pixels per grid cell."""
    images, labels = scans(split)
    canvas = draw_paper(rng, GRID * scale)
    tint = (
        np.array(rng.integers(0, 90, 3)) if rng.random() < 0.5 else np.full(3, rng.integers(0, 70))
    )
    colour = tuple(int(c) for c in tint)
    found: list[Detection] = []
    shares = np.array([0.25, 0.35, 0.4][:max_digits])
    for _ in range(rng.choice(max_digits, p=shares / shares.sum()) + 1):
        pick = rng.integers(len(labels))
        ink = draw_ink(rng, images[pick])
        for _ in range(20):
            height = int(rng.integers(16, 27))
            width = int(np.clip(round(ink.width / ink.height * height), 5, 26))
            x, y = int(rng.integers(0, GRID - width + 1)), int(rng.integers(0, GRID - height + 1))
            box = Detection(str(labels[pick]), y, x, y + height, x + width)
            if not any(_collide(box, other) for other in found):
                found.append(box)
                stamp = ink.resize((width * scale, height * scale), Image.Resampling.BICUBIC)
                alpha = stamp.point([min(255, max(0, (v - 92) * 2)) for v in range(256)])
                canvas.paste(colour, (x * scale, y * scale), alpha)
                break
    if rng.random() < 0.3:
        canvas = canvas.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 0.25) * scale)))
    digits = tuple(
        Detection(d.label, d.y_min * scale, d.x_min * scale, d.y_max * scale, d.x_max * scale)
        for d in sorted(found, key=lambda d: d.x_min)
    )
    return Scene(canvas, digits)


def _collide(a: Detection, b: Detection) -> bool:
    # No digit above another: what is read first is never in doubt.
    return a.x_min <= b.x_max and b.x_min <= a.x_max


def draw_ink(rng: Generator, scan: NDArray[np.uint8]) -> Image.Image:
    """A scan, turned and slanted a little, cropped to its ink."""
    big = Image.fromarray(np.pad(scan, 2)).resize((48, 48), Image.Resampling.BICUBIC)
    angle, slant = rng.uniform(-0.18, 0.18), rng.uniform(-0.15, 0.15)
    cos, sin = np.cos(angle), np.sin(angle)
    a, b, d, e = cos + slant * sin, slant * cos - sin, sin, cos
    matrix = (a, b, 24 * (1 - a - b), d, e, 24 * (1 - d - e))
    turned = big.transform(big.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    box = turned.point([255 * (v > 112) for v in range(256)]).getbbox()
    return turned.crop(box)


def draw_paper(rng: Generator, size: int) -> Image.Image:
    """Paper: a light colour, shaded, mottled, sometimes ruled or squared."""
    base = rng.integers(165, 256, 3)
    if rng.random() < 0.5:
        base[:] = base.max()
    cells = int(rng.integers(2, 9))
    mottle = rng.normal(0, rng.uniform(0, 14), (cells, cells, 1)) + base
    coarse = Image.fromarray(np.clip(mottle, 120, 255).astype(np.uint8))
    canvas = coarse.resize((size, size), Image.Resampling.BICUBIC)
    if rng.random() < 0.4:
        draw = ImageDraw.Draw(canvas)
        shade = tuple(int(c) for c in np.clip(base - rng.integers(15, 60, 3), 100, 255))
        step, start = rng.uniform(0.1, 0.3) * size, rng.uniform(0, 0.1) * size
        both = rng.random() < 0.4
        line = max(1, round(size / 224))
        for at in np.arange(start, size, step):
            draw.line([(0, at), (size, at)], fill=shade, width=line)
            if both:
                draw.line([(at, 0), (at, size)], fill=shade, width=line)
    if rng.random() < 0.5:
        grain = rng.normal(0, rng.uniform(0, 8), (size, size, 1))
        noisy = np.asarray(canvas, np.float32) + grain
        canvas = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    return canvas


def answer(scene: Scene, prompt: str) -> str:
    """The ground truth of a prompt in PaliGemma's syntax.

    Raises:
        ValueError: no scene can answer this prompt.
    """
    labels = [d.label for d in scene.digits]
    if prompt == "ocr":
        return " ".join(labels)
    if prompt == "caption en":
        noun = "digit" if len(labels) == 1 else "digits"
        return f"{NUMBER_WORDS[len(labels)]} handwritten {noun}: {', '.join(labels)}"
    if prompt.startswith("answer en "):
        return _answer_question(labels, prompt.removeprefix("answer en "))
    if prompt.startswith("detect "):
        wanted = prompt.removeprefix("detect ").split(" ; ")
        boxes = [
            Detection(name, d.y_min, d.x_min, d.y_max, d.x_max)
            for d in scene.digits
            for name in wanted
            if name in ("digit", d.label)
        ]
        return format_detections(boxes, scene.image.width, scene.image.height)
    raise ValueError(f"no scene can answer {prompt!r}")


def _answer_question(labels: list[str], question: str) -> str:
    if question == "how many digits are there?":
        return str(len(labels))
    if question == "what is the leftmost digit?":
        return labels[0]
    if question == "what is the rightmost digit?":
        return labels[-1]
    if question.startswith("is there a "):
        return "yes" if question.removeprefix("is there a ").rstrip("?") in labels else "no"
    raise ValueError(f"no scene can answer {question!r}")


def draw_prompt(rng: Generator, scene: Scene) -> str:
    """A prompt for training, the harder tasks more often."""
    labels = [d.label for d in scene.digits]
    some = str(rng.choice(labels))
    either = str(rng.choice([some, *map(str, rng.integers(10, size=1))]))
    names = [*labels, *map(str, rng.integers(10, size=2))]
    rng.shuffle(names)
    names = names[: rng.integers(1, MAX_DIGITS + 1)]
    choices = {
        "ocr": 0.26,
        "caption en": 0.05,
        "detect digit": 0.2,
        f"detect {some}": 0.05,
        f"detect {' ; '.join(dict.fromkeys(names))}": 0.25,
        "answer en how many digits are there?": 0.05,
        "answer en what is the leftmost digit?": 0.05,
        "answer en what is the rightmost digit?": 0.05,
        f"answer en is there a {either}?": 0.04,
    }
    weights = np.array(list(choices.values()))
    return str(rng.choice(list(choices), p=weights / weights.sum()))
