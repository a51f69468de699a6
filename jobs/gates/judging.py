"""The checks of a run whose parts are all there, before its manifest is written."""

from collections.abc import Iterator

from paliflow.configs import AnnotateSpec, RunSummary
from paliflow.configs.base import SpecError
from paliflow.configs.gate import Drift, Gate
from paliflow.configs.summary import Check
from paliflow.jobs.gates.answers import sample
from paliflow.jobs.gates.drift import distances
from paliflow.jobs.runs.outputs import finished_runs, read_summary, row_files
from paliflow.jobs.runs.parts import part_uri
from paliflow.jobs.runs.totals import Totals


def judge(run: str, spec: AnnotateSpec, shards: int, totals: Totals) -> tuple[Check, ...]:
    """What a run's gate says of it, each check with how far it is from its bound.

    Args:
        run: the run's folder, all of whose parts are there.
        spec: the run's.
        shards: how many parts there are.
        totals: what they hold.

    Raises:
        SpecError: the run to compare with is not there.
    """
    if not (gate := spec.gate):
        return ()
    checks = list(_shares(gate, totals))
    if gate.canaries:
        from paliflow.jobs.gates.canaries import worst_figure

        figure, bound = worst_figure(run, gate.canaries), gate.canaries.at_least
        who = "of the worst actor" if figure is not None else "which no actor was asked"
        name, value = f"canaries' {gate.canaries.metric}, {who}", figure or 0.0
        passed = figure is not None and figure >= bound
        checks.append(Check(name=name, value=value, limit=bound, least=True, passed=passed))
    if gate.drift:
        files = [part_uri(run, shard) for shard in range(shards)]
        checks += _drifts(run, spec, gate.drift, files)
    return tuple(checks)


def prepare(run: str, spec: AnnotateSpec, gate: Gate) -> None:
    """Does what a gate needs before a run begins.

    Args:
        run: the run's folder.
        spec: the run's.
        gate: the spec's.

    Raises:
        SpecError: there are no canaries, or no such run to compare with.
    """
    if gate.canaries:
        from paliflow.jobs.gates.canaries import plan_canaries  # imports JAX, which takes seconds

        plan_canaries(run, spec, gate.canaries)
    if gate.drift and gate.drift.against:
        _reference(run, spec, gate.drift)


def failed_said(summary: RunSummary) -> str:
    """Which checks a quarantined run has failed, and by how much."""
    return "; ".join(check.said() for check in summary.checks if not check.passed)


def _shares(gate: Gate, totals: Totals) -> Iterator[Check]:
    answered = totals.rows - totals.errors - totals.flagged.get("filtered", 0)
    judged = totals.accepted + totals.not_accepted
    for name, count, of, limit in (
        ("rows that are errors", totals.errors, totals.rows, gate.max_errors),
        ("answers that were cut", totals.cut, answered, gate.max_cut),
        ("empty answers", totals.empty, answered, gate.max_empty),
        ("answers not accepted", totals.not_accepted, judged, gate.max_not_accepted),
    ):
        if limit is not None:
            share = count / of if of else 0.0
            yield Check(name=f"share of {name}", value=share, limit=limit, passed=share <= limit)


def _drifts(run: str, spec: AnnotateSpec, drift: Drift, files: list[str]) -> Iterator[Check]:
    if not (other := _reference(run, spec, drift)):
        return
    before, now = (sample(each, spec.texts) for each in (row_files(other), files))
    for each in distances(before, now, false_alarm=drift.false_alarm):
        yield Check(
            name=f"drift of {each.name} since {other.run_id}",
            value=each.value,
            limit=each.limit,
            passed=each.value <= each.limit,
        )


def _reference(run: str, spec: AnnotateSpec, drift: Drift) -> RunSummary | None:
    """The run to compare with; None if there is none yet."""
    if drift.against:
        other = read_summary(f"{spec.output.rstrip('/')}/run_id={drift.against}")
        if not other or other.quarantined:
            raise SpecError(
                f"gate.drift.against={drift.against!r}: {spec.output} has no such finished run, or "
                "it is quarantined"
            )
        return other
    asked = {_label(prompt) for prompt in spec.model_dump(mode="json")["prompts"]}
    earlier = [
        other
        for other in finished_runs(spec.output)
        if other.location != run
        and (spec.prompt_column or asked & {_label(prompt) for prompt in other.spec["prompts"]})
    ]
    return max(earlier, key=lambda other: other.finished, default=None)


def _label(prompt: object) -> str:
    """The name of a spec's prompt in JSON, or what it asks."""
    return str(prompt["name"] or prompt["ask"]) if isinstance(prompt, dict) else str(prompt)
