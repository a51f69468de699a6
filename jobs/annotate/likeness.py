"""What a run will take if it goes as fast as a finished one did."""

from paliflow.configs import RunSummary
from paliflow.configs.base import SpecError
from paliflow.jobs.annotate.forecast import Load
from paliflow.jobs.runs.spending import cost

_COMPARED = (
    "dtype", "int8_cache", "max_new_tokens", "prompts", "prompt_column", "video", "checkpoint",
    "model_parallel", "batch_size", "placement", "accelerator_type", "topology",
)  # fmt: skip
"""Fields that decide how long an input takes."""


def like(load: Load, run: RunSummary) -> list[str]:
    """Sentences on chip-hours and cost, by the chip-seconds that each input of a finished run took.

    Args:
        load: what is to be done.
        run: the finished run; its loading and its waiting are in its figure.

    Raises:
        SpecError: the run does not say what it took.
    """
    if not run.chip_seconds or not run.inputs:
        raise SpecError(
            f"--like: the manifest of {run.location} has no chip_seconds: it is empty, or of an "
            "older Paliflow"
        )
    factor = load.inputs / run.inputs
    hours = {device: factor * seconds / 3600 for device, seconds in run.chip_seconds.items()}
    each = sum(run.chip_seconds.values()) / run.inputs
    usd = cost({device: 3600 * amount for device, amount in hours.items()}, load.spec)
    said = ", ".join(f"{amount:.3g} chip-hours of {device}" for device, amount in hours.items())
    unknown = "nothing says what they cost: give usd_per_chip_hour"
    price = unknown if usd is None else f"{usd:.4g} USD"
    lines = [
        f"Like run {run.run_id}, whose {run.inputs:,} inputs took {each:.3g} chip-seconds each: "
        f"{said}; {price}."
    ]
    now = load.spec.model_dump(mode="json")
    if other := [name for name in _COMPARED if run.spec.get(name) != now[name]]:
        lines.append(f"That run differs in {', '.join(other)}, which changes what an input takes.")
    return lines
