"""The model card: what a model was made from, how good it is and how to use it, for people."""

from collections.abc import Mapping

from paliflow.configs.finetune import FineTuneSpec
from paliflow.jobs.finetune.export import model_uri
from paliflow.jobs.finetune.worker import Job, Outcome
from paliflow.jobs.registry.cards import OURS

_PLACES = {
    "kind", "output", "run_id", "registry", "checkpoint", "tokenizer", "train", "validation",
    "https_hosts",
}  # fmt: skip
"""Fields that are no part of the recipe, or that the card tells in another way."""


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
    spec, start, plan = job.spec, job.start, job.plan
    paths = {f"train/{number}": source.path for number, source in enumerate(spec.train)}
    paths |= {name: source.path for name, source in spec.validation.items()}
    sources = [
        f"| {source.name} | `{paths[source.name]}` | {source.examples:,} | {source.errors:,} | "
        f"{sum(source.dropped.values()):,} | {source.weight:g} |"
        for source in plan.sources
    ]
    figures = [
        f"| {name} | {before[name]:.4f} | {value:.4f} |"
        if name in before
        else f"| {name} | | {value:.4f} |"
        for name, value in after.items()
    ]
    failed = [f"- {count:,} x {reason}" for reason, count in outcome.reasons.items()]
    lines = [
        f"# {spec.run_id}",
        "",
        f"A PaliGemma, {OURS} from `{start.checkpoint}`",
        f"(sha256 `{start.checkpoint_sha256}`): {job.steps.total:,} steps of {spec.batch_size} "
        f"examples, the weights of step {outcome.best_step:,}, written in {_precision(spec)}.",
        "",
        "## Figures",
        "",
        *(["| | before | after |", "|---|---:|---:|", *figures] if figures else ["None taken."]),
        "",
        "## Examples",
        "",
        "| source | path | examples | rows that were none | left out | weight |",
        "|---|---|---:|---:|---:|---:|",
        *sources,
        "",
        f"Of {job.steps.total * spec.batch_size:,} examples drawn, {outcome.errors:,} were "
        "skipped.",
        *failed,
        "",
        "## Recipe",
        "",
        *_recipe(spec),
        "",
        "## Use",
        "",
        "```",
        f"paliflow annotate IMAGES --output OUTPUT --prompt PROMPT --checkpoint {model_uri(spec)}",
        "```",
        "",
        "## Versions",
        "",
        ", ".join(f"{name} {number}" for name, number in versions.items()),
        "",
        "## Licence",
        "",
        "A derivative of its base checkpoint. Google's PaliGemma weights, and all that is derived "
        "from them, are under the Gemma Terms of Use (https://ai.google.dev/gemma/terms): whoever "
        "passes this model on has to pass on those terms, and say that it was modified.",
    ]
    return "\n".join(lines) + "\n"


def _precision(spec: FineTuneSpec) -> str:
    if spec.exported_dtype == "bfloat16":
        return f"bfloat16: what was trained is rounded stochastically, with seed {spec.seed}"
    return "float32: asked in bfloat16 they are rounded, and small updates are lost"


def _recipe(spec: FineTuneSpec) -> list[str]:
    told = spec.model_dump(mode="json", exclude_none=True)
    fields = [name for name in told if name not in spec.EXECUTION_FIELDS | _PLACES]
    return [f"- {name}: `{_plain(told[name])}`" for name in fields]


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return str(value)
