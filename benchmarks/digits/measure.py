"""Measures a checkpoint on scenes of held-out scans: reading, counting, detecting."""

from collections.abc import Sequence

import numpy as np

from paliflow.benchmarks.digits import scenes
from paliflow.metrics import detection_f1
from paliflow.model import PaliGemma, Tokenizer, parse_detections, preprocess

COUNT = "answer en how many digits are there?"
PROMPTS = ("ocr", COUNT, "caption en", "answer en what is the leftmost digit?", "detect digit")


def held_out_scenes(count: int, seed: int = 2024) -> list[scenes.Scene]:
    """Scenes of scans that training never saw, four pixels a grid cell."""
    rng = np.random.default_rng(seed)
    return [scenes.compose(rng, "test", scale=4) for _ in range(count)]


def ask(
    model: PaliGemma,
    tokenizer: Tokenizer,
    asked: Sequence[tuple[scenes.Scene, str]],
    batch_size: int = 50,
    max_new_tokens: int = 32,
) -> list[str]:
    """The model's greedy answer to each (scene, prompt)."""
    answers = []
    for start in range(0, len(asked), batch_size):
        batch = asked[start : start + batch_size]
        images = np.stack([preprocess(s.image, model.config.image_size) for s, _ in batch])
        prompts = [tokenizer.encode_prompt(prompt, 32) for _, prompt in batch]
        rows = np.full((len(batch), 32), tokenizer.pad_id, np.int32)
        for row, ids in zip(rows, prompts, strict=True):
            row[: len(ids)] = ids
        mask = np.arange(32) < np.array([[len(ids)] for ids in prompts])
        result = model.generate(
            images, rows, mask, max_new_tokens=max_new_tokens, eos_id=tokenizer.eos_id
        )
        for tokens, length, ended in zip(
            *(np.asarray(x) for x in (result.tokens, result.lengths, result.finished)), strict=True
        ):
            answers.append(tokenizer.decode(tokens[: length - ended]))
    return answers


def measure(model: PaliGemma, tokenizer: Tokenizer, count: int) -> dict[str, float]:
    """Exact match for each question, and detection F1 at IoU 0.5, over `count` held-out scenes."""
    held_out = held_out_scenes(count)
    figures = {}
    for prompt in PROMPTS[:-1]:
        given = ask(model, tokenizer, [(scene, prompt) for scene in held_out])
        right = [a == scenes.answer(s, prompt) for s, a in zip(held_out, given, strict=True)]
        figures[f"{prompt} (exact match)"] = float(np.mean(right))
    queries = {
        "detect digit": [(scene, "detect digit") for scene in held_out],
        "detect 0 ; 1 or the like": [
            (s, f"detect {' ; '.join(dict.fromkeys(d.label for d in s.digits))}") for s in held_out
        ],
    }
    for name, asked in queries.items():
        given = ask(model, tokenizer, asked)
        references, predictions = (
            [_boxes(text, *s.image.size) for text, (s, _) in zip(texts, asked, strict=True)]
            for texts in ([scenes.answer(scene, prompt) for scene, prompt in asked], given)
        )
        figures[f"{name} (F1 at IoU 0.5)"] = detection_f1(references, predictions, iou=0.5)
    return figures


def agrees(prompt: str, given: str, wanted: str, width: int, height: int) -> bool:
    """Whether an answer is right: the same text, or all boxes and no other, at IoU 0.5."""
    if not prompt.startswith("detect "):
        return given == wanted
    return detection_f1([_boxes(wanted, width, height)], [_boxes(given, width, height)]) == 1


def _boxes(
    text: str, width: int, height: int
) -> list[tuple[str, tuple[float, float, float, float]]]:
    found = parse_detections(text, width, height)
    return [(d.label, (d.y_min, d.x_min, d.y_max, d.x_max)) for d in found]
