"""One annotation run from spec to report: plan, have shards answered, sum up, show."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

from rich.console import Console

from paliflow import storage
from paliflow.configs import AnnotateSpec, RunSummary
from paliflow.configs.base import QuarantineError, printable
from paliflow.configs.log_lines import say
from paliflow.configs.schema import ANNOTATIONS
from paliflow.configs.summary import StageSeconds
from paliflow.jobs.annotate.audit import write_audit
from paliflow.jobs.confidence.pinning import (
    calibration_sha256,
    calibration_warnings,
    pin_calibration,
)
from paliflow.jobs.gates.history import CHECKS, write_checks
from paliflow.jobs.gates.judging import failed_said, judge, prepare
from paliflow.jobs.media.video.cutting import pieces
from paliflow.jobs.registry.cards import decode_warning
from paliflow.jobs.registry.locations import Resolved, resolve, tokenizer_of
from paliflow.jobs.report.page import REPORT, write_report
from paliflow.jobs.runs.compact import compact
from paliflow.jobs.runs.identity import check_same_spec
from paliflow.jobs.runs.lifecycle import run_once
from paliflow.jobs.runs.plan import Item, Plan, read_plan, write_plan
from paliflow.jobs.runs.spending import cost
from paliflow.jobs.runs.totals import add_up
from paliflow.jobs.safety.checking import face_finder
from paliflow.jobs.safety.selection import AUDIT_TABLE
from paliflow.jobs.sources.incremental import filter_unanswered
from paliflow.jobs.sources.items import items
from paliflow.jobs.sources.labels import with_labels

_PACKAGES = "paliflow", "ray", "jax", "flax", "pyarrow"
Digests = Callable[[Resolved], tuple[str, ...]]
ListItems = Callable[[AnnotateSpec, Counter[str]], Iterator[Item]]


class _Done(NamedTuple):
    """A run whose parts are all there."""

    plan: Plan
    already: int
    """Inputs that an earlier job has done."""
    stages: StageSeconds
    """Where this job's actors spent their time."""
    preemptions: int
    """Actors that this job lost because their nodes were taken away."""
    digests: Digests


def annotate(
    spec: AnnotateSpec,
    console: Console,
    ray_address: str | None = None,
    list_items: ListItems = items,
) -> RunSummary:
    """Does what a run lacks and writes its manifest; Ray starts only if something lacks.

    Args:
        spec: relative paths in it are relative to this process's folder.
        console: where progress goes.
        ray_address: as in `connected`.
        list_items: what the spec's input stands for.

    Raises:
        SpecError: the user must change something: the input, the checkpoint, a prompt, a run id
            that another spec has taken, or an input of which too much is broken.
        QuarantineError: the run is done, and did not pass its gate.
        ClusterError: the cluster is not there, or has no room now.
        RuntimeError: the parts do not add up to the plan, or actors keep dying.
    """
    clock = time.monotonic()
    spec = with_labels(spec)

    def work(spec: AnnotateSpec) -> _Done:
        @cache
        def digests(resolved: Resolved) -> tuple[str, ...]:  # reads all of the weights
            from paliflow.jobs.registry.checkpoints import digests_of

            return digests_of(resolved, tokenizer_of(spec.tokenizer, resolved.checkpoint))

        run = spec.location
        if spec.gate:
            prepare(run, spec, spec.gate)
        plan = read_plan(run) or _plan(run, spec, digests, list_items)
        check_same_spec(plan.spec, spec)
        if warning := decode_warning(spec.decode, plan.pinned(spec).checkpoint):
            say(printable(warning), "warning")
        # JAX and Ray take seconds to import: what is finished, or wrong with the input, is said
        # without them.
        from paliflow.jobs.annotate.actor import Annotator
        from paliflow.jobs.fleet.shards import run_pending_shards

        fleet = run_pending_shards(Annotator, spec, run, plan, console, ray_address)
        if said := fleet.stages.host_bound():
            say(said, "warning")
        return _Done(plan, *fleet, digests)

    def sum_up(spec: AnnotateSpec, done: _Done) -> Mapping[str, Any]:
        of_job = {
            "images_per_second": (done.plan.inputs - done.already) / (time.monotonic() - clock),
            "stages": done.stages,
            "preemptions": done.preemptions,
        }
        return _figures(done.plan, spec, done.digests) | of_job

    summary = run_once(spec, RunSummary, work, sum_up, _PACKAGES, ANNOTATIONS)
    summary = finish(summary, spec)
    if summary.quarantined:
        raise QuarantineError(
            f"the run is quarantined: {failed_said(summary)}. It is whole in {summary.location}, "
            "and nothing takes it up; look at its report, then `paliflow release` it, or run again"
        )
    return summary


