"""The calibration of one run: kept beside its plan, so that a resumed run goes on with the same."""

import hashlib
import io
from collections.abc import Callable, Collection

from paliflow import storage
from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError
from paliflow.jobs.confidence.calibration import (
    CALIBRATION,
    Calibration,
    form_of_prompt,
    misfit,
    read_calibration,
    uncovered,
)


def pin_calibration(run: str, calibration: str) -> None:
    """Copies a calibration to the run's `_plan/`, unless one is there.

    Raises:
        SpecError: it is not there, or no calibration.
    """
    read_calibration(calibration)
    content = io.BytesIO(storage.read_bytes(calibration))
    storage.commit_if_absent(_uri(run), content)


def calibration_of(run: str, spec: AnnotateSpec, digests: Collection[str]) -> Calibration | None:
    """The calibration that fills a run's confidences; None if it has none, or one of answers that
    were decoded otherwise and that nobody has asked for.

    Args:
        run: the run's folder.
        spec: the run's.
        digests: of the run's weights, as `digests_of`.

    Raises:
        SpecError: it is of other weights, or `accept` has none to go by.
    """
    calibration = _pinned(run)
    _check(calibration, spec, digests)
    return None if not calibration or misfit(calibration, spec) else calibration


def _check(calibration: Calibration | None, spec: AnnotateSpec, digests: Collection[str]) -> None:
    """
    Raises:
        SpecError: it is of other weights, or there is none that fits where the spec wants one.
    """
    if not calibration:
        if spec.accept:
            raise SpecError(
                "accept: the checkpoint has no calibration, by which to accept answers; "
                "`paliflow calibrate` makes one, which the registry keeps or `calibration` names"
            )
        return
    if calibration.checkpoint_sha256 not in digests:
        raise SpecError(
            f"the calibration was fitted to answers of the checkpoint "
            f"{calibration.checkpoint_sha256[:16]}, and this run's is {next(iter(digests))[:16]}: "
            f"evaluate this one and calibrate again ({calibration.evaluation})"
        )
    differ = misfit(calibration, spec)
    if differ and (spec.accept or spec.calibration):
        field = "accept" if spec.accept else f"calibration={spec.calibration!r}"
        raise SpecError(f"{field}: {_decoded_otherwise(differ)}; calibrate as you annotate")


def _decoded_otherwise(differ: str) -> str:
    return f"answers were calibrated as decoded otherwise: {differ}"


def calibration_warnings(
    uri: str | None, spec: AnnotateSpec, digests: Callable[[], Collection[str]]
) -> list[str]:
    """What of a run has no confidence, and why; empty where nothing was calibrated.

    Args:
        uri: of the calibration that the run would have.
        spec: the run's.
        digests: reads those of the run's weights; asked only if there is a calibration.

    Raises:
        SpecError: the calibration that the spec names does not fit the run, or `accept` lacks one
            that does.
    """
    calibration = read_calibration(uri) if uri else None
    _check(calibration, spec, digests() if calibration else ())
    if not calibration:
        return []
    if differ := misfit(calibration, spec):
        return [f"no confidence, because {_decoded_otherwise(differ)}"]
    missing = [repr(text) for text in uncovered(calibration, spec)]
    if spec.accept and missing:
        raise SpecError(
            f"accept: {', '.join(missing)} was not calibrated with these choices; evaluate and "
            "calibrate what you ask, or ask it in a run of its own"
        )
    return [
        *(f"no confidence of {text}, which was not calibrated" for text in missing),
        *_never_accepted(calibration, spec),
    ]


def _never_accepted(calibration: Calibration, spec: AnnotateSpec) -> list[str]:
    if not spec.accept:
        return []
    precision = spec.accept.precision
    groups = {
        text: calibration.group(text, form_of_prompt(prompt))
        for text, prompt in zip(spec.texts, spec.prompts, strict=True)
    }
    return [
        f"no answer to {text!r} is accepted: no confidence surely reaches a precision of "
        f"{precision:g}"
        for text, group in groups.items()
        if group and not group.threshold(precision, calibration.level)
    ]


def calibration_sha256(run: str, spec: AnnotateSpec) -> str | None:
    """The digest of the calibration that fills a run's confidences; None if there is none."""
    calibration = _pinned(run)
    if not calibration or misfit(calibration, spec):
        return None
    return hashlib.sha256(storage.read_bytes(_uri(run))).hexdigest()


def _pinned(run: str) -> Calibration | None:
    uri = _uri(run)
    return read_calibration(uri) if storage.is_file(uri) else None


def _uri(run: str) -> str:
    return f"{run}/_plan/{CALIBRATION}"
