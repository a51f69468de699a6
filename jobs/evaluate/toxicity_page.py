"""The toxicity of answers as a page: every group of every attribute, with its interval."""

import io
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from paliflow import storage
from paliflow.configs import EvaluateSummary
from paliflow.configs.summary import AttributeShares
from paliflow.jobs.evaluate.toxicity_table import percent

PAGE = "_toxicity.html"


def write_toxicity_page(summary: EvaluateSummary) -> str | None:
    """Writes `_toxicity.html` beside the manifest of an evaluation with a scorer.

    Returns:
        Its URI; None where nothing was scored.
    """
    tables = {name: own.toxicity for name, own in summary.sets.items() if own.toxicity}
    if not tables:
        return None
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template.filters["percent"] = percent
    template.filters["widest"] = _widest
    content = Path(__file__).with_name("toxicity.html.j2").read_text(encoding="utf-8")
    page = template.from_string(content).render(summary=summary, tables=tables)
    uri = f"{summary.location}/{PAGE}"
    storage.overwrite(uri, io.BytesIO(page.encode(errors="replace")))
    return uri


def _widest(own: AttributeShares) -> float:
    """What the bars of an attribute go up to."""
    groups = [share for each in own.groupings.values() for share in each.groups.values()]
    return max(share.high for share in (own.overall, *groups)) or 1.0
