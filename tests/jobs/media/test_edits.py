"""Edits: images are turned and drawn on, and of videos a part counts, in the decoder processes."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from paliflow.configs import AnnotateSpec
from paliflow.configs.video import VideoSpec
from paliflow.jobs.media.edits import Edit, Label, Outline
from paliflow.jobs.media.reader import reader
from paliflow.jobs.media.reading import Input, read_input
from paliflow.jobs.media.video.sampling import Sampler, SegmentSampler, exact
from paliflow.jobs.runs.item import Item
from paliflow.tests.jobs.media.test_video_sampling import POLICIES, STEPS, run, video
from paliflow.tests.jobs.videos import read as number_in
from paliflow.tests.jobs.videos import write

RED = [255, 0, 0]


def spec(**fields: Any) -> AnnotateSpec:
    base = {"input": "x", "output": "x", "run_id": "x", "prompts": ["x"], "exif": "ignore"}
    return AnnotateSpec.parse(base | fields)


def edited(path: Path, edit: Edit, size: int = 40, **fields: Any) -> list[Input]:
    item = Item(str(path), edit=edit.model_dump_json())
    return [found for found in reader(spec(**fields), size, 32)(item) if found]


def pixels(found: Input) -> NDArray[np.uint8]:
    assert found.pixels is not None, found.error
    return found.pixels


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """100 pixels wide and 50 high, green with a blue left half."""
    image = Image.new("RGB", (100, 50), (0, 128, 0))
    image.paste((0, 0, 128), (0, 0, 50, 50))
    image.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_an_outline_is_one_red_pixel_wide_on_what_the_network_sees(photo: Path) -> None:
    (plain,) = edited(photo, Edit())
    # The canvas is 2560 high, so that the image of twice its height is 5120 wide.
    outline = Outline(box=(1280, 640, 3840, 2560), canvas_height=2560)
    (found,) = edited(photo, Edit(outline=outline))
    left, top, right, bottom = int(39 * 0.25), int(39 * 0.25), int(39 * 0.75), 39
    expected = pixels(plain).copy()
    expected[[top, bottom], left : right + 1] = RED
    expected[top:, [left, right]] = RED
    np.testing.assert_array_equal(found.pixels, expected)
    assert (found.width, found.height) == (100, 50)
    assert found.thumbnail
    thumbnail = np.asarray(Image.open(io.BytesIO(found.thumbnail)))  # 32 x 16
    assert thumbnail[int(15 * 0.25), 12, 0] > 100 > thumbnail[8, 12, 0]


def test_an_outline_that_sticks_out_is_drawn_as_far_as_there_is_a_picture(photo: Path) -> None:
    (plain,) = edited(photo, Edit())
    outline = Outline(box=(-500, -500, 2560, 9000), canvas_height=2560)
    (found,) = edited(photo, Edit(outline=outline))
    changed = np.argwhere((pixels(found) != pixels(plain)).any(axis=2))
    assert changed.tolist() == [[row, 19] for row in range(40)]  # its right side alone


def test_a_label_covers_its_rectangle_with_white_and_a_text_that_fits(photo: Path) -> None:
    label = Label(box=(60, 10, 90, 40), text="B")
    (plain,) = edited(photo, Edit(), 100)
    (found,) = edited(photo, Edit(labels=(label,)), 100)  # 100 x 100: twice as high
    inside = pixels(found)[22:78, 62:88]
    assert (inside[:4] == 255).all()  # its rectangle above the letter
    dark = np.argwhere(inside.sum(axis=2) < 200)
    assert np.ptp(dark[:, 0]) > 20  # a letter as large as it can be
    across = dark[:, 1].mean() + 62
    assert abs(across - 75) < 4  # in the middle
    outside = np.ones((100, 100), bool)
    outside[18:84, 58:93] = False
    np.testing.assert_array_equal(pixels(found)[outside], pixels(plain)[outside])


def test_a_quarter_turn_is_counterclockwise_and_exchanges_the_sides(photo: Path) -> None:
    (found,) = edited(photo, Edit(turns=1))
    assert (found.width, found.height) == (50, 100)
    # What was on the left is at the bottom.
    assert pixels(found)[35, 20].tolist() == [0, 0, 128]
    assert pixels(found)[5, 20].tolist() == [0, 128, 0]
    (found,) = edited(photo, Edit(turns=2))
    assert pixels(found)[20, 35].tolist() == [0, 0, 128]


def test_this_process_edits_as_the_decoders_do(photo: Path) -> None:
    edit = Edit(turns=3, labels=(Label(box=(5, 5, 60, 30), text="A b"),))
    (found,) = edited(photo, edit, decode="fast")
    here = read_input(found.item, size=40, max_pixels=10**6, thumbnail=32, https_hosts=())
    np.testing.assert_array_equal(found.pixels, here.pixels)


def test_what_cannot_be_edited_is_an_error_and_not_asked_about_as_it_is(tmp_path: Path) -> None:
    upright = tmp_path / "upright.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(upright, exif=exif)
    label = Edit(labels=(Label(box=(0, 0, 5, 5), text="A"),))
    assert edited(upright, label)[0].error is None
    (refused,) = edited(upright, label, exif="apply")
    assert refused.error == "it is drawn on as its file has it, not upright: give exif: ignore"
    (refused,) = edited(upright, Edit(segment=(0, 1)))
    assert refused.error == "a part of a video is wanted, and this is read as an image"
    (refused,) = edited(upright, label, video={"clip": {"frames": 2}})
    assert refused.error == "an image is to be drawn on, and this is read as a video"


def test_of_a_segment_its_own_frames_are_sampled_from_its_first(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", options={"g": "12"}, frames=60)  # one each 40 ms
    clip = {"every_frames": 5, "clip": {"frames": 4}}

    def frames(start: float, end: float, size: int = 240) -> list[Input]:
        return edited(path, Edit(segment=(start, end)), size, video=clip)

    (found,) = frames(0.5, 1.0)
    assert found.moment
    assert found.moment.clip_frames
    assert [index for index, _ in found.moment.clip_frames] == [13, 18, 23]
    shown = [number_in(Image.fromarray(each)) for each in pixels(found)]
    assert shown == [13, 18, 23, 13]  # begun again
    (found,) = frames(2.3, 99)
    assert found.moment
    assert found.moment.frame_index == 58
    (found,) = frames(50, 99)
    assert found.error == "no frame of the video is in the segment that is asked about"


@given(STEPS, POLICIES, st.integers(0, 5000), st.integers(1, 5000))
def test_a_segment_is_sampled_like_a_video_of_its_frames_alone(
    steps: list[int], policy: dict[str, Any], start: int, length: int
) -> None:
    frames = video(steps)
    begin, end = Fraction(start, 1000), Fraction(start + length, 1000)
    inside = [each for each in frames if begin <= each.time < end]
    alone = [
        each._replace(frame=each.frame - inside[0].frame, time=each.time - begin) for each in inside
    ]
    known = VideoSpec.model_validate(policy)
    expected = list(run(Sampler(known), alone))
    sampler = SegmentSampler(known, exact(start / 1000), exact((start + length) / 1000))
    found = list(run(sampler, frames))
    first = inside[0].frame if inside else 0
    assert found == [(clip, frame + first) for clip, frame in expected]
