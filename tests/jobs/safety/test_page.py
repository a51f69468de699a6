"""The page of a filter run shows examples of what was found, and nothing unsafe."""

from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_images

from paliflow.configs import FilterSpec
from paliflow.tests.jobs.here import filter_here

TEMPLE, FLOWER = (Image.fromarray(each) for each in load_sample_images().images)


def test_an_image_that_is_unsafe_is_shown_under_no_filter_and_beside_no_other(
    tmp_path: Path,
) -> None:
    (tmp_path / "in").mkdir()
    TEMPLE.save(tmp_path / "in" / "<temple>.png")
    FLOWER.save(tmp_path / "in" / "flower.png")
    FLOWER.resize((320, 214)).save(tmp_path / "in" / "near.jpg", quality=60)
    spec = FilterSpec.parse(
        {
            "input": str(tmp_path / "in"),
            "output": str(tmp_path / "out"),
            "run_id": "r",
            "filters": [
                {"filter": "quality", "min_side": 10_000, "action": "label"},
                {"filter": "nsfw", "threshold": 0.001, "action": "label"},  # flags the flower
                {"filter": "duplicates", "action": "label"},
            ],
        }
    )
    summary = filter_here(spec)
    assert summary.flagged["quality/small/label"] == 3
    assert "duplicates/duplicate/label" in summary.flagged
    page = Path(summary.location, "_report.html").read_text()
    assert page.count("<img ") == 1
    assert 'alt="&lt;temple&gt;.png"' in page
    assert "near.jpg" in page  # its name is told
