"""Less common containers and animations: found by name, read whole, and told of where they end."""

import io
from collections import Counter
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from paliflow.jobs.media.video.asf import AsfObjects
from paliflow.jobs.media.video.container import VIDEO_SUFFIXES
from paliflow.jobs.media.video.damage import FrameGap, VideoError
from paliflow.jobs.media.video.reading import Sample
from paliflow.jobs.media.video.wholeness import is_whole_image
from paliflow.jobs.sources.items import items
from paliflow.tests.jobs.media.test_video_frames import numbers, spec, taken
from paliflow.tests.jobs.videos import draw, write

mpeg2 = partial(write, codec="mpeg2video", base=Fraction(1, 25), frames=12)
FILMS = {
    "a.vob": mpeg2,
    "a.mxf": mpeg2,
    "a.m2v": mpeg2,
    "a.ogv": partial(write, codec="libvpx", base=Fraction(1, 25), frames=12),
    "a.apng": partial(write, codec="apng", pixels="rgb24", frames=12),
    "a.asf": partial(write, codec="wmv2", frames=12),
    "a.3g2": partial(write, codec="mpeg4", frames=12),
    "a.f4v": partial(write, frames=12),
    "a.m2t": partial(write, frames=12),
}


@pytest.mark.parametrize("name", FILMS)
def test_a_folders_films_of_every_container_are_read_whole(tmp_path: Path, name: str) -> None:
    FILMS[name](tmp_path / name)
    passed_over: Counter[str] = Counter()
    (film,) = items(spec().model_copy(update={"input": str(tmp_path)}), passed_over)
    assert not passed_over
    assert numbers(taken(film, every_frames=1)) == [(n, n) for n in range(12)]


def test_the_manual_names_every_suffix_of_a_video() -> None:
    manual = Path(__file__, "../../../../docs/input.md").resolve().read_text()
    assert f"`{' '.join(VIDEO_SUFFIXES)}`" in manual


def webp(path: Path, lasts: list[int]) -> Path:
    """An animation of numbered frames that are shown for so many milliseconds."""
    first, *others = [Image.fromarray(draw(n)) for n in range(len(lasts))]
    first.save(path, save_all=True, append_images=others, duration=lasts, minimize_size=False)
    return path


def test_a_cut_webp_gives_its_whole_frames_and_says_where_it_breaks_off(tmp_path: Path) -> None:
    path = webp(tmp_path / "a.webp", [40] * 12)
    content = path.read_bytes()
    starts = [n for n in range(len(content)) if content[n : n + 4] == b"ANMF"]
    assert len(starts) == 12
    for cut in (starts[7] - 1, starts[7], starts[7] + 5, starts[7] + 60):
        path.write_bytes(content[:cut])
        *found, damage = taken(path, every_frames=1)
        whole = 6 if cut < starts[7] else 7
        assert numbers(found) == [(n, n) for n in range(whole)]
        assert damage == FrameGap(Fraction(whole - 1, 25), None, "the file breaks off")
    path.write_bytes(content[: starts[0] + 60])
    with pytest.raises(VideoError, match="truncated or broken WebP"):
        taken(path)


def test_frames_of_a_webp_that_last_no_time_are_shown_for_a_tenth_of_a_second(
    tmp_path: Path,
) -> None:
    path = webp(tmp_path / "a.webp", [0, 40, 9, 10, 300])
    found = taken(path, every_frames=1)
    times = [s.timestamp_s for s in found if isinstance(s, Sample)]
    assert times == pytest.approx([0, 0.1, 0.14, 0.24, 0.25])


def test_count_of_a_webp_repeats_a_picture_that_is_shown_for_long(tmp_path: Path) -> None:
    path = webp(tmp_path / "a.webp", [40, 40, 40, 2000, 40, 40, 40])
    found = taken(path, count=8)
    assert numbers(found) == [(n, n) for n in (0, 3, 3, 3, 3, 3, 3, 4)]


def gif(path: Path) -> Path:
    first, *others = [Image.fromarray(draw(n)) for n in range(12)]
    first.save(path, save_all=True, append_images=others, duration=40)
    return path


def test_a_cut_gif_gives_its_whole_pictures_and_says_where_it_breaks_off(tmp_path: Path) -> None:
    path = gif(tmp_path / "a.gif")
    assert numbers(taken(path, every_frames=1)) == [(n, n) for n in range(12)]
    content = path.read_bytes()
    for share in (0.5, 0.75, 0.95):
        path.write_bytes(content[: int(len(content) * share)])
        *found, damage = taken(path, every_frames=1)
        assert 2 < len(found) < 12
        assert numbers(found) == [(n, n) for n in range(len(found))]
        assert isinstance(damage, FrameGap)
        assert (damage.after, damage.until) == (Fraction(len(found) - 1, 25), None)
    path.write_bytes(content[:-1])  # a trailer that is missing is no loss
    assert numbers(taken(path, every_frames=1)) == [(n, n) for n in range(12)]


