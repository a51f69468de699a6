"""One extraction of frames from spec to manifest: plan, drive, verify, seal."""

import time
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from rich.console import Console

from paliflow.configs import ExtractSpec, ExtractSummary
from paliflow.configs.base import printable
from paliflow.configs.schema import FRAMES
from paliflow.jobs.extractor import Extractor
from paliflow.jobs.identity import require_same
from paliflow.jobs.limits import ErrorLimits
from paliflow.jobs.paths import require_folder, with_absolute_paths
from paliflow.jobs.plan import Plan, read_plan, write_plan
from paliflow.jobs.restarting import settle
from paliflow.jobs.run import do_missing
from paliflow.jobs.runs import read_summary, seal
from paliflow.jobs.sink import REASONS, read_parts
from paliflow.jobs.sources import items
from paliflow.jobs.video.cutting import pieces


def extract(spec: ExtractSpec, console: Console, ray_address: str | None = None) -> ExtractSummary:
    """Does what a run lacks and seals it with its manifest; Ray starts only if something lacks.

    Args:
        spec: relative paths in it are relative to this process's folder.
        console: where progress goes.
        ray_address: as in `connected`.

    Raises:
        SpecError: the user must change something: the input, a run id that another spec has
            taken, or an input of which too much is broken.
        ClusterError: the cluster is not there, or has no room now.
        RuntimeError: the parts do not add up to the plan, or actors keep dying.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    spec = settle(with_absolute_paths(spec), FRAMES)
    run = spec.location
    if summary := read_summary(run, ExtractSummary):
        require_same(summary.spec, spec)
        print(f"run {spec.run_id} is finished already: {printable(run)}", flush=True)
        return summary
    require_folder(spec)
    plan = read_plan(run) or _plan(run, spec)
    require_same(plan.spec, spec)
    do_missing(Extractor, spec, run, plan, spec.reading, console, ray_address)
    summary = ExtractSummary(
        run_id=spec.run_id,
        location=run,
        spec=spec.model_dump(mode="json"),
        inputs=plan.inputs,
        **_counts(run, plan, spec),
        shards=plan.shards,
        passed_over=plan.passed_over,
        started=started,
        finished=datetime.now(UTC),
        seconds=time.monotonic() - clock,
        versions={name: version(name) for name in ("paliflow", "ray", "av", "pillow", "pyarrow")},
    )
    seal(summary)
    return read_summary(run, ExtractSummary) or summary  # another's, if that was first


def _plan(run: str, spec: ExtractSpec) -> Plan:
    reading = spec.reading
    passed_over: Counter[str] = Counter()
    found = pieces(items(reading, passed_over), reading)
    return write_plan(run, found, spec.model_dump(mode="json"), passed_over=passed_over)


def _counts(run: str, plan: Plan, spec: ExtractSpec) -> dict[str, Any]:
    """What the parts say they hold, if that is what the plan wants.

    Raises:
        ErrorLimitError: they do, but for too many errors.
        RuntimeError: they do not belong together.
    """
    inputs = frames = errors = 0
    reasons: Counter[str] = Counter()
    limits = ErrorLimits(spec.reading)
    for part in read_parts(run, range(plan.shards)):
        inputs += part.inputs
        frames += part.rows - part.errors
        errors += part.errors
        reasons.update(part.reasons)
        limits.add(part.inputs, part.failed, part.reasons)
    if inputs != plan.inputs:
        raise RuntimeError(f"the parts of {run} have {inputs} inputs; its plan has {plan.inputs}")
    limits.check()
    return {"frames": frames, "errors": errors, "error_reasons": dict(reasons.most_common(REASONS))}
