"""`paliflow.annotate`: a run from Python, and its rows."""

import re
from pathlib import Path
from typing import Any

import pytest

import paliflow
from paliflow.configs import AnnotateSpec
from paliflow.configs.schema import ANNOTATIONS
from paliflow.jobs.notebook import Annotations
from paliflow.jobs.runs.plan import Item
from paliflow.tests.jobs.conftest import SpecFactory
from paliflow.tests.jobs.files import write_mixed
from paliflow.tests.jobs.here import fleet_here
from paliflow.tests.jobs.outputs import finish


def test_annotations_are_a_table_a_summary_and_a_report(tmp_path: Path) -> None:
    write_mixed(tmp_path / "images", 5)
    with fleet_here():
        run = paliflow.annotate(
            tmp_path / "images", ["ocr", "caption en"], output=tmp_path / "out", max_new_tokens=4,
            max_error_fraction=1.0, shard_size=2, compact=False,
        )  # fmt: skip
    assert re.fullmatch(r"\d{8}T\d{6}Z", run.summary.run_id)
    table, frame = run.to_arrow(), run.to_pandas()
    assert table.schema.names == ANNOTATIONS.names
    assert list(frame["source_uri"]) == table["source_uri"].to_pylist()
    assert len(frame) == run.summary.rows == 10
    assert (frame.status == "error").sum() == run.summary.errors > 0
    assert run.report == f"{tmp_path}/out/run_id={run.summary.run_id}/_report.html"
    assert Path(run.report).is_file()
    spec = AnnotateSpec.parse(run.summary.spec)
    again = paliflow.annotate(spec.input, **spec.model_dump(exclude={"input"}))
    assert again.summary == run.summary


def test_notebook_shows_rows_and_escapes_what_they_say(make_spec: SpecFactory) -> None:
    summary = finish(make_spec(input="x", prompts=["ocr <script>"]), [Item("no/<b>&.jpg")])
    shown = Annotations(summary)._repr_html_()
    assert "<td>&lt;b&gt;&amp;.jpg</td><td>ocr &lt;script&gt;</td>" in shown
    assert f"<p>{summary.said()}</p>" in shown
    assert Annotations(summary).report is None


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({}, "give prompts"),
        ({"prompts": "ocr", "promptz": 1}, "promptz: unknown field, did you mean prompts"),
        ({"prompts": "ocr"}, "input='.*nowhere'"),
        ({"prompts": ["ocr"], "sampling": {"top_k": 3}}, "sampling=.*need a temperature"),
    ],
)
def test_what_is_wrong_with_a_call_is_a_spec_error(
    fields: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(paliflow.SpecError, match=complaint):
        paliflow.annotate(tmp_path / "nowhere", output=tmp_path / "out", **fields)
