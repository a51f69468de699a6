"""One filter run from spec to manifest: plan, have shards scored, select, sum up."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console

from paliflow import storage
from paliflow.configs import FilterSpec, FilterSummary
from paliflow.configs.base import SpecError, printable
from paliflow.configs.log_lines import say
from paliflow.configs.schema import FILTERED
from paliflow.jobs.report.page import REPORT
from paliflow.jobs.runs.error_limits import ErrorLimitError
from paliflow.jobs.runs.identity import check_same_spec
from paliflow.jobs.runs.lifecycle import run_once
from paliflow.jobs.runs.plan import Item, Plan, read_plan, write_plan
from paliflow.jobs.runs.totals import add_up
from paliflow.jobs.safety.checking import ImageCheck, TextCheck, face_finder
from paliflow.jobs.safety.page import write_page
from paliflow.jobs.safety.selection import KEPT, excluded_runs, select
from paliflow.jobs.sources.items import items

_PACKAGES = "paliflow", "ray", "numpy", "pillow", "pyarrow"


ListItems = Callable[[], Iterator[Item]]


def filter(
    spec: FilterSpec,
    console: Console,
    ray_address: str | None = None,
    list_items: ListItems | None = None,
) -> FilterSummary:
    """Does what a run lacks and writes its manifest; Ray starts only if something lacks.

    Args:
        spec: relative paths in it are relative to this process's folder.
        console: where progress goes.
        ray_address: as in `connected`.
        list_items: the images, where they are others than the spec's input.

    Raises:
        SpecError: the user must change something: the input, a filter that is not installed, a run
            id that another spec has taken, or an input of which too much is broken.
        ClusterError: the cluster is not there, or has no room now.
        RuntimeError: the parts do not add up to the plan, or actors keep dying.
    """

    def work(spec: FilterSpec) -> Plan:
        run = spec.location
        # What is not installed, or not there, is said at once.
        ImageCheck(spec.filters), TextCheck(spec.filters), face_finder(spec.redact)
        excluded_runs(spec)
        plan = read_plan(run) or _plan(run, spec, list_items)
        check_same_spec(plan.spec, spec)
        # Ray takes a while to import: what is finished, or wrong with the input, is said without.
        from paliflow.jobs.fleet.shards import run_pending_shards
        from paliflow.jobs.safety.actor import FilterActor

        run_pending_shards(FilterActor, spec, run, plan, console, ray_address)
        return plan

    summary = run_once(spec, FilterSummary, work, _figures, _PACKAGES, FILTERED)
    if not storage.is_file(f"{summary.location}/{REPORT}"):
        try:
            write_page(summary)
        except Exception as error:  # a failed report must not fail the run
            say(f"no report: {type(error).__name__}: {printable(str(error))}", "warning")
    return summary


def _figures(spec: FilterSpec, plan: Plan) -> Mapping[str, Any]:
    """
    Raises:
        ErrorLimitError: too many inputs have failed, or would be removed for want of a score.
        RuntimeError: the parts do not belong together.
    """
    totals = add_up(spec.location, plan, spec)
    selected = select(spec, plan.shards)
    if spec.unscored == "drop" and selected.unscored > spec.max_error_fraction * plan.inputs:
        causes = [what for what in selected.flagged if what.endswith("/unscored")]
        raise ErrorLimitError(
            f"max_error_fraction={spec.max_error_fraction:g}: {selected.unscored} of {plan.inputs} "
            f"inputs could not be scored ({', '.join(causes)}) and would be removed for it. "
            f"{spec.location}/_safety.parquet says why. Nothing is lost: mend it with a new "
            "run_id, or raise the limit, or give unscored: keep, with the same one"
        )
    return {
        "inputs": plan.inputs,
        "kept": selected.kept,
        "removed": selected.removed,
        "changed": selected.changed,
        "unscored": selected.unscored,
        "errors": totals.errors,
        "error_reasons": totals.error_reasons,
        "flagged": dict(selected.flagged.most_common()),
        "versions_of_filters": selected.versions,
        "manifest": f"{spec.location}/{KEPT}",
        "shards": plan.shards,
        "passed_over": plan.passed_over,
    }


def _plan(run: str, spec: FilterSpec, list_items: ListItems | None) -> Plan:
    passed_over: Counter[str] = Counter()
    reading = spec.model_copy(update={"metadata_columns": spec.carried_columns})
    found = list_items() if list_items else _named(items(reading, passed_over))
    return write_plan(run, found, spec.model_dump(mode="json"), passed_over=passed_over)


def _named(found: Iterator[Item]) -> Iterator[Item]:
    """
    Raises:
        SpecError: an image is in a tar, where no manifest can name it.
    """
    for item in found:
        if item.archive:
            raise SpecError(
                f"input={item.archive!r}: `kept.parquet` cannot name what is in a tar; unpack it"
            )
        yield item
