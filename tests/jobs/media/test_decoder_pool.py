"""The pool: pixels as of this process, and whatever a file does to its decoder is one error."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from paliflow.configs import AnnotateSpec
from paliflow.jobs.media import decoder_pool as pools
from paliflow.jobs.media.channel import Channel, shared_memory
from paliflow.jobs.media.decoder_pool import Clock, DecoderPool
from paliflow.jobs.media.decoding import ImageTask
from paliflow.jobs.media.pixels import Result
from paliflow.jobs.media.readahead import ReadAhead
from paliflow.jobs.media.reader import reader
from paliflow.jobs.media.reading import Input, Stored, read_input
from paliflow.jobs.media.video.cutting import pieces
from paliflow.jobs.runs.item import Item
from paliflow.tests.jobs import hostile, zoo
from paliflow.tests.jobs.files import encode
from paliflow.tests.jobs.videos import write


def spec(**fields: Any) -> AnnotateSpec:
    base = {"input": "x", "output": "x", "run_id": "x", "prompts": ["x"]}
    return AnnotateSpec.parse(base | fields)


def read(path: Path, **fields: Any) -> list[Input]:
    return [found for found in reader(spec(**fields), 56, 32)(Item(str(path))) if found]


def processes(pid: int | None = None) -> list[psutil.Process]:
    """The decoders' server, then its decoders."""
    found = []
    for each in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):  # some have just ended
            if pools.DECODER_MODULE in each.cmdline():
                found.append(each)
    return found


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "good.jpg"
    path.write_bytes(encode("RGB", "JPEG", (400, 300)))
    return path


