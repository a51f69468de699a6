"""One evaluation from spec to manifest: plan, ask, score, sum up."""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from paliflow import storage
from paliflow.configs import AnnotateSpec, EvaluateSpec, EvaluateSummary, RunSummary, Sampling
from paliflow.configs.base import SpecError, printable
from paliflow.configs.benchmark import benchmark
from paliflow.configs.log_lines import say
from paliflow.configs.run import InferenceSpec
from paliflow.configs.summary import cut_said
from paliflow.jobs.annotate.job import annotate
from paliflow.jobs.evaluate.predictions import write_predictions
from paliflow.jobs.evaluate.ranking import ranked_boxes
from paliflow.jobs.evaluate.scoring import metrics_of
from paliflow.jobs.evaluate.toxicity import scores_of
from paliflow.jobs.evaluate.toxicity_page import write_toxicity_page
from paliflow.jobs.evaluate.toxicity_table import show_toxicity
from paliflow.jobs.examples.example import Example, image_item
from paliflow.jobs.examples.orientation import boxes_in_picture
from paliflow.jobs.examples.plan import ExamplePlan, open_examples, write_examples
from paliflow.jobs.media.reader import reader
from paliflow.jobs.runs.identity import check_same_spec
from paliflow.jobs.runs.lifecycle import run_once
from paliflow.jobs.runs.outputs import row_files
from paliflow.jobs.runs.plan import Item, read_plan
from paliflow.metrics import METRICS

_BLOCK = 8192
_QUESTIONS = pa.schema([(name, pa.string()) for name in ("id", "image", "prefix")])
_ANSWERS = ["id", "text", "status", "error", "source_sha256", "width", "height", "safety"]
_BOXES = ["task", "prompt", "detections"]
_PACKAGES = "paliflow", "ray", "jax", "flax", "pyarrow"
_Row = dict[str, Any]


class _Asked(NamedTuple):
    """An evaluation whose answers are there."""

    plan: ExamplePlan
    metrics: dict[str, tuple[str, ...]]
    """How each set is scored."""
    digest: str
    """Of all that was asked and is right."""
    answers: RunSummary


def evaluate(
    spec: EvaluateSpec, console: Console, ray_address: str | None = None
) -> EvaluateSummary:
    """Does what an evaluation lacks and writes its manifest.

    The examples are written to the run's folder first, so that a resumed run asks the same. They
    are asked by an annotation run of its own in `_answers/`, which is resumed like any other.

    Args:
        spec: relative paths in it are relative to this process's folder.
        console: where progress and the figures go.
        ray_address: as in `connected`.

    Raises:
        SpecError: as in `annotate`; or there are no examples, they have several images, or nothing
            says how to score a set.
        ClusterError: as in `annotate`.
        RuntimeError: as in `annotate`.
    """

    def work(spec: EvaluateSpec) -> _Asked:
        _check_regions(spec)
        run = spec.location
        plan = write_examples(run, spec.sets, spec)
        check_same_spec(plan.spec, spec)
        for line in plan.dropped():
            say(printable(line), "warning")
        metrics = set_metrics(spec, plan)
        questions, digest = _write_questions(run, plan)
        asked = partial(_questions, run, plan)
        answers = annotate(_asking(spec, questions), console, ray_address, asked)
        return _Asked(plan, metrics, digest, answers)

    summary = run_once(spec, EvaluateSummary, work, _figures, _PACKAGES)
    show(summary, console)
    return summary


def _figures(spec: EvaluateSpec, asked: _Asked) -> Mapping[str, Any]:
    answers, misfits = asked.answers, Counter[str]()
    ranked = any(METRICS[each].by_score for own in asked.metrics.values() for each in own)
    rows_of = _rows_of(spec, asked.plan, answers, misfits, ranked=ranked)
    figures, sets = write_predictions(spec, asked.metrics, asked.plan.sources, rows_of)
    return {
        "checkpoint": answers.checkpoint,
        "checkpoint_sha256": answers.checkpoint_sha256,
        "examples": answers.rows,
        "errors": answers.errors + misfits.total(),
        "error_reasons": dict((misfits + Counter(answers.error_reasons)).most_common()),
        "cut": answers.cut,
        "examples_sha256": asked.digest,
        "figures": figures,
        "sets": sets,
        "image_size": _image_size(answers),
    }


