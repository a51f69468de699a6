"""Confidence: how well calibrated answers are, and whether promised precisions are kept.

    python -m paliflow.benchmarks.confidence --scenes 4000

The bundled checkpoint is asked about scenes of handwritten digits that training never saw, half of
them blurred and pale as it has never seen any. Up to 3,000 of each are calibrated on, at most one
half, and what is promised is compared with the others: a hundred times, with others in turn.
`--stored FILE` does that with scores that `--keep FILE` has written.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import ImageEnhance, ImageFilter
from rich.console import Console
from rich.table import Table

from paliflow.benchmarks.digits.scenes import Scene, answer, compose
from paliflow.configs import CalibrateSpec, EvaluateSpec
from paliflow.jobs.confidence.fitting import design_effect, points, threshold
from paliflow.jobs.confidence.groups import applied, better, cross_fitted, maps_of
from paliflow.jobs.evaluate.calibrating import labelled_answers
from paliflow.jobs.evaluate.job import evaluate
from paliflow.metrics.calibration import agreement, average_precision

COUNT = "answer en how many digits are there?"
LEFTMOST = "answer en what is the leftmost digit?"
DETECT = "detect digit"
PROMPTS = (COUNT, LEFTMOST, DETECT)
DOMAINS = ("sharp", "blurred")
PRECISION, LEVEL, SPLITS = 0.95, 0.95, 100
LABELLED = 3000
"""Images that are calibrated on, at most."""


class Scores(NamedTuple):
    """Labelled answers to a prompt, or its boxes."""

    raw: NDArray[np.float64]
    right: NDArray[np.bool_]
    image: NDArray[np.int64]
    label: NDArray[np.str_]
    score: NDArray[np.float64]
    """Of boxes, the output's `score`; 0 of answers."""

    def of(self, chosen: NDArray[np.bool_]) -> "Scores":
        """Some of them."""
        return Scores(
            *(self.raw[chosen], self.right[chosen], self.image[chosen]),
            *(self.label[chosen], self.score[chosen]),
        )


class Kept(NamedTuple):
    """What a calibration on some of the images has promised, and the others say."""

    ece: float
    by_chance: float
    """The ECE of as many answers that are right exactly as often as their confidences say."""
    accepted: float
    """The share of answers that is accepted; 0 if no precision was promised."""
    precision: float
    """Of those accepted among the others; 1 if there are none."""
    ap_by_score: float
    """The average precision of boxes ranked by `score`, over the objects that they are matched
    to."""
    ap_by_confidence: float


def write_scenes(
    folder: Path, count: int, seed: int, domains: Sequence[str] = DOMAINS
) -> Iterator[tuple[str, str, Scene]]:
    """Writes scenes of domains in turn, `blurred` ones also pale; yields domain, file and scene."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        scene = compose(rng, "test", scale=2)
        image, domain = scene.image, domains[number % len(domains)]
        if domain == "blurred":
            image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 4))))
            image = ImageEnhance.Contrast(image).enhance(float(rng.uniform(0.2, 0.9)))
        image.save(folder / f"{number}.png")
        yield domain, f"{number}.png", scene


def write_labels(folder: Path, count: int, domains: Sequence[str]) -> None:
    """Writes scenes, and for each domain what is right of them."""
    lines: dict[str, list[str]] = {domain: [] for domain in domains}
    for domain, image, scene in write_scenes(folder, count, 11, domains):
        for prompt in PROMPTS:
            row = {"image": image, "prefix": prompt, "suffix": answer(scene, prompt)}
            lines[domain].append(json.dumps(row) + "\n")
    for domain, own in lines.items():
        (folder / f"{domain}.jsonl").write_text("".join(own))


def asked(scenes: int, domains: Sequence[str]) -> dict[str, Scores]:
    """Has the bundled checkpoint answer; by domain and prompt."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_labels(folder, scenes, domains)
        fixed = [
            {"ask": COUNT, "choices": ["0..9"]},
            {"ask": DETECT, "closed": True},
        ]
        sets = {
            domain: {"path": str(folder / f"{domain}.jsonl"), "metrics": ["exact_match"]}
            for domain in domains
        }
        spec = {"output": f"{name}/out", "run_id": "r", "sets": sets, "prompts": fixed}
        summary = evaluate(EvaluateSpec.parse(spec | {"max_new_tokens": 24}), Console())
        found: dict[str, Scores] = {}
        for domain in domains:
            own = CalibrateSpec(evaluation=summary.location, sets=(domain,))
            outcomes = labelled_answers(own).outcomes
            numbers = {
                image: n for n, image in enumerate(dict.fromkeys(o.cluster for o in outcomes))
            }
            for prompt in PROMPTS:
                of_prompt = [o for o in outcomes if o.prompt == prompt]
                found[f"{domain}: {prompt}"] = Scores(
                    np.array([o.raw for o in of_prompt]),
                    np.array([o.right for o in of_prompt]),
                    np.array([numbers[o.cluster] for o in of_prompt]),
                    np.array([o.label for o in of_prompt]),
                    np.array([o.score or 0.0 for o in of_prompt]),
                )
        return found


