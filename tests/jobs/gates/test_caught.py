"""What goes wrong in the field is caught: weights, images, prompts, cameras unlike before."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops

from paliflow.benchmarks.digits.scenes import answer, compose
from paliflow.configs import AnnotateSpec
from paliflow.configs.base import QuarantineError
from paliflow.model import BUNDLED_CHECKPOINT
from paliflow.tests.jobs.here import annotate_here

COUNT, LEFTMOST = "answer en how many digits are there?", "answer en what is the leftmost digit?"
SCENES = 150


def write_scenes(folder: Path, seed: int) -> Path:
    """Scenes, and what is right of the first of them."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    lines = []
    for number in range(SCENES):
        scene = compose(rng, "test", scale=2)
        scene.image.save(folder / f"{number}.png")
        row = {"image": f"{number}.png", "prefix": COUNT, "suffix": answer(scene, COUNT)}
        lines.append(json.dumps(row) + "\n")
    (folder / "labels.jsonl").write_text("".join(lines[:32]))
    return folder


def damaged_checkpoint(folder: Path) -> str:
    """The bundled weights, of which one array is noise."""
    folder.mkdir()
    weights = dict(np.load(BUNDLED_CHECKPOINT))
    name = max(weights, key=lambda name: weights[name].size if "llm" in name else 0)
    noise = np.random.default_rng(0).normal(0, 0.3, weights[name].shape)
    weights[name] = noise.astype(np.float32)
    np.savez(folder / "model.npz", **weights)
    (folder / "tokenizer.model").write_bytes(
        BUNDLED_CHECKPOINT.with_name("tokenizer.model").read_bytes()
    )
    return str(folder / "model.npz")


def changed(folder: Path, scenes: Path, change: Any) -> str:
    """The scenes, each changed."""
    folder.mkdir()
    for path in scenes.glob("*.png"):
        change(Image.open(path)).save(folder / path.name)
    return str(folder)


@pytest.mark.slow
def test_what_goes_wrong_is_caught_and_what_does_not_passes(tmp_path: Path) -> None:
    before, after = write_scenes(tmp_path / "a", 1), write_scenes(tmp_path / "b", 2)

    def annotate(run_id: str, **fields: Any) -> str:
        """Which checks the run failed."""
        canaries = {"path": str(before / "labels.jsonl"), "at_least": 0.8}
        spec: dict[str, Any] = {
            "input": str(after), "output": str(tmp_path / "out"), "run_id": run_id,
            "prompts": [{"ask": COUNT, "choices": "0..9", "name": "digits"}],
            "report": False, "gate": {"drift": {"against": "before"}, "canaries": canaries},
        }  # fmt: skip
        try:
            annotate_here(AnnotateSpec.parse(spec | fields))
        except QuarantineError as error:
            return str(error)
        return ""

    assert not annotate("before", input=str(before), gate=None)
    assert not annotate("clean")
    dark = changed(tmp_path / "dark", after, lambda image: Image.new("RGB", image.size))
    assert "drift of" in annotate("blank", input=dark)
    shifted = changed(
        tmp_path / "moved", after, lambda image: ImageChops.offset(image, image.width // 2, 0)
    )
    assert "drift of" in annotate("shifted", input=shifted)
    swapped = [{"ask": LEFTMOST, "choices": "0..9", "name": "digits"}]
    assert "drift of labels of 'digits'" in annotate("swapped", prompts=swapped)
    weights = damaged_checkpoint(tmp_path / "damaged")
    assert "canaries' exact_match" in annotate("damaged", checkpoint=weights)
