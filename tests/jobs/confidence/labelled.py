"""Evaluations with their answers' scores, made without a model."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from paliflow.configs import AnnotateSpec, EvaluateSummary, RunSummary
from paliflow.configs.prompts import task_of
from paliflow.configs.schema import PREDICTIONS, SCORE
from paliflow.jobs.runs.outputs import write_manifest
from paliflow.jobs.runs.parts import commit_part

SHELF, FREE, DETECT = "answer en which shelf?", "answer en what is it?", "detect cat"
PROMPTS = [{"ask": SHELF, "choices": ["top", "middle", "none"]}]
LOC = "<loc0256><loc0256><loc0768><loc0768> cat"
"""In the middle; its overlap with what is a quarter further is less than a half."""


def scored_evaluation(
    folder: Path,
    count: int = 400,
    *,
    checkpoint: str = "/models/a.npz",
    sha256: str = "5" * 64,
    **fields: Any,
) -> str:
    """The location of an evaluation of `count` images, each asked three questions, whose raw scores
    are higher than what is right; `fields` of how it was asked may be given."""
    location = folder / "run_id=week-31"
    (location / "_answers").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, predicted = [], []
    for number in range(count):
        for prompt in (SHELF, FREE, DETECT):
            raw = float(rng.beta(8, 1))
            right = bool(rng.random() < raw**3)
            rows.append(_row(number, prompt, raw, right))
            predicted.append(_prediction(number, prompt, right))
    asked = AnnotateSpec.parse(
        {
            "output": str(location / "_answers"),
            "run_id": "week-31",
            "input": "questions.parquet",
            "prompt_column": "prefix",
            "prompts": PROMPTS,
        }
        | fields
    )
    about = {"inputs": "1", "failed": "0", "checkpoint_sha256": sha256}
    commit_part(asked.location, 0, rows, about)
    now = datetime.now(UTC)
    both: dict[str, Any] = {
        "run_id": "week-31", "started": now, "finished": now, "seconds": 1.0, "versions": {},
        "checkpoint": checkpoint, "checkpoint_sha256": sha256, "errors": 0,
    }  # fmt: skip
    write_manifest(
        RunSummary.parse(
            both
            | {"location": asked.location, "spec": asked.model_dump(mode="json"), "shards": 1}
            | {"inputs": len(rows), "rows": len(rows), "ok": len(rows), "images_per_second": 1.0}
        )
    )
    schema = pa.schema([*PREDICTIONS, pa.field("exact_match", SCORE)])
    pq.write_table(pa.Table.from_pylist(predicted, schema), location / "predictions.parquet")
    own = {"rows": len(rows), "of": len(rows), "broken": 0, "answered": len(rows)}
    write_manifest(
        EvaluateSummary.parse(
            both
            | {"location": str(location), "spec": {"sets": {}}, "examples": len(rows)}
            | {"examples_sha256": "e", "figures": {"all/exact_match": 0.5}}
            | {"sets": {"all": own | {"scored": len(rows)}}}
        )
    )
    return str(location)


def _row(number: int, prompt: str, raw: float, right: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "source_uri": f"{number}.png", "id": f"all/{number} {prompt}", "task": task_of(prompt),
        "prompt": prompt, "text": "top" if number % 2 else "middle", "status": "ok",
        "logprob": float(np.log(raw)), "token_count": 2, "finished": True,
        "width": 100, "height": 100,
    }  # fmt: skip
    if prompt == SHELF:
        row["choices"] = [{"label": row["text"], "probability": raw}]
    if prompt == DETECT:
        at = 25.0 if right else 50.0
        box = {"label": "cat", "y_min": at, "x_min": at, "y_max": at + 50, "x_max": at + 50}
        row["detections"] = [
            box | {"score": 0.5, "label_probability": raw**0.5, "location_mass": raw**0.5}
        ]
    return row


def _prediction(number: int, prompt: str, right: bool) -> dict[str, Any]:
    return {
        "set": "all", "id": f"{number} {prompt}", "image": f"{number}.png",
        "image_sha256": str(number), "prefix": prompt, "status": "ok",
        "references": [LOC if prompt == DETECT else "top"],
        "exact_match": {"numerator": float(right), "denominator": 1.0},
    }  # fmt: skip