def _figures(plan: Plan, spec: AnnotateSpec, digests: Digests) -> dict[str, Any]:
    """
    Raises:
        ErrorLimitError: too many inputs have failed.
        RuntimeError: the parts do not belong together.
    """
    run, pinned = spec.location, plan.pinned(spec)
    totals = add_up(run, plan, spec)
    flagged = totals.flagged
    filtered, unscored = flagged.pop("filtered", 0), flagged.pop("unscored", 0)
    if len(totals.checkpoints) > 1:
        raise RuntimeError(
            f"the parts of {run} come from {len(totals.checkpoints)} different checkpoints: those "
            f"at {pinned.checkpoint} changed during the run; start another with a new run_id"
        )
    checks = judge(run, spec, plan.shards, totals)
    return {
        "inputs": plan.inputs,
        "rows": totals.rows,
        "ok": totals.rows - totals.errors - filtered - unscored,
        "filtered": filtered,
        "unscored": unscored,
        "flagged": dict(flagged.most_common()),
        "errors": totals.errors,
        "cut": totals.cut,
        "error_reasons": totals.error_reasons,
        "shards": plan.shards,
        "passed_over": plan.passed_over,
        "tokens": totals.tokens,
        "chip_seconds": totals.chip_seconds,
        "usd": cost(totals.chip_seconds, spec),
        "calibration": calibration_sha256(run, spec),
        "checks": checks,
        "quarantined": not all(check.passed for check in checks),
        "accepted": totals.accepted,
        "not_accepted": totals.not_accepted,
        "checkpoint": pinned.checkpoint,
        "checkpoint_sha256": next(iter(totals.checkpoints), None) or digests(pinned)[0],
    }


def _plan(
    run: str,
    spec: AnnotateSpec,
    digests: Digests,
    list_items: ListItems,
) -> Plan:
    resolved = resolve(spec)
    calibration = spec.calibration or resolved.calibration
    for line in calibration_warnings(calibration, spec, partial(digests, resolved)):
        say(printable(line), "warning")
    if calibration:
        pin_calibration(run, calibration)
    passed_over: Counter[str] = Counter()
    found = list_items(spec, passed_over)
    if spec.only_new:
        found = filter_unanswered(found, spec, digests(resolved))
    if spec.video:
        found = pieces(found, spec)
    return write_plan(run, found, spec.model_dump(mode="json"), resolved, passed_over)


def finish(summary: RunSummary, spec: AnnotateSpec) -> RunSummary:
    """What a sealed run may still lack, because its job died before: other views of its rows.

    A part that another driver committed while this run was compacted goes in the same stroke.
    """
    if (spec.compact or summary.files) and not summary.quarantined:
        summary = compact(summary)
    if spec.filters and not storage.is_file(f"{summary.location}/{AUDIT_TABLE}"):
        write_audit(summary)
    if summary.checks and not storage.is_file(f"{summary.location}/{CHECKS}"):
        write_checks(summary)
    if spec.report and not storage.is_file(f"{summary.location}/{REPORT}"):
        show_run(summary, spec)
    return summary


def show_run(summary: RunSummary, spec: AnnotateSpec) -> None:
    """Writes a finished run's report, with what the spec has redacted; a warning if it cannot."""
    try:
        faces = face_finder(spec.redact)
        write_report(summary, faces.redact if faces else None)
    except Exception as error:  # a failed report must not fail the run
        say(f"no report: {type(error).__name__}: {printable(str(error))}", "warning")
