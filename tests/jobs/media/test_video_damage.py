"""Broken videos: every frame that is whole is right, and one word says where others are missing."""

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from paliflow.jobs.media.reader import reader
from paliflow.jobs.media.video.cutting import pieces
from paliflow.jobs.media.video.damage import FrameGap, VideoError
from paliflow.jobs.media.video.lengths import announced_size
from paliflow.jobs.media.video.reading import Sample
from paliflow.jobs.runs.plan import Item
from paliflow.tests.jobs.media.test_video_frames import AV1, VP9, X264, X265, numbers, spec, taken
from paliflow.tests.jobs.videos import draw, even, read, uneven, with_moov_first, write


def h264(folder: Path) -> Path:
    return with_moov_first(write(folder / "a.mp4", options=X264 | {"g": "30"}))


def hevc(folder: Path) -> Path:
    options = {"x265-params": "log-level=none:keyint=30"}
    return with_moov_first(write(folder / "a.mp4", "libx265", options=options))


def webm(folder: Path) -> Path:
    return write(folder / "a.webm", "libvpx-vp9", options=VP9 | {"g": "30", "keyint_min": "30"})


def mkv(folder: Path) -> Path:
    return write(folder / "a.mkv", "libsvtav1", options=AV1 | {"g": "30"})


def avi(folder: Path) -> Path:
    return write(folder / "a.avi", "mjpeg", pixels="yuvj420p", base=Fraction(1, 25))


GOP = 30
MAKERS = [h264, hevc, webm, mkv, avi]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    "share", [0.6, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.75, 0.9))]
)
def test_a_cut_file_gives_its_frames_and_says_where_it_breaks_off(
    tmp_path: Path, make: Callable[[Path], Path], share: float
) -> None:
    path = make(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    *found, damage = taken(path, every_frames=1)
    assert 10 < len(found) < 120
    assert numbers(found) == [(n, n) for n in range(len(found))]
    assert isinstance(damage, FrameGap)
    assert damage.until is None
    assert damage.after == Fraction(len(found) - 1, 25)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    "place", [0.5, *(pytest.param(place, marks=pytest.mark.slow) for place in (0.35, 0.7))]
)
def test_damage_in_the_middle_leaves_the_rest_and_is_told(
    tmp_path: Path, make: Callable[[Path], Path], place: float
) -> None:
    path = make(tmp_path)
    content = bytearray(path.read_bytes())
    start = int(len(content) * place)
    noise = np.random.default_rng(int(place * 100)).integers(0, 256, 400, np.uint8)
    content[start : start + 400] = noise.tobytes()
    path.write_bytes(content)
    found = taken(path, every_frames=1)
    damages = [each for each in found if isinstance(each, FrameGap)]
    # What stands in a packet is not checked by all codecs: until the next keyframe it may be wrong.
    wrong = {n // GOP for n, shown in numbers(found) if n != shown}
    assert len(wrong) <= 1
    missing = set(range(120)) - {n for n, _ in numbers(found)}
    assert bool(missing) <= bool(damages)
    for number in missing:
        time = Fraction(number, 25)
        assert any(d.after < time and (d.until is None or time < d.until) for d in damages)


def test_only_the_piece_with_the_break_tells_of_it(tmp_path: Path) -> None:
    path = h264(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.5)])
    fields: dict[str, Any] = {"every_s": 0.2, "segment_s": 1}
    parts = [taken(part, **fields) for part in pieces([Item(str(path))], spec(**fields))]
    assert len(parts) == 5
    told = [[each for each in part if isinstance(each, FrameGap)] for part in parts]
    assert sum(map(len, told)) == 1
    assert [n for part in parts for n in numbers(part)] == numbers(taken(path, every_s=0.2))


def test_damage_is_told_in_the_times_of_the_frames(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.mp4", options=X264 | {"g": "30"}, at=lambda n: 40 * n + 2000)
    path = with_moov_first(whole)
    first = taken(path, every_frames=1)[0]
    assert isinstance(first, Sample)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.6)])
    *found, damage = taken(path, every_frames=1)
    assert isinstance(damage, FrameGap)
    assert isinstance(found[-1], Sample)
    assert float(damage.after) == found[-1].timestamp_s
    assert found[-1].timestamp_s == pytest.approx(first.timestamp_s + (len(found) - 1) / 25)


