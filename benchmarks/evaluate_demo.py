"""`make evaluate-demo`: scenes of digits as public benchmarks, two checkpoints side by side.

The scenes lie in the official files of COCO captions, VQAv2, POPE, TallyQA, DocVQA, RefCOCO and
MSR-VTT, and are asked as a user would ask: by the command line. The bundled checkpoint learns masks
first. The second checkpoint is what it became with noise on its weights, and has to be the worse.
"""

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import ray
import yaml

from paliflow.benchmarks.demo import HOME
from paliflow.benchmarks.digits import masks
from paliflow.benchmarks.digits.measure import held_out_scenes
from paliflow.benchmarks.digits.scenes import Scene, answer
from paliflow.jobs.evaluate.scoreboard import read_scoreboard
from paliflow.model.npz import read_npz

ROOT = HOME / "evaluate"
DATA, RUNS, WORN = ROOT / "data", ROOT / "evaluations", ROOT / "worn" / "model.npz"
LEARNT, DECODER = ROOT / "models" / "run_id=masks" / "model" / "model.npz", ROOT / "decoder.npz"
SCENES, LEARNT_SCENES = 24, 340
FEW, FILMS = 10, 6
"""Scenes of which answers take long: films and masks."""
LEAST_IOU = 0.1
NOISE = 0.4
"""Of a weight's standard deviation."""
COUNT, LEFTMOST = "how many digits are there?", "what is the leftmost digit?"


def main() -> None:
    """Runs it; exits with 1 where the worn checkpoint is not the worse one, or a figure lacks."""
    started = time.monotonic()
    shutil.rmtree(ROOT, ignore_errors=True)
    with cluster():
        run()
    print(f"{time.monotonic() - started:.0f} s")
    check()


