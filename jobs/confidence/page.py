"""`calibration.html`: reliability diagrams, errors before and after, thresholds by precision."""

import io
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from paliflow import storage
from paliflow.jobs.confidence.calibration import Calibration

REPORT = "calibration.html"


def write_page(uri: str, calibration: Calibration, left_out: Mapping[str, int]) -> None:
    """Writes the page in place of an earlier one; it needs no network.

    Args:
        uri: of the page.
        calibration: what it shows.
        left_out: answers that were not fitted to, by why.
    """
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    source = Path(__file__).with_name("calibration.html.j2").read_text()
    page = template.from_string(source).render(calibration=calibration, left_out=left_out)
    storage.overwrite(uri, io.BytesIO(page.encode(errors="replace")))
