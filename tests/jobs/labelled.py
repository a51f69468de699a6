"""Labelled scenes for tests of training, and fine-tuning specs that run fast."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from sentencepiece import sentencepiece_model_pb2

from paliflow.benchmarks.digits.scenes import answer, compose
from paliflow.configs import FineTuneSpec
from paliflow.jobs.examples.plan import sources_of, write_examples
from paliflow.jobs.finetune.start import begin, steps_of
from paliflow.jobs.finetune.worker import Job, Outcome, Preemption, work


def write_scenes(path: Path, split: str, count: int) -> Path:
    """Writes scenes and a .jsonl file of what stands on them; returns the file."""
    rng = np.random.default_rng(len(split))
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        scene = compose(rng, split, 2)
        name = f"{split}-{number}.png"
        scene.image.save(path.parent / name)
        row = {"image": name, "prefix": "ocr", "suffix": answer(scene, "ocr")}
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines))
    return path


def finetune_spec(folder: Path, /, **fields: Any) -> FineTuneSpec:
    """A spec that trains the bundled checkpoint for twelve steps; any field may be given.

    Args:
        folder: has `train.jsonl` and `test.jsonl`; the output goes there as well.
        fields: instead of the defaults.
    """
    defaults = {
        "output": str(folder / "output"),
        "run_id": "test",
        "train": [{"path": str(folder / "train.jsonl")}],
        "validation": {"held_out": {"path": str(folder / "test.jsonl")}},
        "duration": {"steps": 12},
        "validate_every": {"steps": 6},
        "save_every": {"steps": 3},
        "batch_size": 4,
        "image_size": 56,
        "max_tokens": 16,
        "max_new_tokens": 6,
        "learning_rate": 1e-4,
        "dropout": 0.1,
        "frozen": [] if "lora" in fields else ["img/.*"],
        "dtype": "float32",
        "remat": True,  # compiles one layer, not each
    }
    return FineTuneSpec.parse(defaults | fields)


def train_here(spec: FineTuneSpec, preemption: Preemption = lambda: None) -> Outcome:
    """What one worker does, in this process."""
    start, plan = begin(spec), write_examples(spec.location, sources_of(spec), spec)
    examples = sum(s.examples for s in plan.sources if s.name.startswith("train/"))
    packed = Job(spec, start, plan, steps_of(spec, examples)).packed()
    return Outcome.unpacked(work(packed, preemption))


def swap_pieces(tokenizer: Path) -> None:
    """Exchanges two pieces of a tokenizer: the same ids say something else."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.read_bytes())  # type: ignore[attr-defined]
    one, other = proto.pieces[300], proto.pieces[301]
    one.piece, other.piece = other.piece, one.piece
    tokenizer.write_bytes(proto.SerializeToString())