@contextmanager
def cluster() -> Iterator[None]:
    """A Ray cluster that all commands find: to start one each takes longer than what most of them
    do there."""
    ray.init(
        "local",
        include_dashboard=False,
        object_store_memory=2**28,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    try:
        yield
    finally:
        del os.environ["RAY_ADDRESS"]
        ray.shutdown()


def run() -> None:
    """Writes the benchmarks, fine-tunes, evaluates both checkpoints and leaves the scoreboard."""
    pictures = held_out_scenes(SCENES)
    for write in WRITERS:
        write(DATA / write.__name__, pictures)
    paliflow("benchmarks", "check", str(DATA), *(write.__name__ for write in WRITERS))
    learn_masks()
    wear()
    for name, checkpoint in (("learnt", LEARNT), ("worn", WORN)):
        for part, fields in ASKED.items():
            common = {"data": str(DATA), "output": str(RUNS), "run_id": f"{name}-{part}"}
            common |= {"checkpoint": str(checkpoint), "compilation_cache": str(ROOT / "compiled")}
            common |= {"dtype": "float32"}  # on a CPU twice as fast as bfloat16
            paliflow("evaluate", _spec(f"{name}-{part}", {**common, **fields}))
    page = ROOT / "scoreboard.html"
    paliflow("scoreboard", str(RUNS), "--html", str(page))
    print(f"To look at: {page}")


def learn_masks() -> None:
    """Fine-tunes the bundled checkpoint on expressions and the masks of what they mean."""
    labels = masks.write_examples(ROOT / "train", LEARNT_SCENES, np.random.default_rng(3))
    masks.write_decoder(DECODER)
    fields = {"output": str(ROOT / "models"), "run_id": "masks", "train": [{"path": str(labels)}]}
    recipe = {"duration": {"epochs": 1}, "batch_size": 16, "learning_rate": 1e-3}
    paliflow("finetune", _spec("finetune", {**fields, **recipe, "dtype": "float32"}))


def check() -> None:
    """
    Raises:
        SystemExit: the figures are not what such checkpoints can have.
    """
    board = read_scoreboard([str(RUNS)])
    measured = [[own.measured if own else None for own in line.entries] for line in board.lines]
    if any(None in own for own in measured):
        raise SystemExit("a figure lacks")
    means = np.array(measured, np.float64).mean(axis=0)
    of = {"worn" in name: mean for name, mean in zip(board.checkpoints, means, strict=True)}
    learnt, worn = of[False], of[True]
    if not learnt > worn:
        raise SystemExit(f"the mean is {learnt:.1f}, and {worn:.1f} of the worn checkpoint")
    column = next(n for n, name in enumerate(board.checkpoints) if "worn" not in name)
    for line, own in zip(board.lines, measured, strict=True):
        if line.benchmark == "refcoco" and not (own[column] or 0) > 100 * LEAST_IOU:
            raise SystemExit(f"the mean IoU of {line.figure}'s masks is {own[column]}")


def paliflow(*arguments: str) -> None:
    """Runs the command line, shown as typed."""
    print("$ paliflow", *arguments, flush=True)
    command = [sys.executable, "-c", "from paliflow.jobs.cli.main import main; main()", *arguments]
    subprocess.run(command, check=True)


def wear() -> None:
    """Writes the learnt checkpoint with noise on its matrices."""
    rng = np.random.default_rng(0)
    WORN.parent.mkdir()
    arrays = read_npz(LEARNT)
    weights = {name: array.read(np.dtype(np.float32)) for name, array in arrays.items()}
    for weight in weights.values():
        if weight.ndim > 1:
            weight += rng.normal(0, NOISE * weight.std(), weight.shape)
    arguments: dict[str, Any] = {**weights}
    np.savez(WORN, **arguments)
    shutil.copy(LEARNT.with_name("tokenizer.model"), WORN.parent)


def cococap(folder: Path, pictures: list[Scene]) -> None:
    images = []
    for number, scene in enumerate(pictures):
        name = _saved(scene, folder, "val2014", f"COCO_val2014_{number:012d}.jpg")
        said = answer(scene, "caption en")
        sentences = [{"raw": each} for each in (said, f"{said}.", said.replace("handwritten ", ""))]
        own = {"filepath": "val2014", "filename": name, "cocoid": number, "split": "val"}
        images.append({**own, "sentences": sentences})
    _write(folder / "dataset_coco.json", {"images": images})


def vqav2(folder: Path, pictures: list[Scene]) -> None:
    questions, annotations = [], []
    for number, scene in enumerate(pictures):
        _saved(scene, folder, "val2014", f"COCO_val2014_{number:012d}.jpg")
        for kind, (question, about) in enumerate({COUNT: "number", LEFTMOST: "other"}.items()):
            own = {"question_id": 10 * number + kind, "image_id": number}
            said = answer(scene, f"answer en {question}")
            people = [{"answer_id": n, "answer": said if n else "unclear"} for n in range(10)]
            words = " ".join(question.split()[:2])
            questions.append({**own, "question": question})
            annotations.append(
                {**own, "answer_type": about, "question_type": words, "answers": people}
            )
    _write(folder / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    _write(folder / "v2_mscoco_val2014_annotations.json", {"annotations": annotations})


def pope(folder: Path, pictures: list[Scene]) -> None:
    rng = np.random.default_rng(1)
    for kind in ("random", "popular", "adversarial"):
        rows = []
        for number, scene in enumerate(pictures):
            name = _saved(scene, folder, "val2014", f"{number}.jpg")
            there = str(rng.choice([digit.label for digit in scene.digits]))
            text = f"is there a {rng.choice([there, str(rng.integers(10))])}?"
            label = answer(scene, f"answer en {text}")
            rows.append({"question_id": number, "image": name, "text": text, "label": label})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"coco_pope_{kind}.json").write_text(lines)


def tallyqa(folder: Path, pictures: list[Scene]) -> None:
    rows = []
    for number, scene in enumerate(pictures):
        _saved(scene, folder, "VG_100K", f"{number}.jpg")
        count = len(scene.digits)
        own = {"image": f"VG_100K/{number}.jpg", "image_id": number, "question_id": number}
        rows.append({**own, "question": COUNT, "answer": count, "issimple": count < 3})
    _write(folder / "test.json", rows)


def docvqa(folder: Path, pictures: list[Scene]) -> None:
    rows = []
    for number, scene in enumerate(pictures):
        _saved(scene, folder, "val/documents", f"{number}.png")
        own = {"questionId": number, "question": "ocr", "image": f"documents/{number}.png"}
        answers = [answer(scene, "ocr"), answer(scene, "ocr").replace(" ", "")]
        rows.append({**own, "answers": answers, "question_types": ["handwritten"]})
    _write(folder / "val_v1.0_withQT.json", {"data": rows})


def refcoco(folder: Path, pictures: list[Scene]) -> None:
    """Each digit that is alone of its kind is an object; the three sets have the same ones."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    references: list[dict[str, Any]] = []
    for number, scene in enumerate(pictures[:FEW]):
        _saved(scene, folder, "train2017", f"{number:012d}.jpg")
        size = {"height": scene.image.height, "width": scene.image.width}
        images.append({"id": number, "file_name": f"{number:012d}.jpg", **size})
        for expression, digit in masks.referred(scene).items():
            key = len(annotations)
            mask = masks.mask_of(scene, digit)
            flat = np.concatenate([[0], mask.ravel(order="F"), [1 - mask[-1, -1]]])
            edges = np.flatnonzero(np.diff(flat))
            runs = np.diff([0, *edges]).tolist()
            box = [digit.x_min, digit.y_min]
            box += [digit.x_max - digit.x_min, digit.y_max - digit.y_min]
            own = {"image_id": number, "category_id": 1}
            region = {"segmentation": {"size": list(mask.shape), "counts": runs}, "bbox": box}
            annotations.append({"id": key, **own, **region, "iscrowd": 1})
            sentence = {"sent_id": key, "sent": expression, "raw": expression, "tokens": []}
            about = {"ref_id": key, "ann_id": key, "split": "val", "sent_ids": [key]}
            references.append({**own, **about, "file_name": "x.jpg", "sentences": [sentence]})
    (folder / "annotations").mkdir()
    content = {"images": images, "annotations": annotations}
    _write(folder / "annotations" / "instances_train2017.json", content)
    for name, author in (("refcoco", "unc"), ("refcoco+", "unc"), ("refcocog", "umd")):
        (folder / name).mkdir()
        (folder / name / f"refs({author}).p").write_bytes(pickle.dumps(references))


def msrvtt_cap(folder: Path, pictures: list[Scene]) -> None:
    """Films in which a page lies still."""
    videos, sentences = [], []
    folder.mkdir(parents=True)
    for number, scene in enumerate(pictures[:FILMS]):
        name = f"video{number}"
        with av.open(folder / f"{name}.mp4", "w") as film:
            stream = film.add_stream("mpeg4", 10)
            stream.width, stream.height, stream.bit_rate = *scene.image.size, 4_000_000
            for _ in range(40):
                film.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(scene.image))))
            film.mux(stream.encode())
        said = answer(scene, "caption en")
        videos.append({"video_id": name, "split": "test"})
        sentences += [{"video_id": name, "caption": each} for each in (said, f"{said}.")]
    _write(folder / "MSRVTT_data.json", {"videos": videos, "sentences": sentences})


WRITERS: tuple[Callable[[Path, list[Scene]], None], ...] = (
    *(cococap, vqav2, pope, tallyqa, docvqa, refcoco, msrvtt_cap),
)
ASKED: dict[str, dict[str, Any]] = {
    "captions": {"benchmarks": ["cococap"]},  # by beam search
    "images": {
        "benchmarks": ["vqav2", "pope", "tallyqa", "docvqa", "refcoco"],
        "max_new_tokens": 48,  # what most want of them; the others' answers end by themselves
        "mask_decoder": str(DECODER),
    },
    "films": {"benchmarks": ["msrvtt_cap"]},
}
"""Which benchmarks are one run: those that are asked alike."""


def _saved(scene: Scene, folder: Path, below: str, name: str) -> str:
    """Saves a scene's picture; returns its name."""
    (folder / below).mkdir(parents=True, exist_ok=True)
    scene.image.save(folder / below / name, quality=95)
    return name


def _spec(name: str, fields: dict[str, Any]) -> str:
    """Writes a spec; returns its path."""
    path = ROOT / f"{name}.yaml"
    path.write_text(yaml.safe_dump(fields, sort_keys=False))
    return str(path)


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


if __name__ == "__main__":
    main()
