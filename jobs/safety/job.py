"""One filter run from spec to manifest: plan, have shards scored, select, sum up."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from paliflow.configs import FilterSpec, FilterSummary
from paliflow.configs.base import SpecError
from paliflow.configs.schema import FILTERED
from paliflow.jobs.runs.identity import check_same_spec
from paliflow.jobs.runs.lifecycle import run_once
from paliflow.jobs.runs.plan import Item, Plan, read_plan, write_plan
from paliflow.jobs.runs.totals import add_up
from paliflow.jobs.safety.checking import ImageCheck, TextCheck, face_finder
from paliflow.jobs.safety.selection import KEPT, select
from paliflow.jobs.sources.items import items

_PACKAGES = "paliflow", "ray", "numpy", "pillow", "pyarrow"


def filter(spec: FilterSpec, console: Console, ray_address: str | None = None) -> FilterSummary:
    """Does what a run lacks and writes its manifest; Ray starts only if something lacks.

    Args:
        spec: relative paths in it are relative to this process's folder.
        console: where progress goes.
        ray_address: as in `connected`.

    Raises:
        SpecError: the user must change something: the input, a filter that is not installed, a run
            id that another spec has taken, or an input of which too much is broken.
        ClusterError: the cluster is not there, or has no room now.
        RuntimeError: the parts do not add up to the plan, or actors keep dying.
    """

    def work(spec: FilterSpec) -> Plan:
        run = spec.location
        # What is not installed is said at once.
        ImageCheck(spec.filters), TextCheck(spec.filters), face_finder(spec.redact)
        plan = read_plan(run) or _plan(run, spec)
        check_same_spec(plan.spec, spec)
        # Ray takes a while to import: what is finished, or wrong with the input, is said without.
        from paliflow.jobs.fleet.shards import run_pending_shards
        from paliflow.jobs.safety.actor import FilterActor

        run_pending_shards(FilterActor, spec, run, plan, console, ray_address)
        return plan

    return run_once(spec, FilterSummary, work, _figures, _PACKAGES, FILTERED)


def _figures(spec: FilterSpec, plan: Plan) -> Mapping[str, Any]:
    """
    Raises:
        ErrorLimitError: too many inputs have failed.
        RuntimeError: the parts do not belong together.
    """
    totals = add_up(spec.location, plan, spec)
    selected = select(spec, plan.shards)
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


def _plan(run: str, spec: FilterSpec) -> Plan:
    passed_over: Counter[str] = Counter()
    reading = spec.model_copy(update={"metadata_columns": spec.carried_columns})
    found = _named(items(reading, passed_over))
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
