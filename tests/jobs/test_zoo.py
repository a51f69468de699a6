"""Hostile inputs: each becomes pixels or a sensible reason, in bounded time and memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from paliflow import storage
from paliflow.tests.jobs import zoo

READ_ALL = r"""
import json, re, sys, time
import pytest
from PIL import Image

from paliflow import storage
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.media.reading import read_input
for uri in json.load(sys.stdin):
    start, wall = time.process_time(), time.monotonic()
    read = read_input(Item(uri), size=224, max_pixels=10**8, thumbnail=64, https_hosts=())
    parts = read.width, read.height, read.pixels, read.thumbnail
    whole = all(part is not None for part in parts)
    # Of this program alone: a process inherits ru_maxrss from the one that started it.
    peak = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 2**20
    cpu = time.process_time() - start
    print(json.dumps([uri, read.error, whole, cpu, time.monotonic() - wall, peak]), flush=True)
"""


def read_all(uris: list[str]) -> dict[str, tuple[str | None, bool, float, float, float]]:
    """Reads in a process of its own: error, completeness, CPU s, wall s, peak memory in GiB."""
    command = [sys.executable, "-W", "ignore", "-c", READ_ALL]
    run = subprocess.run(
        command, input=json.dumps(uris), capture_output=True, text=True, timeout=250, check=False
    )
    read = {uri: tuple(values) for uri, *values in map(json.loads, run.stdout.splitlines())}
    assert run.returncode == 0, f"died behind {list(read)[-1:]}: {run.stderr[-2000:]}"
    return read


def test_every_animal_is_accounted_for(tmp_path: Path) -> None:
    wanted = zoo.fill(tmp_path / "zoo")
    assert len(wanted) >= 60
    listed = [entry.uri for entry in storage.list_files(str(tmp_path / "zoo"))]
    escaped = {f"{zoo.LATIN_1}.jpg": "gr\\xf6\\xdfe.jpg"}
    uris = {f"{tmp_path}/zoo/{escaped.get(name, name)}": error for name, error in wanted.items()}
    assert {*listed, f"{tmp_path}/zoo/folder.jpg"} == set(uris)
    wrong = {}
    for uri, (error, whole, cpu, wall, peak) in read_all(list(uris)).items():
        expected = uris[uri]
        said = error is None if expected is None else (error or "").startswith(expected)
        if not said or whole != (error is None) or cpu > 5 or wall > 30 or peak > 1:
            wrong[Path(uri).name] = (expected, error, whole, cpu, wall, peak)
    assert wrong == {}


@pytest.mark.slow
def test_the_largest_images_that_pass_fit_too(tmp_path: Path) -> None:
    noise = Image.effect_noise((100, 100), 60).resize((10_000, 10_000))
    large = Image.merge("RGB", [noise] * 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    large.save(tmp_path / "a.jpg", progressive=True, subsampling=0, exif=exif)
    large.convert("RGBA").save(tmp_path / "a.png", compress_level=1)
    large.convert("CMYK").save(tmp_path / "a.tif", compression="tiff_lzw")
    large = large.resize((5_773, 5_773))
    large.save(tmp_path / "a.jp2")
    large.save(tmp_path / "a.webp", method=0)
    for path in tmp_path.iterdir():
        ((error, whole, cpu, _, peak),) = read_all([str(path)]).values()
        assert (error, whole) == (None, True)
        assert cpu < 5, path.name
        assert peak < 1, path.name
