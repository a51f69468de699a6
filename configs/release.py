"""`ReleaseSpec`: which quarantined run is let through, and why."""

from typing import Annotated

from pydantic import StringConstraints

from paliflow.configs.base import Spec
from paliflow.configs.run import Stored


class ReleaseSpec(Spec):
    """Lets a run through that its gate has quarantined: see docs/gates.md."""

    output: Stored
    """The folder of the run, or of runs."""
    run_id: str | None = None
    """Which of them; not needed where `output` is the run's folder."""
    why: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    """Kept on record: in the manifest, the report and `_gates.parquet`."""
