"""One extraction of frames from spec to manifest: plan, have shards extracted, sum up."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from paliflow.configs import ExtractSpec, ExtractSummary
from paliflow.configs.schema import FRAMES
from paliflow.jobs.media.video.cutting import pieces
from paliflow.jobs.runs.identity import check_same_spec
from paliflow.jobs.runs.lifecycle import run_once
from paliflow.jobs.runs.plan import Plan, read_plan, write_plan
from paliflow.jobs.runs.totals import add_up
from paliflow.jobs.sources.items import items

_PACKAGES = "paliflow", "ray", "av", "pillow", "pyarrow"


def extract(spec: ExtractSpec, console: Console, ray_address: str | None = None) -> ExtractSummary:
    """Does what a run lacks and writes its manifest; Ray starts only if something lacks.

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

    def work(spec: ExtractSpec) -> Plan:
        run = spec.location
        plan = read_plan(run) or _plan(run, spec)
        check_same_spec(plan.spec, spec)
        # Ray takes a while to import: what is finished, or wrong with the input, is said without.
        from paliflow.jobs.extract.actor import Extractor
        from paliflow.jobs.fleet.shards import run_pending_shards

        run_pending_shards(Extractor, spec, run, plan, console, ray_address)
        return plan

    return run_once(spec, ExtractSummary, work, _figures, _PACKAGES, FRAMES)


def _figures(spec: ExtractSpec, plan: Plan) -> Mapping[str, Any]:
    """
    Raises:
        ErrorLimitError: too many inputs have failed.
        RuntimeError: the parts do not belong together.
    """
    totals = add_up(spec.location, plan, spec)
    return {
        "inputs": plan.inputs,
        "frames": totals.rows - totals.errors,
        "errors": totals.errors,
        "error_reasons": totals.error_reasons,
        "shards": plan.shards,
        "passed_over": plan.passed_over,
    }


def _plan(run: str, spec: ExtractSpec) -> Plan:
    passed_over: Counter[str] = Counter()
    found = pieces(items(spec, passed_over), spec)
    return write_plan(run, found, spec.model_dump(mode="json"), passed_over=passed_over)
