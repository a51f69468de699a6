"""`make evaluate-demo`: scenes of digits as public benchmarks, two checkpoints side by side.

The scenes lie in the official files of COCO captions, VQAv2, POPE, TallyQA, DocVQA and MSR-VTT, and
are asked as a user would ask: by the command line. The second checkpoint is the bundled one with
noise on its weights, and has to be the worse of the two.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from paliflow.benchmarks.demo import HOME
from paliflow.benchmarks.digits.measure import held_out_scenes
from paliflow.benchmarks.digits.scenes import Scene, answer
from paliflow.jobs.evaluate.scoreboard import read_scoreboard
from paliflow.model import BUNDLED_CHECKPOINT
from paliflow.model.npz import read_npz

ROOT = HOME / "evaluate"
DATA, RUNS, WORN = ROOT / "data", ROOT / "evaluations", ROOT / "worn" / "model.npz"
SCENES = 24
NOISE = 0.4
"""Of a weight's standard deviation."""
COUNT, LEFTMOST = "how many digits are there?", "what is the leftmost digit?"


def main() -> None:
    """Runs it; exits with 1 where the worn checkpoint is not the worse one, or a figure lacks."""
    started = time.monotonic()
    shutil.rmtree(ROOT, ignore_errors=True)
    pictures = held_out_scenes(SCENES)
    for write in WRITERS:
        write(DATA / write.__name__, pictures)
    wear()
    names = [write.__name__ for write in WRITERS]
    paliflow("benchmarks", "check", str(DATA), *names)
    asked = [argument for name in names for argument in ("--benchmark", name)]
    for run, checkpoint in (("bundled", BUNDLED_CHECKPOINT), ("worn", WORN)):
        where = ["--data", str(DATA), "--output", str(RUNS), "--run-id", run]
        where += ["--set", f"compilation_cache={ROOT / 'compiled'}"]
        paliflow("evaluate", *asked, *where, "--checkpoint", str(checkpoint))
    page = ROOT / "scoreboard.html"
    paliflow("scoreboard", str(RUNS), "--html", str(page))
    print(f"To look at: {page}\n{time.monotonic() - started:.0f} s")
    check()


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
    bundled, worn = of[False], of[True]
    if not bundled > worn:
        raise SystemExit(f"the mean is {bundled:.1f}, and {worn:.1f} of the worn checkpoint")


def paliflow(*arguments: str) -> None:
    """Runs the command line, shown as typed."""
    print("$ paliflow", *arguments, flush=True)
    command = [sys.executable, "-c", "from paliflow.jobs.cli.main import main; main()", *arguments]
    subprocess.run(command, check=True)


def wear() -> None:
    """Writes the bundled checkpoint with noise on its matrices."""
    rng = np.random.default_rng(0)
    WORN.parent.mkdir()
    arrays = read_npz(BUNDLED_CHECKPOINT)
    weights = {name: array.read(np.dtype(np.float32)) for name, array in arrays.items()}
    for weight in weights.values():
        if weight.ndim > 1:
            weight += rng.normal(0, NOISE * weight.std(), weight.shape)
    arguments: dict[str, Any] = {**weights}
    np.savez(WORN, **arguments)
    shutil.copy(BUNDLED_CHECKPOINT.with_name("tokenizer.model"), WORN.parent)


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


def msrvtt_cap(folder: Path, pictures: list[Scene]) -> None:
    """Films in which a page lies still."""
    videos, sentences = [], []
    folder.mkdir(parents=True)
    for number, scene in enumerate(pictures[:8]):
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
    *(cococap, vqav2, pope, tallyqa, docvqa, msrvtt_cap),
)


def _saved(scene: Scene, folder: Path, below: str, name: str) -> str:
    """Saves a scene's picture; returns its name."""
    (folder / below).mkdir(parents=True, exist_ok=True)
    scene.image.save(folder / below / name, quality=95)
    return name


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


if __name__ == "__main__":
    main()