def bad(folder: Path, name: str) -> Path:
    path = folder / name
    if name == "no moov.mp4":
        content = write(path, options=X265 and X264).read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif name == "empty.mp4":
        path.write_bytes(b"")
    elif name == "text.mp4":
        path.write_bytes(b"hello" * 1000)
    elif name == "list.m3u8":
        other = write(folder / "other.mp4", frames=5)
        path.write_text(f"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n")
    elif name == "concat.mp4":
        write(folder / "other.mp4", frames=5)
        path.write_text("ffconcat version 1.0\nfile other.mp4\n")
    elif name == "image.jpg":
        Image.fromarray(draw(1)).save(path)
    elif name == "sound.mp4":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=48000)
            sound = np.zeros((1, 1024), np.float32)
            frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
            frame.rate, frame.pts = 48000, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no moov.mp4", "not a video, or without its header"),
        ("empty.mp4", "not a video"),
        ("text.mp4", "not a video"),
        ("list.m3u8", "not a video"),
        ("concat.mp4", "not a video"),
        ("image.jpg", "not a video"),
        ("sound.mp4", "no video stream"),
    ],
)
def test_what_is_no_video_is_one_error(tmp_path: Path, name: str, said: str) -> None:
    path = bad(tmp_path, name)
    with pytest.raises(VideoError, match=said):
        taken(path)
    (found,) = reader(spec(), 8)(Item(str(path)))
    assert found
    assert said in (found.error or "")
    assert str(tmp_path) not in (found.error or "")
    assert list(pieces([Item(str(path))], spec())) == [Item(str(path))]


def test_what_is_not_there_is_one_error(tmp_path: Path) -> None:
    (found,) = reader(spec(), 8)(Item(str(tmp_path / "a.mp4")))
    assert found
    assert found.error == "not found"


def test_a_header_without_frames_is_one_error(tmp_path: Path) -> None:
    path = webm(tmp_path)
    with av.open(str(path)) as container:
        first = next(container.demux(video=0)).pos
    path.write_bytes(path.read_bytes()[:first])
    found = [each for each in reader(spec(), 8)(Item(str(path))) if each]
    assert [each.moment and each.moment.frame_index for each in found] == [None]
    assert found[0].error
    assert "frames are missing from its start to its end" in found[0].error


def test_a_duration_that_lies_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", options=X264)
    content = bytearray(path.read_bytes())
    for box in (b"mvhd", b"tkhd", b"mdhd"):
        place = content.index(box) + {b"mvhd": 20, b"tkhd": 24, b"mdhd": 20}[box]
        (duration,) = struct.unpack_from(">I", content, place)
        struct.pack_into(">I", content, place, duration * 50)
    path.write_bytes(content)
    assert numbers(taken(path, every_s=0.5)) == [
        (n, n) for n in (0, 13, 25, 38, 50, 63, 75, 88, 100, 113)
    ]
    assert numbers(taken(path, count=4)) == [(n, n) for n in (0, 30, 60, 90)]


def test_too_many_pixels_are_not_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames=2)
    limited = spec().model_copy(update={"max_pixels": 320 * 240 - 1})
    (found,) = reader(limited, 8)(Item(str(path)))
    assert found
    assert found.error == "too many pixels: 320 x 240 are more than max_pixels=76799"


@pytest.mark.slow
def test_eight_thousand_pixels_are_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames=2, size=(7680, 4320), options={"preset": "ultrafast"})
    assert numbers(taken(path, every_frames=1)) == [(0, 0), (1, 1)]


@given(st.binary(max_size=200))
def test_whatever_a_file_begins_with_its_length_is_a_number_or_unknown(head: bytes) -> None:
    for start in (b"", b"RIFF\1\2\3\4AVI ", b"\x1a\x45\xdf\xa3\x18\x53\x80\x67"):
        size = announced_size(start + head)
        assert size is None or size >= 0


