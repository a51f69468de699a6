"""What an evaluation asks: its examples as the inputs of annotation runs."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from paliflow import storage
from paliflow.configs import AnnotateSpec, EvaluateSpec, RunSummary, Sampling
from paliflow.configs.run import InferenceSpec
from paliflow.jobs.examples.example import Example, image_item
from paliflow.jobs.examples.plan import ExamplePlan, PlannedSource, open_examples
from paliflow.jobs.media.places import is_place
from paliflow.jobs.runs.plan import Item, read_plan

_BLOCK = 8192
_LEAST_USD = 1e-9
"""A limit has to be above nothing."""
_QUESTIONS = pa.schema([(name, pa.string()) for name in ("id", "image", "prefix")])


def write_questions(run: str, plan: ExamplePlan) -> tuple[str, str]:
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


def questions(run: str, plan: ExamplePlan, *_: object) -> Iterator[Item]:
    """All examples to annotate, each with where its image may lie: what its manifest says again."""
    for source in plan.sources:
        for example in open_examples(run, plan, source.name):
            yield _question(example, source)


def right_answers(run: str, plan: ExamplePlan, names: Sequence[str], *_: object) -> Iterator[Item]:
    """The examples of some sets, each with its different right answers to be scored."""
    for source in map(plan.source, names):
        for example in open_examples(run, plan, source.name):
            if right := tuple(dict.fromkeys(filter(None, example.suffixes))):
                prompts = (example.prefix,) * len(right)
                yield _question(example, source)._replace(prompts=prompts, choices=right)


def _question(example: Example, source: PlannedSource) -> Item:
    first, *more = example.images
    # `frame_item` looks at the item's archive, which any of the images may lie in.
    item = image_item(next(filter(is_place, example.images), first), source.roots, example.edit)
    if more:
        item = item._replace(uri=first, frames=example.images)
    return item._replace(prompts=(example.prefix,), id=f"{source.name}/{example.id}")


def asking_run(spec: EvaluateSpec, questions: str) -> AnnotateSpec:
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
    return _as_planned(asking)


def scoring_run(asking: AnnotateSpec, answers: RunSummary) -> AnnotateSpec:
    """The annotation run that scores what is right, beside the one that has asked.

    It asks the checkpoint that answered, whatever an alias points to by now, and may cost what that
    has left of `max_usd`.
    """
    plain = {"prompts": (), "sampling": Sampling(), "filters": ()}
    output = f"{asking.output.rpartition('/')[0]}/_likelihoods"
    same = {"checkpoint": answers.checkpoint, "registry": None}
    left = asking.max_usd and max(_LEAST_USD, asking.max_usd - (answers.usd or 0.0))
    update = {**plain, **same, "output": output, "max_usd": left}
    return _as_planned(asking.model_copy(update=update))


def _as_planned(asking: AnnotateSpec) -> AnnotateSpec:
    """The questions may lie elsewhere by now, moved with the run's folder; they are in the plan."""
    planned = read_plan(asking.location)
    return asking.model_copy(update={"input": planned.spec["input"]}) if planned else asking
