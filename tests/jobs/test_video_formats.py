"""Less common containers and animations: found by name, read whole, and told of where they end."""

from collections import Counter
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from paliflow.jobs.sources import items
from paliflow.jobs.video.container import VIDEO_SUFFIXES, Damage, VideoError
from paliflow.jobs.video.reading import Sample
from paliflow.tests.jobs.test_video_frames import numbers, spec, taken
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
    manual = Path(__file__, "../../../docs/input.md").resolve().read_text()
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
        assert damage == Damage(Fraction(whole - 1, 25), None, "the file breaks off")
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


def test_count_of_a_webp_with_a_long_still_picture_is_what_is_shown_then(tmp_path: Path) -> None:
    path = webp(tmp_path / "a.webp", [40, 40, 40, 2000, 40, 40, 40])
    found = taken(path, count=8)
    assert numbers(found) == [(n, n) for n in (0, 3, 3, 3, 3, 3, 3, 3)]