def test_of_a_damaged_gif_no_picture_is_shown_in_which_some_is_missing(tmp_path: Path) -> None:
    path = gif(tmp_path / "a.gif")
    content = path.read_bytes()
    fifth = [n for n in range(len(content)) if content[n : n + 3] == b"!\xf9\4"][4]
    path.write_bytes(content[: fifth + 30] + bytes(40) + content[fifth + 70 :])
    *found, damage = taken(path, every_frames=1)
    assert numbers(found)[:4] == [(n, n) for n in range(4)]
    assert isinstance(damage, FrameGap)
    assert damage.after == Fraction(3, 25)


@given(st.binary(max_size=60), st.integers(0, 1000))
def test_whatever_a_packet_of_a_gif_holds_it_is_whole_or_not(noise: bytes, at: int) -> None:
    assert is_whole_image(b"GIF89a" + noise) in (True, False)
    assert is_whole_image(noise) in (True, False)


def test_a_fragmented_mp4_that_is_cut_before_the_next_pictures_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "10", "bf": "0"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = 64, 48
        for number in range(40):
            picture = np.full((48, 64, 3), 5 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    content = path.read_bytes()
    assert len(taken(path, every_frames=1)) == 40
    moof = content.index(b"moof", content.index(b"moof", content.index(b"moof") + 4) + 4) - 4
    mdat = content.index(b"mdat", moof) - 4
    for cut in (moof + 2, moof + 30, mdat, mdat + 4, mdat + 8):
        path.write_bytes(content[:cut])
        *found, damage = taken(path, every_frames=1)
        assert len(found) == 20
        assert isinstance(damage, FrameGap)
        assert (damage.after, damage.until) == (Fraction(len(found) - 1, 25), None)
    path.write_bytes(content[:moof])  # where a fragment ends it is whole, for all that it says
    assert len(taken(path, every_frames=1)) == len(found)


def test_an_ogg_that_is_cut_or_lacks_pages_says_so(tmp_path: Path) -> None:
    content = Path(__file__, "../../../data/theora.ogv").resolve().read_bytes()
    path = tmp_path / "a.ogv"
    path.write_bytes(content)
    # Three of 25 frames are empty packets: they show what was shown before.
    assert [s.frame for s in taken(path, every_frames=1) if isinstance(s, Sample)] == [*range(22)]
    pages = [n for n in range(len(content)) if content[n : n + 4] == b"OggS"]
    for cut in (pages[-3], pages[-2] + 9, pages[-1], pages[-1] + 40, len(content) - 1):
        path.write_bytes(content[:cut])
        *found, damage = taken(path, every_frames=1)
        assert 10 < len(found) < 22
        assert isinstance(damage, FrameGap)
        assert isinstance(found[-1], Sample)
        assert (float(damage.after), damage.until) == (found[-1].timestamp_s, None)
    path.write_bytes(content[: pages[4]] + content[pages[5] :])
    damages = [each for each in taken(path, every_frames=1) if isinstance(each, FrameGap)]
    assert len(damages) == 1
    assert damages[0].until is not None


def wmv(path: Path) -> tuple[bytes, int]:
    """A WMV of 60 numbered frames in packets of 3200 bytes, and where the first one lies."""
    content = write(path, "wmv2", frames=60, options={"g": "20"}).read_bytes()
    return content, int.from_bytes(content[16:24], "little") + 50


@pytest.mark.parametrize("lost", ["removed", "zeroed"])
def test_a_wmv_that_lacks_packets_says_where(tmp_path: Path, lost: str) -> None:
    path = tmp_path / "a.wmv"
    content, start = wmv(path)
    assert numbers(taken(path, every_frames=1)) == [(n, n) for n in range(60)]
    cut, end = start + 3200 * 5, start + 3200 * 7
    between = bytes(end - cut) if lost == "zeroed" else b""
    path.write_bytes(content[:cut] + between + content[end:])
    found = taken(path, every_frames=1)
    assert [n for n in numbers(found) if n[0] != n[1]] == []
    (damage,) = [each for each in found if isinstance(each, FrameGap)]
    missing = set(range(60)) - {n for n, _ in numbers(found)}
    assert missing
    assert all(damage.after < Fraction(n, 25) < (damage.until or 99) for n in missing)


def test_a_wmv_that_is_cut_says_where(tmp_path: Path) -> None:
    path = tmp_path / "a.wmv"
    content, start = wmv(path)
    for cut in (start + 3200 * 6, start + 3200 * 9 + 700):
        path.write_bytes(content[:cut])
        *found, damage = taken(path, every_frames=1)
        assert numbers(found) == [(n, n) for n in range(len(found))]
        assert isinstance(damage, FrameGap)
        assert (damage.after, damage.until) == (Fraction(len(found) - 1, 25), None)


@given(st.binary(max_size=300), st.binary(max_size=400))
def test_whatever_an_asf_holds_it_lacks_some_or_not(header: bytes, packets: bytes) -> None:
    whole = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + (120).to_bytes(8, "little")
    whole += bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365") + bytes(80) + b"\x64\0\0\0"
    for content in (whole + header + packets, header):
        objects = AsfObjects(io.BytesIO(content), 1)
        assert objects.lacks_before(len(content)) in (True, False)
        assert objects.breaks_off(len(content)) in (True, False)
