"""Filters of an annotation: images that are never asked about, answers that are not told."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_sample_images

from paliflow.configs import AnnotateSpec, PersonalDataFilter, QualityFilter
from paliflow.configs.base import SpecError
from paliflow.jobs.annotate.filtering import RowFilters
from paliflow.jobs.annotate.job import annotate
from paliflow.jobs.annotate.rows import answer_row, error_row
from paliflow.jobs.media.pixels import VIEW_PIXELS
from paliflow.jobs.media.reader import reader
from paliflow.jobs.media.reading import Input
from paliflow.jobs.runs.parts import commit_part, read_part
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.safety.personal_data import LONGEST
from paliflow.model import Detection
from paliflow.tests.jobs.conftest import SpecFactory

PHOTOGRAPH = Image.fromarray(load_sample_images().images[0])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph, a small copy of it, a blank page and a broken file."""
    folder = tmp_path_factory.mktemp("images")
    PHOTOGRAPH.save(folder / "a.jpg")
    PHOTOGRAPH.resize((20, 14)).save(folder / "b.png")
    Image.new("RGB", (300, 200), "white").save(folder / "c.png")
    (folder / "d.jpg").write_bytes(b"no image")
    return folder


def asked(source: Input, text: str, *labels: str) -> dict[str, Any]:
    """The row of an answer, with boxes of these labels."""
    found = [Detection(label, 0, 0, 1, 1, score=0.5) for label in labels]
    return answer_row(
        *(source, "caption en", text, found or None), logprob=-1.0, token_count=3, finished=True
    )


def test_image_that_is_dropped_loses_its_pixels_and_another_keeps_them(images: Path) -> None:
    filters = RowFilters([QualityFilter()])
    assert filters.sees_images
    spec = AnnotateSpec(input=str(images), output="out", run_id="r", prompts=("caption en",))
    read = reader(spec, 32, 16, 2, view=True)
    found = []
    for path in sorted(images.iterdir()):
        (source,) = [each for each in read(Item(str(path))) if each]
        assert (source.view is None) == (source.error is not None)
        if source.view is not None:
            assert source.view.shape == (VIEW_PIXELS, VIEW_PIXELS, 3)
            # Both are the whole image, whatever their size.
            assert source.pixels is not None
            assert source.view.mean() == pytest.approx(source.pixels.mean(), abs=2.5)
        found.append(filters.check_image(source))
    kept = [(source.pixels is not None, source.thumbnail is not None) for source in found]
    assert kept == [(True, True), (False, False), (False, False), (False, False)]
    assert [source.error is None for source in found] == [True, True, True, False]

    rows = [[asked(found[0], "a temple")]]
    rows += [[error_row(source, "caption en", "not asked")] for source in found[1:]]
    filters.check_rows(zip(found, rows, strict=True))
    told = [(row["status"], row.get("text"), row.get("error")) for (row,) in rows]
    assert told[0] == ("ok", "a temple", None)
    assert [status for status, _, _ in told] == ["ok", "filtered", "filtered", "error"]
    assert told[1][2] == "quality/small: 14 is beyond min_side=32"
    labels = [{each["label"] for each in row["safety"]} for (row,) in rows[:3]]
    assert labels == [{"small", "long", "blurred", "blank"}] * 3
    assert "safety" not in rows[3][0]


def test_answers_are_redacted_dropped_or_left_unscored() -> None:
    source = Input(Item("a.jpg"), width=10, height=10)
    mail, long = "ask a@b.example", "x" * (LONGEST + 1)
    rows = [asked(source, mail, "a@b.example", "cat"), asked(source, long), asked(source, "fine")]
    fixed = asked(source, mail) | {"choices": [{"label": mail, "probability": 1.0}]}
    RowFilters([PersonalDataFilter()]).check_rows([(source, [*rows, fixed])])
    assert (rows[0]["status"], rows[0]["text"]) == ("ok", "ask [EMAIL_ADDRESS]")
    assert [each["label"] for each in rows[0]["detections"]] == ["[EMAIL_ADDRESS]", "cat"]
    assert (rows[1]["status"], rows[1]["text"]) == ("unscored", long)
    assert (rows[2]["status"], rows[2]["safety"][0]["action"]) == ("ok", "pass")
    assert (fixed["text"], fixed.get("safety")) == (mail, None)  # which the user has written

    row = asked(source, mail, "cat")
    RowFilters([PersonalDataFilter(action="drop")]).check_rows([(source, [row])])
    gone = {name: row[name] for name in ("text", "detections", "logprob", "finished")}
    assert set(gone.values()) == {None}
    assert (row["status"], row["error"]) == ("filtered", "personal_data/EMAIL_ADDRESS: 1 found")


def test_part_counts_what_its_filters_did(tmp_path: Path) -> None:
    source = Input(Item("a.jpg"), width=10, height=10)
    rows = [asked(source, text) for text in ("a@b.example", "8.8.8.8", "fine")]
    RowFilters([PersonalDataFilter()]).check_rows([(source, rows)])
    about = {"inputs": "1", "failed": "0", "checkpoint_sha256": ""}
    commit_part(str(tmp_path), 0, rows, about)
    flagged = read_part(str(tmp_path), 0).flagged
    assert flagged == {
        "personal_data/EMAIL_ADDRESS/redact": 1,
        "personal_data/IP_ADDRESS/redact": 1,
    }
    (kept,) = pq.read_table(tmp_path / "part-00000.parquet", columns=["safety"]).to_pylist()[2:]
    assert [each["label"] for each in kept["safety"]] == ["personal_data"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"filters": ["duplicates"]}, "duplicates compares all images of a run"),
        ({"filters": ["quality"], "video": {"fps": 1}}, "looks at images, not at videos"),
        ({"filters": ["quality", "quality"]}, "quality is given twice"),
    ],
)
def test_filters_that_cannot_work_are_refused(fields: dict[str, Any], said: str) -> None:
    given = {"input": "in", "output": "out", "run_id": "r", "prompts": "ocr"}
    with pytest.raises(SpecError, match=said):
        AnnotateSpec.parse(given | fields)


@pytest.mark.slow
def test_filtered_run_tells_what_it_did_in_rows_audit_manifest_and_report(
    cluster: str, images: Path, make_spec: SpecFactory
) -> None:
    spec = make_spec(input=str(images), filters=["quality", "personal_data"], report=True)
    summary = annotate(spec, Console())
    counts = summary.rows, summary.ok, summary.filtered, summary.unscored, summary.errors
    assert counts == (8, 2, 4, 0, 2)
    assert summary.flagged == {
        "quality/small/drop": 2,
        "quality/blurred/drop": 4,
        "quality/blank/drop": 2,
    }
    assert "4 filtered" in summary.said()
    rows = pq.read_table(f"{summary.location}/part-00000.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 2 + ["filtered"] * 4 + ["error"] * 2
    audit = pq.read_table(f"{summary.location}/_safety.parquet").to_pylist()
    assert len(audit) == 8
    assert {(Path(row["image"]).name, row["kept"]) for row in audit} == {
        ("b.png", False),
        ("c.png", False),
    }
    assert {row["prompt"] for row in audit} == set(spec.texts)
    manifest = json.loads(Path(summary.location, "_manifest.json").read_text())
    assert manifest["flagged"] == summary.flagged
    page = Path(summary.location, "_report.html").read_text()
    assert "quality/small/drop" in page
    assert "min_side=32" in page
