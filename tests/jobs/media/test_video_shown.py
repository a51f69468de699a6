"""What a decoded frame looks like: mirrored and turned, interlaced, oddly coloured, too large."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from paliflow.jobs.media.reading import Stored
from paliflow.jobs.media.video.cutting import pieces
from paliflow.jobs.media.video.damage import FrameGap, VideoError
from paliflow.jobs.media.video.frames import sampled_frames
from paliflow.jobs.media.video.picture import Frame
from paliflow.jobs.media.video.reading import Sample, samples
from paliflow.jobs.runs.plan import Item
from paliflow.tests.jobs.media.test_video_frames import spec, taken
from paliflow.tests.jobs.videos import turned, write


def corner(_: int) -> NDArray[np.uint8]:
    """Red in the upper left corner, green to the right of it."""
    picture = np.full((48, 64, 3), 40, np.uint8)
    picture[:16, :16] = (230, 20, 20)
    picture[:16, 16:32] = (20, 230, 20)
    return picture


def comb(_: int) -> NDArray[np.uint8]:
    """Every other line is white, as where something moves between two fields."""
    picture = np.zeros((128, 128, 3), np.uint8)
    picture[::2] = 255
    return picture


def first(path: Path) -> Sample:
    found = taken(path, every_frames=1)[0]
    assert isinstance(found, Sample)
    return found


RIGHT, LEFT, DOWN, UP = (1, 0), (-1, 0), (0, 1), (0, -1)
MATRICES = {
    (RIGHT, DOWN): None,
    (LEFT, DOWN): Image.Transpose.FLIP_LEFT_RIGHT,
    (RIGHT, UP): Image.Transpose.FLIP_TOP_BOTTOM,
    (LEFT, UP): Image.Transpose.ROTATE_180,
    (DOWN, LEFT): Image.Transpose.ROTATE_270,
    (UP, RIGHT): Image.Transpose.ROTATE_90,
    (DOWN, RIGHT): Image.Transpose.TRANSPOSE,
    (UP, LEFT): Image.Transpose.TRANSVERSE,
}


def test_all_eight_display_matrices_turn_and_mirror_the_picture(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames=1, size=(64, 48), picture_of=corner)
    plain = first(path).image
    for (across, down), turn in MATRICES.items():
        sample = first(turned(path, across, down))
        expected = plain if turn is None else plain.transpose(turn)
        assert np.array_equal(np.asarray(sample.image), np.asarray(expected)), (across, down)
        assert sample.picture.size == expected.size
        assert isinstance(sample.picture, Frame)
        assert sample.picture.reduced(24).size == tuple(side // 2 for side in expected.size)


def test_a_picture_with_exif_is_turned_as_that_says(tmp_path: Path) -> None:
    exif, jpeg = Image.Exif(), io.BytesIO()
    exif[0x112] = 6
    plain = Image.fromarray(corner(0))
    plain.save(jpeg, "JPEG", exif=exif, quality=95)
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as target:
        stream = target.add_stream("mjpeg", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        packet = av.Packet(jpeg.getvalue())
        packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), True
        packet.pts = packet.dts = 0
        target.mux(packet)
    expected = np.asarray(plain.transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert abs(np.asarray(first(path).image) - expected).mean() < 8


def test_interlaced_frames_are_scaled_whole_not_field_by_field(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.mpg",
        "mpeg2video",
        frames=2,
        size=(128, 128),
        picture_of=comb,
        base=Fraction(1, 25),
        options={"flags": "+ildct+ilme", "qmax": "2", "g": "1"},
    )
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    sample = first(path)
    assert isinstance(sample.picture, Frame)
    for small in (np.asarray(sample.picture.reduced(64)), sample.picture.small()):
        assert abs(small.astype(int) - 127).max() < 12
    whole = np.asarray(sample.image).astype(int)
    assert (whole[::2] - whole[1::2]).min() > 200


def test_matrix_tags_that_ffmpeg_does_not_convert_are_shown(tmp_path: Path) -> None:
    def shown(matrix: str) -> NDArray[np.uint8]:
        path = write(
            tmp_path / f"{matrix}.mp4",
            frames=1,
            size=(64, 48),
            picture_of=corner,
            options={"x264-params": f"colormatrix={matrix}"},
        )
        return np.asarray(first(path).image)

    plain = shown("undef")
    for matrix in ("YCgCo", "smpte2085", "chroma-derived-nc", "chroma-derived-c", "ICtCp"):
        assert np.array_equal(shown(matrix), plain), matrix
    assert np.array_equal(shown("bt2020c"), shown("bt2020nc"))


def test_max_pixels_holds_where_the_size_changes_in_mid_stream(tmp_path: Path) -> None:
    path, content = tmp_path / "a.ts", b""
    for size in ((320, 240), (640, 480), (320, 240)):
        part = write(tmp_path / "part.ts", frames=12, size=size, options={"g": "12"})
        content += part.read_bytes()
    path.write_bytes(content)
    limited = spec(every_frames=1).model_copy(update={"max_pixels": 640 * 480 - 1})
    found = [each for each in samples(Item(str(path)), Stored(()), limited) if each]
    frames = [each for each in found if isinstance(each, Sample)]
    assert {each.picture.size for each in frames} == {(320, 240)}
    assert [each.frame for each in frames] == [*range(12), *range(24, 36)]
    (damage,) = [each for each in found if isinstance(each, FrameGap)]
    assert damage.reason == "too many pixels: 640 x 480 are more than max_pixels=307199"
    assert {
        each.picture.size for each in taken(path, every_frames=9) if isinstance(each, Sample)
    } == {
        (320, 240),
        (640, 480),
    }


def test_an_encrypted_video_is_one_error_whatever_its_length(tmp_path: Path) -> None:
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76" * 16}
    path = write(tmp_path / "a.mp4", frames=50, muxer=key | {"encryption_kid": "a7" * 16})
    assert len(list(pieces([Item(str(path))], spec(segment_s=0.5)))) == 1
    with pytest.raises(VideoError, match="its frames are encrypted"):
        taken(path)


def test_extraction_stretches_pixels_that_are_not_square_if_asked(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.mp4",
        frames=1,
        size=(64, 48),
        picture_of=corner,
        options={"x264-params": "sar=4/3"},
    )
    for file, aspect, stored, shown in (
        (path, 4 / 3, (64, 48), (85, 48)),
        (turned(path, DOWN, LEFT), 3 / 4, (48, 64), (36, 64)),
    ):
        for square, size in ((False, stored), (True, shown)):
            (found,) = sampled_frames(
                Item(str(file)), Stored(()), spec(), "png", 90, None, square_pixels=square
            )
            assert found is not None
            assert found.moment is not None
            assert (found.width, found.height) == size
            assert found.moment.pixel_aspect == pytest.approx(1 if square else aspect)