def kept(scores: Scores, seed: int, labelled: int = LABELLED) -> Kept:
    """Calibrates on so many images, at most one half, drawn with a seed; looks at the others."""
    rng = np.random.default_rng(seed)
    images = rng.permutation(scores.image.max() + 1)
    chosen = np.isin(scores.image, images[: min(labelled, len(images) // 2)])
    known, others = scores.of(chosen), scores.of(~chosen)
    right, labels = known.right.astype(float), known.label.tolist()
    clusters = [str(image) for image in known.image]
    raw, of_others = known.raw, others.raw
    if scores.score.any():
        by, raw, crossed = better(raw, known.score, right, labels, clusters, seed)
        of_others = others.score if by == "score" else of_others
    else:
        crossed = cross_fitted(raw, right, labels, clusters, seed)
    effect = design_effect(crossed, right, clusters)
    point = threshold(points(crossed, right), PRECISION, LEVEL, effect)
    confidence = applied(maps_of(raw, right, labels), of_others, others.label.tolist())
    ideal = rng.random(len(confidence)) < confidence
    ece, by_chance = (
        agreement(confidence, outcome, resamples=2).ece.value for outcome in (others.right, ideal)
    )
    accepted = confidence >= point.confidence if point else np.zeros(len(confidence), bool)
    precision = float(others.right[accepted].mean()) if accepted.any() else 1.0
    wanted = max(1, int(others.right.sum()))
    by_score, by_confidence = (
        average_precision(ranked, others.right, wanted) for ranked in (others.score, confidence)
    )
    share = float(accepted.mean())
    return Kept(ece, by_chance, share, precision, by_score, by_confidence)


def load_scores(file: str | Path) -> dict[str, Scores]:
    """What `main` has kept."""
    arrays = dict(np.load(file))
    names = dict.fromkeys(key.rpartition("/")[0] for key in arrays)
    return {
        name: Scores(**{field: arrays[f"{name}/{field}"] for field in Scores._fields})
        for name in names
    }


def main(
    scenes: int = 4000,
    domain: str | None = None,
    keep: str | None = None,
    stored: str | None = None,
    labelled: int = LABELLED,
    splits: int = SPLITS,
) -> None:
    """Prints a row for each domain and prompt.

    Args:
        scenes: as many are asked about.
        domain: of all scenes; half of them are of each if not given.
        keep: a .npz to write the scores to.
        stored: one to take them from; then no model is asked.
        labelled: as many images are calibrated on, at most one half.
        splits: as often, with others in turn.
    """
    found = load_scores(stored) if stored else asked(scenes, [domain] if domain else DOMAINS)
    if keep:
        arrays = {
            f"{name}/{field}": value
            for name, own in found.items()
            for field, value in own._asdict().items()
        }
        np.savez_compressed(keep, **arrays)
    show(found, labelled, splits)


def show(found: dict[str, Scores], labelled: int, count: int) -> None:
    """Prints what `kept` says of each, over some splits."""
    table = Table("answers", box=None, caption="AP by `score`, and by confidence")
    columns = "rows", "right", "ECE raw", "after", "by chance", "accepted", "kept", "worst", "AP"
    for column in columns:
        table.add_column(column, justify="right")
    for name, scores in found.items():
        splits = [kept(scores, seed, labelled) for seed in range(count)]
        before = agreement(scores.raw, scores.right, resamples=2).ece.value
        ranked = np.mean([split[-2:] for split in splits], axis=0)
        met = sum(split.precision >= PRECISION for split in splits)
        table.add_row(
            name,
            *(f"{len(scores.raw):,}", f"{scores.right.mean():.1%}", f"{before:.4f}"),
            f"{np.mean([split.ece for split in splits]):.4f}",
            f"{np.mean([split.by_chance for split in splits]):.4f}",
            f"{np.mean([split.accepted for split in splits]):.0%}",
            f"{met} of {count}",
            f"{min(split.precision for split in splits):.3f}",
            " to ".join(f"{value:.4f}" for value in ranked) if scores.score.any() else "",
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
