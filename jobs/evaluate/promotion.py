"""The gate: two evaluations of the same examples, and whether an alias moves."""

import posixpath
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from paliflow import storage
from paliflow.configs import Comparison, PromoteSpec, PromoteSummary
from paliflow.configs.base import SpecError, printable
from paliflow.jobs.confidence.calibration import CALIBRATION, keep_calibration
from paliflow.jobs.evaluate.results import (
    Evaluation,
    falls,
    parts_of,
    read_evaluation,
    require_alike,
)
from paliflow.jobs.registry import aliases as registry
from paliflow.jobs.registry.aliases import (
    Model,
    Version,
    Weights,
    with_alias,
    with_calibration,
    with_version,
)
from paliflow.jobs.registry.checkpoints import weights_of
from paliflow.metrics import Score, paired_bootstrap_lower_bound

_ROUNDING = 1e-9
"""Of sums in another order; no gain, and no loss, of anything."""


class _Verdict(NamedTuple):
    promoted: bool
    reason: str


def promote(spec: PromoteSpec, console: Console, ray_address: str | None = None) -> PromoteSummary:
    """Moves the alias to the candidate if the rule says so; safe to repeat.

    The comparison and the move are one: whoever moves the alias meanwhile makes this fail.

    Args:
        spec: relative paths in it are relative to this process's folder.
        console: where the comparison goes.
        ray_address: of no use; nothing here needs Ray.

    Raises:
        SpecError: an evaluation is not finished, the two are of different examples or lack a
            figure, or the alias does not point to what the incumbent's evaluation scored.
    """
    if spec.checkpoint:
        summary = _seed(spec, spec.checkpoint)
    else:
        assert spec.candidate
        assert spec.incumbent
        candidate, incumbent = read_evaluation(spec.candidate), read_evaluation(spec.incumbent)
        summary = _compare(spec, candidate, incumbent)
    _show(summary, console)
    return summary


def _seed(spec: PromoteSpec, checkpoint: str) -> PromoteSummary:
    """Registers the first checkpoint, unless the alias points to something."""
    known = registry.read(spec.registry).models.get(spec.name, Model()).version(spec.alias)
    weights = None if known else weights_of(checkpoint)
    verdict = _Verdict(False, "")

    def change(model: Model) -> Model:
        nonlocal verdict
        if now := model.version(spec.alias):
            verdict = _Verdict(False, f"{spec.alias} points to version {now.number} already")
            return model
        verdict = _Verdict(True, f"the first {spec.alias}; there was nothing to compare with")
        assert weights
        model, number = with_version(model, weights)
        return with_alias(model, spec.alias, number, verdict.reason)

    return _summary(spec, registry.update(spec.registry, spec.name, change), verdict)


def _compare(spec: PromoteSpec, candidate: Evaluation, incumbent: Evaluation) -> PromoteSummary:
    require_alike(candidate, incumbent)
    assert spec.metric
    wanted = {spec.metric: spec.min_gain}
    wanted |= {name: -loss for name, loss in spec.guards.items() if name != spec.metric}
    after, before = parts_of((candidate, incumbent), wanted)
    comparisons = tuple(
        _comparison(
            spec, name, own, before[name], wanted[name], falls=falls(candidate.summary, name)
        )
        for name, own in after.items()
    )
    verdict = _judge(spec.confidence, comparisons)
    new, old = candidate.summary, incumbent.summary
    calibration = _calibration(spec, candidate) if verdict.promoted else None

    def change(model: Model) -> Model:
        now = model.version(spec.alias)
        if now and now.sha256 == new.checkpoint_sha256 != old.checkpoint_sha256:
            return model  # promoted before, and asked again
        if not now or now.sha256 != old.checkpoint_sha256:
            raise SpecError(_moved_away(spec.name, spec.alias, now, incumbent))
        if not verdict.promoted:
            return model
        weights = Weights(new.checkpoint, new.checkpoint_sha256)
        model, number = with_version(model, weights, candidate.location, new.figures)
        if calibration:
            model = with_calibration(model, number, calibration)
        return with_alias(model, spec.alias, number, verdict.reason)

    model = registry.update(spec.registry, spec.name, change)
    return _summary(spec, model, verdict, comparisons)


