"""The model card: what a model was made from, how good it is and how to use it, for people."""

import posixpath
from collections.abc import Mapping

from paliflow.configs.finetune import FineTuneSpec
from paliflow.configs.summary import FilterSummary
from paliflow.jobs.examples.plan import training_name
from paliflow.jobs.finetune.export import model_uri
from paliflow.jobs.finetune.near import TRAINING
from paliflow.jobs.finetune.worker import Job, Outcome
from paliflow.jobs.registry.cards import OURS
from paliflow.jobs.report.page import REPORT
from paliflow.jobs.runs.outputs import read_summary
from paliflow.jobs.safety.selection import KEPT

_PLACES = {
    "kind", "output", "run_id", "registry", "checkpoint", "tokenizer", "train", "validation",
    "https_hosts", "exclude_near",
}  # fmt: skip
"""Fields that are no part of the recipe, or that the card tells in another way."""
_LICENCE = (
    "A derivative of its base checkpoint. Google's PaliGemma weights, and all that is derived from "
    "them, are under the Gemma Terms of Use (https://ai.google.dev/gemma/terms): whoever passes "
    "this model on has to pass on those terms, and say that it was modified."
)


def model_card(
    job: Job,
    outcome: Outcome,
    before: Mapping[str, float],
    after: Mapping[str, float],
    versions: Mapping[str, str],
) -> str:
    """The card as Markdown.

    Args:
        job: what was trained.
        outcome: what came of it.
        before: validation figures of the base checkpoint.
        after: those of the model.
        versions: of the packages that trained it.
    """
    spec, start = job.spec, job.start
    precision = _precision(spec.exported_dtype, spec.seed)
    sections = {
        "Figures": _figures(before, after),
        "Examples": _examples(job, outcome),
        "Recipe": _recipe(spec),
        "Use": [
            "```",
            "paliflow annotate IMAGES --output OUTPUT --prompt PROMPT --checkpoint "
            f"{model_uri(spec)}",
            "```",
        ],
        "Versions": [", ".join(f"{name} {number}" for name, number in versions.items())],
        "Licence": [_LICENCE],
    }
    lines = [
        f"# {spec.run_id}",
        "",
        f"A PaliGemma, {OURS} from `{start.checkpoint}`",
        f"(sha256 `{start.checkpoint_sha256}`): {job.steps.total:,} steps of {spec.batch_size} "
        f"examples, the weights of step {outcome.best_step:,}, written in {precision}.",
    ]
    for title, content in sections.items():
        lines += ["", f"## {title}", "", *content]
    return "\n".join(lines) + "\n"


def _figures(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    rows = [
        f"| {name} | {before[name]:.4f} | {value:.4f} |"
        if name in before
        else f"| {name} | | {value:.4f} |"
        for name, value in after.items()
    ]
    return ["| | before | after |", "|---|---:|---:|", *rows] if rows else ["None taken."]


def _examples(job: Job, outcome: Outcome) -> list[str]:
    """What was learnt from, and what of it was skipped while training."""
    spec = job.spec
    paths = {training_name(number): source.path for number, source in enumerate(spec.train)}
    paths |= {name: source.path for name, source in spec.validation.items()}
    rows = [
        f"| {source.name} | `{paths[source.name]}` | {source.examples:,} | {source.errors:,} | "
        f"{sum(source.dropped.values()):,} | {source.weight:g} |"
        for source in job.plan.sources
    ]
    return [
        "| source | path | examples | rows that were none | left out | weight |",
        "|---|---|---:|---:|---:|---:|",
        *rows,
        "",
        f"Of {job.steps.total * spec.batch_size:,} examples drawn, {outcome.errors:,} were "
        "skipped.",
        *(f"- {count:,} x {reason}" for reason, count in outcome.reasons.items()),
        *filtered_lines(paths),
        *near_lines(spec),
    ]


def near_lines(spec: FineTuneSpec) -> list[str]:
    """What the training images were compared with, and how many are left out for it."""
    if not spec.exclude_near:
        return []
    location = f"{spec.location}/_near/run_id={TRAINING}"
    summary = read_summary(location, FilterSummary)
    if summary is None:
        return []
    known = ", ".join(f"`{each.benchmark or each.path}`" for each in spec.exclude_near)
    return [
        "",
        f"No image is nearly the same as one of {known}, as stored or as examples turn and mark "
        f"it: of {summary.inputs:,} training pictures {summary.removed:,} were, and are left out, "
        f"as are {summary.errors:,} that could not be compared. `{location}/{REPORT}` shows them.",
    ]


def filtered_lines(paths: Mapping[str, str]) -> list[str]:
    """What filters removed from sources that are the `kept.parquet` of a filter run.

    Args:
        paths: of sources, by their names.
    """
    lines: list[str] = []
    for name, path in paths.items():
        folder, file = posixpath.split(path)
        summary = read_summary(folder, FilterSummary) if file == KEPT else None
        if summary is None:
            continue
        lines += [
            "",
            f"{name} was filtered: of {summary.inputs:,} inputs {summary.kept:,} were kept, "
            f"{summary.removed:,} removed, {summary.changed:,} redacted, {summary.unscored:,} not "
            f"scored and {summary.errors:,} could not be read.",
            "",
            *(f"- {count:,} x {what}" for what, count in summary.flagged.items()),
        ]
        versions = ", ".join(f"{each} {v}" for each, v in summary.versions_of_filters.items())
        lines += [f"- by {versions}"] if versions else []
    return lines


def _precision(dtype: str, seed: int) -> str:
    if dtype == "bfloat16":
        return f"bfloat16: what was trained is rounded stochastically, with seed {seed}"
    return "float32: asked in bfloat16 they are rounded, and small updates are lost"


def _recipe(spec: FineTuneSpec) -> list[str]:
    told = spec.model_dump(mode="json", exclude_none=True)
    fields = [name for name in told if name not in spec.EXECUTION_FIELDS | _PLACES]
    return [f"- {name}: `{_plain(told[name])}`" for name in fields]


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return str(value)