def test_a_piped_avi_and_what_lies_between_blocks_of_matroska_are_whole(tmp_path: Path) -> None:
    content = bytearray(avi(tmp_path).read_bytes())
    content[4:8] = b"\xff\xff\xff\xff"
    path = tmp_path / "piped.avi"
    path.write_bytes(content)
    assert numbers(taken(path, every_frames=30)) == [(n, n) for n in (0, 30, 60, 90)]
    assert not any(isinstance(each, FrameGap) for each in taken(path, every_frames=30))

    content = bytearray(mkv(tmp_path).read_bytes())
    cluster = content.rindex(b"\x1f\x43\xb6\x75")
    room = b"\xec" + (2000 | 1 << 56).to_bytes(8, "big") + bytes(2000)
    fonts = b"\x19\x41\xa4\x69" + (50_000 | 1 << 56).to_bytes(8, "big") + b"\xff" * 50_000
    content[cluster:cluster] = room
    content += fonts
    size = content.index(b"\x18\x53\x80\x67") + 4
    whole = len(content) - size - 8
    content[size : size + 8] = (whole | 1 << 56).to_bytes(8, "big")
    path = tmp_path / "fonts.mkv"
    path.write_bytes(content)
    found = taken(path, every_frames=1)
    assert numbers(found) == [(n, n) for n in range(120)]
    assert not any(isinstance(each, FrameGap) for each in found)

    path.write_bytes(content[: -len(fonts) // 2])
    assert isinstance(taken(path, every_frames=30)[-1], FrameGap)


def test_the_index_after_lost_packets_is_right_or_said_to_be_estimated(tmp_path: Path) -> None:
    options = X264 | {"g": "20"}
    for at in (even, uneven):
        path = write(tmp_path / "a.ts", options=options, at=at, frames=100)
        content = path.read_bytes()
        packets = len(content) // 188
        start = packets // 2 * 188
        path.write_bytes(content[:start] + content[start + packets // 5 * 188 :])
        found = taken(path, every_frames=1)
        damages = [each for each in found if isinstance(each, FrameGap)]
        assert damages
        assert damages[-1].estimated
        shown = [(each, read(each.image)) for each in found if isinstance(each, Sample)]
        first = shown[0][0].timestamp_s
        notes = [sample.note for sample, _ in shown if sample.note]
        assert notes == [each.note for each in damages if each.until is not None]
        assert notes[-1].startswith("frame_index is estimated from ")
        for sample, number in shown:
            assert sample.timestamp_s - first == pytest.approx(at(number) / 1000, abs=0.001)
            assert sample.frame == number or at is uneven


REORDERED = {"g": "20", "x264-params": "bframes=3:b-adapt=0:scenecut=0:b-pyramid=normal"}
"""Three frames of four are coded after one that is shown after them."""


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_what_is_shown_after_frames_that_were_cut_off_is_left_out(
    tmp_path: Path, name: str
) -> None:
    base = Fraction(1, 25) if name == "a.avi" else Fraction(1, 1000)
    path = write(tmp_path / name, options=REORDERED, frames=40, base=base)
    path = with_moov_first(path) if name == "a.mp4" else path
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        ends = [packet.pos + packet.size for packet in packets if packet.pos is not None]
    content = path.read_bytes()
    for whole in range(22, 27):
        path.write_bytes(content[: ends[whole]])
        for policy in ({"every_frames": 1}, {"every_s": 0.04, "segment_s": 0.16}):
            parts = pieces([Item(str(path))], spec(**policy))
            *shown, damage = [each for part in parts for each in taken(part, **policy)]
            assert numbers(shown) == [(n, n) for n in range(len(shown))]
            assert whole - 4 < len(shown) <= whole + 1
            assert isinstance(damage, FrameGap)
            assert (damage.after, damage.until) == (Fraction(len(shown) - 1, 25), None)
        keys = taken(path, keyframes=True)
        assert numbers(keys) == [(0, 0), (20, 20)][: len(keys) - 1]


@pytest.mark.parametrize(("name", "each"), [("a.ts", 188), ("a.m2ts", 192)])
def test_a_ts_that_ends_within_a_packet_breaks_off(tmp_path: Path, name: str, each: int) -> None:
    path = write(tmp_path / name, options=REORDERED, frames=40)
    content = path.read_bytes()
    assert len(content) % each == 0
    assert numbers(taken(path, every_frames=1)) == [(n, n) for n in range(40)]
    assert all(isinstance(found, Sample) for found in taken(path, every_frames=10))
    for packets in range(len(content) // each // 2, len(content) // each, 9):
        path.write_bytes(content[: packets * each + 100])
        *shown, damage = taken(path, every_frames=1)
        assert numbers(shown) == [(n, n) for n in range(len(shown))]
        assert isinstance(damage, FrameGap)
        assert damage.reason == "the file breaks off or is damaged up to its end"
        assert damage.until is None


def test_reordered_frames_before_lost_packets_keep_their_places(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ts", options=REORDERED, frames=80)
    content = path.read_bytes()
    for packet in range(len(content) // 188 // 3, len(content) // 188 * 2 // 3, 7):
        path.write_bytes(content[: packet * 188] + content[(packet + 2) * 188 :])
        found = taken(path, every_frames=1)
        assert all(index == shown for index, shown in numbers(found))
        gaps = [each for each in found if isinstance(each, FrameGap)]
        at = {round(each.timestamp_s, 3) for each in found if isinstance(each, Sample)}
        first = min(at)
        for time in {round(first + n / 25, 3) for n in range(80)} - at:
            assert any(g.after < time and (g.until is None or time < g.until) for g in gaps)


def test_frames_that_damage_in_a_program_stream_swallows_are_counted(tmp_path: Path) -> None:
    """Where one begins only its start code says, and that may be what is damaged."""
    options = {"g": "12", "bf": "2", "b": "2M"}
    path = write(tmp_path / "a.mpg", "mpeg2video", frames=60, options=options, base=Fraction(1, 25))
    assert all(isinstance(each, Sample) for each in taken(path, every_frames=9))
    content = path.read_bytes()
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    for number, next_key in ((19, 36), (26, 36), (30, 36), (35, 48)):
        start = next(place for place in places[number:] if place)
        noise = np.random.default_rng(number).integers(0, 256, 600, np.uint8).tobytes()
        path.write_bytes(content[:start] + noise + content[start + 600 :])
        *shown, gap = taken(path, every_frames=1)
        assert isinstance(gap, FrameGap)
        assert all(index == drawn for index, drawn in numbers(shown))
        after = [each for each in shown if isinstance(each, Sample) and each.frame >= next_key]
        assert [each.frame for each in after] == list(range(next_key, 60))
        assert gap.until == Fraction(next_key, 25) + Fraction(27, 50)
        assert after[0].note == f"frame_index is estimated from {float(gap.until):.3f} s on"
        keys = numbers(taken(path, keyframes=True))
        assert {(0, 0), (12, 12), (48, 48)} < set(keys)
        assert all(index == drawn for index, drawn in keys)