@pytest.mark.parametrize("kind", sorted(zoo.FORMATS.values()))
def test_pixels_are_those_that_this_process_decodes_bit_for_bit(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(encode("RGB", kind, (120, 90)))
    (found,) = read(path)
    here = read_input(Item(str(path)), size=56, max_pixels=10**6, thumbnail=32, https_hosts=())
    np.testing.assert_array_equal(found.pixels, here.pixels)
    assert found._replace(pixels=None) == here._replace(pixels=None)


def test_decoders_inherit_no_secrets_and_can_open_nothing(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret")
    pool = DecoderPool(1000, 2)
    assert list(decode(pool, image.read_bytes()))
    server, decoder = processes()[-2:]
    for process in (server, decoder):
        assert "secret" not in " ".join(process.environ().values())
    limits = Path(f"/proc/{decoder.pid}/limits").read_text().splitlines()
    (files,) = [line.split() for line in limits if line.startswith("Max open files")]
    assert files[3:5] == ["1", "1"]
    names = [str(link.readlink()) for link in Path(f"/proc/{decoder.pid}/fd").iterdir()]
    assert {name.partition(":")[0] for name in names} == {"/dev/null", "socket", "/memfd"}


def decode(pool: DecoderPool, data: bytes, timeout: float = 20.0) -> Iterator[Result]:
    task = ImageTask(size=8, max_pixels=10**8)
    for found in pool.results(task, Item("x"), Stored(()), Clock(timeout), data):
        if found:
            yield found


def test_what_swells_is_an_error_and_the_next_input_is_read(tmp_path: Path, image: Path) -> None:
    path = tmp_path / "small.jp2"
    path.write_bytes(hostile.precincts(1024))  # 570 MB
    assert path.stat().st_size < 118
    (found,) = read(path, decoder_memory=100)
    assert found.error
    assert read(image, decoder_memory=100)[0].error is None


def test_what_hangs_is_killed_and_the_pool_goes_on(tmp_path: Path, image: Path) -> None:
    path = tmp_path / "slow.webp"
    path.write_bytes(hostile.slow_webp())
    assert path.stat().st_size < 2700
    fields: dict[str, Any] = {"video": {"count": 2}}
    read(image)
    before = {process.pid for process in processes()}
    started = time.monotonic()
    (found,) = read(path, read_timeout=0.5, **fields)
    assert found.error == "not read and decoded within 0.5 s"
    assert time.monotonic() - started < 5
    assert {process.pid for process in processes()} <= before
    assert read(image)[0].error is None


def test_a_film_has_a_limit_in_all_whatever_signs_of_life_it_gives(tmp_path: Path) -> None:
    path = tmp_path / "slow.webp"
    path.write_bytes(hostile.slow_webp(1024))
    found = read(path, video_timeout=0.3, video={"every_frames": 1})
    assert found[-1].error == "not decoded within 0.3 s (video_timeout)"
    assert len(found) < 50


@pytest.mark.parametrize("victims", [slice(1), slice(1, None)])
def test_a_decoder_or_a_server_that_is_killed_costs_nothing(tmp_path: Path, victims: slice) -> None:
    path = write(tmp_path / "a.mp4", frames=60)
    quiet = read(path, video={"every_frames": 3})
    disturbed = []
    for number, found in enumerate(
        reader(spec(video={"every_frames": 3}), 56, 32)(Item(str(path)))
    ):
        if number == 5:
            for process in processes()[victims]:
                process.kill()
        if found:
            disturbed.append(found)
    assert len(quiet) == len(disturbed) == 20
    for one, other in zip(quiet, disturbed, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert one.moment == other.moment


def test_no_process_outlives_who_started_it(image: Path) -> None:
    code = f"""
import time
from paliflow.configs import AnnotateSpec
from paliflow.jobs.runs.item import Item
from paliflow.jobs.media.reader import reader
(found,) = reader(AnnotateSpec.parse({spec().model_dump_json()!r}), 8)(Item({str(image)!r}))
assert found.error is None
print("read", flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    assert parent.stdout.readline() == "read\n"
    left = processes(parent.pid)
    assert len(left) == 2
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(left, timeout=5)
    assert alive == []


class Impostor:
    """A decoder that a file took over."""

    def __init__(self, *messages: bytes) -> None:
        ours, theirs = socket.socketpair()
        self.channel, self._end = Channel(ours, shared_memory()), theirs
        for message in messages:
            theirs.send(message)
        theirs.shutdown(socket.SHUT_WR)

    def end(self, grace_s: float = 0.0) -> int:
        self.channel.close()
        self._end.close()
        return 0


def hear(*messages: bytes) -> list[Result | None]:
    impostor: Any = Impostor(*messages)
    files = pools._Bytes(Stored(()), Item("x"), None)
    conversation = pools._Conversation(impostor, files, Clock(1.0), threading.Lock(), 1)
    return list(conversation.results(ImageTask(size=2, max_pixels=9), b"{}", None))


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(4) + message


RESULT = {
    "kind": "result",
    "width": 2,
    "height": 2,
    "pixels": None,
    "thumbnail": None,
    "error": "no",
    "moment": None,
    "length": None,
    "orientation": 1,
    "view": False,
}


@pytest.mark.parametrize(
    "message",
    [
        b"\xff\xff\xff\xff",
        framed(b""),
        framed(b"\x80\x04."),  # a pickle
        framed(b"[" * 100_000),
        framed(b'{"kind": "end"}'),
        framed(b'{"kind": "exclusive", "wanted": false}'),
        *(
            framed(json.dumps(RESULT | wrong).encode())
            for wrong in (
                {"pixels": [2, 2, 3]},  # which are not there
                {"pixels": [9, 9, 3]},
                {"pixels": [2**30, 2**30, 3]},
                {"thumbnail": 10},
                {"width": -1},
                {"width": 2**40},
                {"orientation": 9},
                {"view": True},  # which was not asked for
                {"error": None},
                {"error": "x" * 3000},
                {"moment": [0, float("nan"), None, None]},
                {"surplus": 1},
            )
        ),
    ],
)
def test_nonsense_of_a_decoder_that_was_taken_over_is_its_end(message: bytes) -> None:
    with pytest.raises(pools._DiedError, match="crashes the decoder"):
        hear(message)


@given(st.binary(max_size=200))
def test_whatever_a_decoder_sends_is_a_result_or_its_end(message: bytes) -> None:
    for each in (message, framed(message)):
        with suppress(pools._DiedError):
            assert all(isinstance(found, Result | None) for found in hear(each))


def test_the_words_of_a_decoder_are_a_result() -> None:
    assert hear(framed(json.dumps(RESULT).encode())) == [Result(2, 2, error="no")]


@pytest.mark.parametrize("compression", [1, 5, 8])
def test_a_tile_larger_than_its_image_counts_against_max_pixels(
    tmp_path: Path, compression: int
) -> None:
    path = tmp_path / "tile.tif"
    path.write_bytes(hostile.tiled_tiff(24_576, compression))
    (found,) = read(path)
    assert found.error
    assert found.error.startswith("too many pixels: 16 x 16 pixels, but 603979776 in one")


def test_an_avif_is_as_large_as_its_frame_whatever_its_header_says(tmp_path: Path) -> None:
    path = tmp_path / "ispe.avif"
    path.write_bytes(hostile.lying_avif(1024))
    (found,) = read(path, max_pixels=3_000_000)
    assert found.error
    assert found.error.startswith("too many pixels: 64 x 64 pixels, but 1048576 in one")
    assert read(path, max_pixels=4_000_000)[0].error is None


def test_a_frame_that_grows_in_mid_stream_is_not_decoded(tmp_path: Path) -> None:
    small, large = (
        zoo.saved(Image.effect_noise((side, side), 9).convert("RGB"), "JPEG") for side in (64, 1024)
    )
    pictures = [small] * 10 + [large] + [small] * 10
    for suffix in ("avi", "mkv", "mov"):
        path = hostile.jpegs_film(tmp_path / f"grows.{suffix}", pictures)
        every: dict[str, Any] = {"video": {"every_frames": 1}}
        *good, bad = read(path, max_pixels=10**6, **every)
        assert [each.width for each in good] == [64] * 20
        assert (bad.error or "").startswith("frames are missing after 0.360 s until 0.440 s")
        assert len(read(path, max_pixels=2 * 10**6, **every)) == 21
        *good, bad = read(hostile.growing_film(path, 16_000), decoder_memory=300, **every)
        assert [each.width for each in good] == [64] * 20
        assert bad.error


def planned(path: Path, **video: Any) -> int:
    return len(list(pieces([Item(str(path))], spec(video={"every_s": 1} | video))))


def test_a_table_with_more_frames_than_the_file_has_bytes_is_not_planned_by(tmp_path: Path) -> None:
    path = hostile.mp4_with_entries(tmp_path / "a.mp4", 1_000_000)
    assert planned(path) == 1
    (found,) = read(path, video={"every_s": 1})
    assert found.error == "its table has 1000000 frames, more than the file has bytes"


def test_a_lab_tiff_is_converted_though_pillow_imports_what_that_takes_late(tmp_path: Path) -> None:
    Image.new("LAB", (8, 8), (128, 128, 128)).save(tmp_path / "lab.tif")
    (found,) = read(tmp_path / "lab.tif")
    assert (found.error, found.width) == (None, 8)


def test_a_film_has_no_more_pieces_than_frames(tmp_path: Path) -> None:
    path = hostile.mp4_with_frames_of(tmp_path / "a.mp4", 2**30)  # 18 hours each
    assert 1 <= planned(path) <= 10
    assert 1 <= planned(path, segment_s=0.001) <= 10


def test_frames_that_are_all_shown_at_once_are_planned_as_one(tmp_path: Path) -> None:
    path = hostile.mp4_with_frames_of(tmp_path / "a.mp4", 0)
    assert planned(path) == 1
    assert planned(path, every_s=None, every_frames=1) == 1


def test_pipes_and_devices_called_films_are_errors_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    for name in ("pipe.mp4", "zero.mp4"):
        assert planned(tmp_path / name) == 1
        (found,) = read(tmp_path / name, video={"every_s": 1})
        assert found.error == "cannot be read: not a regular file"


def test_inputs_that_time_out_are_signs_of_life(tmp_path: Path) -> None:
    path = tmp_path / "slow.webp"
    path.write_bytes(hostile.slow_webp())
    limited = spec(read_timeout=0.2, video={"count": 2})
    signs = [time.monotonic()]
    items = [Item(str(path), id=str(number)) for number in range(15)]
    ahead = ReadAhead(reader(limited, 8), items, 4, 0.2, 2, lambda: signs.append(time.monotonic()))
    with closing(ahead):
        errors = {found.error for found in ahead}
    assert errors == {"not read and decoded within 0.2 s"}
    assert len(signs) > 15
    assert max(np.diff(signs)) < 3


def test_a_signal_that_ends_a_decoder_twice_is_named(image: Path) -> None:
    pool = DecoderPool(1000, 2)
    new = pool._new

    def new_and_dying() -> Any:
        decoder = new()
        os.kill(decoder._pid, signal.SIGSEGV)
        return decoder

    pool._new = new_and_dying  # type: ignore[method-assign]
    (found,) = decode(pool, image.read_bytes())
    assert found.error == "crashes the decoder (SIGSEGV)"


def test_a_result_that_is_not_taken_yet_keeps_no_other_input_waiting(image: Path) -> None:
    read_one = reader(spec(decoder_memory=1024), 56, 2)  # a pool of its own, of two decoders
    waiting = [iter(read_one(Item(str(image)))) for _ in range(4)]
    for each in waiting:
        found = next(result for result in islice(each, 20) if result)
        assert found.pixels is not None