def _image_size(answers: RunSummary) -> int | None:
    """What its actors say that the model sees."""
    with storage.open_binary(next(iter(row_files(answers)))) as file:
        said = (pq.read_schema(file).metadata or {}).get(b"paliflow.image_size")
    return int(said) if said else None


def _check_regions(spec: EvaluateSpec) -> None:
    """
    Raises:
        SpecError: a set cannot be scored by masks or by regions.
    """
    for name, chosen in spec.sets.items():
        known = benchmark(chosen.benchmark).metrics if chosen.benchmark else ()
        if "region_mask_iou" in known and not spec.mask_decoder:
            raise SpecError(
                f"sets.{name}: {chosen.benchmark} compares masks: give mask_decoder, the weights "
                "in vae-oid.npz"
            )
        wanted = [each for each in chosen.metrics or () if METRICS[each].of_region]
        if regions := set(wanted).difference(known):
            raise SpecError(
                f"sets.{name}.metrics: {', '.join(sorted(regions))}: only benchmarks such as "
                "refcoco say which region is right"
            )


def set_metrics(spec: EvaluateSpec, plan: ExamplePlan) -> dict[str, tuple[str, ...]]:
    """How each set is scored.

    Raises:
        SpecError: nothing says it, a metric does not fit its set, or an example has several
            images.
    """
    metrics = {}
    for name, chosen in spec.sets.items():
        if chosen.benchmark:
            continue
        prefixes = set()
        for example in open_examples(spec.location, plan, name):
            prefixes.add(example.prefix)
            if len(example.images) > 1:
                raise SpecError(
                    f"sets.{name}: example {example.id!r} has {len(example.images)} images; an "
                    "evaluation asks about one image at a time as yet: leave such examples out"
                )
        metrics[name] = metrics_of(name, chosen.metrics, prefixes)
    return metrics


def _write_questions(run: str, plan: ExamplePlan) -> tuple[str, str]:
    """Writes all examples as a manifest to annotate; its URI, and the digest of the examples."""
    uri, digest = f"{run}/_plan/questions.parquet", hashlib.sha256()
    with tempfile.TemporaryFile() as file:
        with pq.ParquetWriter(pa.PythonFile(file, mode="w"), _QUESTIONS, compression="zstd") as out:
            for source in plan.sources:
                examples = iter(open_examples(run, plan, source.name))
                while some := list(islice(examples, _BLOCK)):
                    for example in some:
                        # What versions before did not have is left out, so that they compare.
                        more = filter(None, (example.size, example.details, example.edit))
                        about = [source.name, *example[:4], *more]
                        digest.update(json.dumps(about).encode() + b"\n")
                    rows = [(f"{source.name}/{e.id}", e.images[0], e.prefix) for e in some]
                    columns = [list(column) for column in zip(*rows, strict=True)]
                    out.write_table(pa.table(columns, schema=_QUESTIONS))
        storage.commit_if_absent(uri, file)
    return uri, digest.hexdigest()


def _questions(run: str, plan: ExamplePlan, *_: object) -> Iterator[Item]:
    """All examples to annotate, each with where its image may lie: what its manifest says again."""
    for source in plan.sources:
        for example in open_examples(run, plan, source.name):
            item = image_item(example.images[0], source.roots, example.edit)
            if len(example.images) > 1:
                item = item._replace(frames=example.images)
            yield item._replace(prompts=(example.prefix,), id=f"{source.name}/{example.id}")


def _asking(spec: EvaluateSpec, questions: str) -> AnnotateSpec:
    """The annotation run that asks the questions."""
    asking = AnnotateSpec(
        **spec.model_dump(include=set(InferenceSpec.model_fields) - {"output", "generation"}),
        output=f"{spec.location}/_answers",
        input=questions,
        prompt_column="prefix",
        prompts=spec.prompts,
        sampling=Sampling(beams=spec.beams),
        id_column="id",
        filters=(spec.scorer,) if spec.scorer else (),
    )
    planned = read_plan(asking.location)
    # The questions may lie elsewhere by now, moved with the run's folder; they are in the plan.
    return asking.model_copy(update={"input": planned.spec["input"]}) if planned else asking