def _calibration(spec: PromoteSpec, candidate: Evaluation) -> str | None:
    """The calibration that was fitted to the candidate's answers, as the registry keeps it."""
    fitted = posixpath.join(candidate.location, CALIBRATION)
    if not storage.is_file(fitted):
        return None
    return keep_calibration(storage.absolute(spec.registry), fitted)


def _comparison(
    spec: PromoteSpec,
    name: str,
    candidate: Score,
    incumbent: Score,
    wanted: float,
    *,
    falls: bool,
) -> Comparison:
    """
    Args:
        spec: says how sure one has to be.
        name: of the figure.
        candidate, incumbent: what it is made of in both.
        wanted: the gain.
        falls: whether the figure falls where it gets better.
    """
    better, worse = (incumbent, candidate) if falls else (candidate, incumbent)
    low = paired_bootstrap_lower_bound(
        better,
        worse,
        confidence=spec.confidence,
        resamples=spec.resamples,
        seed=spec.seed,
    )
    return Comparison(
        metric=name,
        candidate=candidate.figure,
        incumbent=incumbent.figure,
        low=low,
        wanted=wanted,
        examples=len(candidate.numerators),
    )


def _judge(confidence: float, comparisons: tuple[Comparison, ...]) -> _Verdict:
    deciding, *guards = comparisons
    sure = f"with a confidence of {confidence:g}"
    figures = f"{deciding.metric} went from {deciding.incumbent:.4f} to {deciding.candidate:.4f}"
    least = f"a gain of {deciding.low:+.4f} or more {sure}"
    if deciding.low < deciding.wanted - _ROUNDING or deciding.low <= _ROUNDING:
        rule = f"at least {deciding.wanted:+.4f}" if deciding.wanted else "one above 0"
        return _Verdict(False, f"kept: {figures}, {least}; the rule wants {rule}")
    for guard in guards:
        if guard.low < guard.wanted - _ROUNDING:
            return _Verdict(
                False,
                f"kept: {figures}, but the guard {guard.metric} went from {guard.incumbent:.4f} "
                f"to {guard.candidate:.4f}, {guard.low:+.4f} at worst {sure}; it may lose "
                f"{-guard.wanted:.4f}",
            )
    kept = ", and no guarded figure is worse than allowed" if guards else ""
    return _Verdict(True, f"promoted: {figures}, {least}{kept}")


def _moved_away(name: str, alias: str, now: Version | None, incumbent: Evaluation) -> str:
    points = f"version {now.number}, {now.checkpoint}" if now else "nothing"
    return (
        f"{alias} of {name} points to {points}, which is not what "
        f"incumbent={incumbent.location!r} scored ({incumbent.summary.checkpoint}); evaluate "
        f"registry://{name}@{alias} and compare with that"
    )


def _summary(
    spec: PromoteSpec, model: Model, verdict: _Verdict, comparisons: tuple[Comparison, ...] = ()
) -> PromoteSummary:
    version = model.version(spec.alias)
    assert version
    return PromoteSummary(
        promoted=verdict.promoted,
        reason=verdict.reason,
        comparisons=comparisons,
        registry=storage.absolute(spec.registry),
        name=spec.name,
        alias=spec.alias,
        version=version.number,
        checkpoint=version.checkpoint,
        checkpoint_sha256=version.sha256,
    )


def _show(summary: PromoteSummary, console: Console) -> None:
    if summary.comparisons:
        table = Table("figure", box=None, header_style="bold", pad_edge=False)
        for column in ("incumbent", "candidate", "gain at least", "wanted", "images"):
            table.add_column(column, justify="right")
        for each in summary.comparisons:
            figures = (f"{each.incumbent:.4f}", f"{each.candidate:.4f}")
            bounds = (f"{each.low:+.4f}", f"{each.wanted:+.4f}")
            table.add_row(Text(printable(each.metric)), *figures, *bounds, f"{each.examples:,}")
        console.print(table)
    said = (
        f"{summary.reason}. {summary.name}@{summary.alias} is version {summary.version}: "
        f"{summary.checkpoint}"
    )
    print(printable(said), flush=True)