def _rows_of(
    spec: EvaluateSpec,
    plan: ExamplePlan,
    answers: RunSummary,
    misfits: Counter[str],
    *,
    ranked: bool,
) -> Callable[[str], list[_Row]]:
    """Joins answers to what is right, set by set in the plan's order.

    Args:
        misfits: counts what is right and does not fit the image that was asked about, and why.
        ranked: whether rows have their boxes as `ranked`.
    """
    answered = answers_in_order(answers, [*_ANSWERS, *(_BOXES if ranked else ())])

    def rows_of(name: str) -> list[_Row]:
        examples = open_examples(spec.location, plan, name)
        roots = plan.source(name).roots
        asked = list(zip(examples, islice(answered, len(examples)), strict=True))
        rows = [
            {
                "set": name,
                "id": example.id,
                "image": example.images[0],
                "prefix": example.prefix,
                "details": json.loads(example.details or "{}") | scores_of(answer.get("safety")),
                **_of(answer, f"{name}/{example.id}", answers.location),
                **references_of(example, answer, spec, misfits, roots),
            }
            for example, answer in asked
        ]
        if ranked:
            for row, (_, answer) in zip(rows, asked, strict=True):
                row["ranked"] = ranked_boxes(answer, row)
        return rows

    return rows_of


def references_of(
    example: Example,
    answer: _Row,
    spec: EvaluateSpec,
    misfits: Counter[str],
    roots: tuple[str, ...] | None,
) -> _Row:
    """What is right, its boxes in the frame of the image that was asked about.

    Where they are of another image's size, the answer's columns are those of an error.
    """
    picture, upright = (answer["width"], answer["height"]), spec.exif == "apply"
    if example.size is None or answer["status"] == "error" or example.size == picture:
        return {"references": example.suffixes}
    item = image_item(example.images[0], roots, example.edit)
    read = next(found for found in reader(spec, 1)(item) if found)
    try:
        if read.error:
            raise ValueError(read.error)
        turned = [
            boxes_in_picture(suffix, example.size, picture, read.orientation, upright=upright)
            for suffix in example.suffixes
        ]
    except ValueError as error:
        misfits[str(error)] += 1
        failed = {"text": None, "status": "error", "error": str(error)}
        return {"references": example.suffixes, **failed}
    return {"references": turned}


def answers_in_order(run: RunSummary, columns: list[str]) -> Iterator[_Row]:
    """Some columns of the annotation run, `id` among them: a row a question, in their order.

    After the answer about a video, or about several images, of which some is missing comes a row
    that says so. A video answers all the same, of several images none may be missing.
    """
    for _, rows in groupby(_rows(run, columns), key=itemgetter("id")):
        first, *more = rows
        video = run.spec.get("video") or {}
        yield more[0] if more and video.get("frame_rate") else first


def _rows(run: RunSummary, columns: list[str]) -> Iterator[_Row]:
    for uri in row_files(run):
        with storage.open_binary(uri) as file:
            for batch in pq.ParquetFile(file).iter_batches(_BLOCK, columns=columns):
                yield from batch.to_pylist()


def _of(answer: _Row, question: str, location: str) -> _Row:
    if answer["id"] != question:
        raise RuntimeError(f"{location} answers {answer['id']!r} where {question!r} was asked")
    columns = {name: answer[name] for name in ("text", "status", "error")}
    return {"image_sha256": answer["source_sha256"], **columns}


def show(summary: EvaluateSummary, console: Console) -> None:
    """Prints the figures, with their intervals, and a line that sums the evaluation up; leaves the
    page of their toxicity, if it was scored."""
    table = Table("figure", box=None, header_style="bold", pad_edge=False)
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for figure, value in summary.figures.items():
        name, _, metric = figure.partition("/")
        bounds = summary.sets[name].intervals.get(metric) if name in summary.sets else None
        interval = f"{bounds[0]:.4f} to {bounds[1]:.4f}" if bounds else ""
        table.add_row(Text(printable(figure)), f"{value:.4f}", interval)
    console.print(table)
    for name, own in summary.sets.items():
        if own.toxicity:
            show_toxicity(name, own.toxicity, console)
        if own.note:
            print(f"{printable(name)}: {own.note}", flush=True)
    if page := write_toxicity_page(summary):
        print(f"toxicity by group: {printable(page)}", flush=True)
    print(
        f"{summary.examples} examples, {summary.errors} of them errors{cut_said(summary.cut)}, "
        f"answered by {printable(summary.checkpoint)}: {printable(summary.location)}",
        flush=True,
    )
