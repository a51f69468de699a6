"""Decoding for annotation against PyAV alone, on one long 1080p file.

    python -m paliflow.benchmarks.video --minutes 60

Both decode every frame of the same H.264 file, in processes of their own, one after the other.
PyAV alone throws the frames away; ours samples one a second for a network of 224 pixels, through
the queue from which the device is fed. Then two processes share the file, each with half of its
pieces.
"""

import multiprocessing
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import typer
from av.video.stream import VideoStream

from paliflow.configs import AnnotateSpec
from paliflow.jobs.media.readahead import ReadAhead
from paliflow.jobs.media.reader import max_concurrent_reads, reader
from paliflow.jobs.media.video.cutting import pieces
from paliflow.jobs.runs.plan import Item

FPS, WIDTH, HEIGHT = 25, 1920, 1080
SIZE = 224


def write_minute(path: Path) -> None:
    """A minute of a shaded picture that drifts under a moving square."""
    rng = np.random.default_rng(0)
    noise = rng.integers(60, 200, (HEIGHT // 8, WIDTH // 8 + 100, 3), np.uint8)
    wide = noise.repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": "28", "g": "250"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(60 * FPS):
            shift = number // 2
            frame = np.ascontiguousarray(wide[:, shift : shift + WIDTH])
            top = number * 3 % (HEIGHT - 200)
            frame[top : top + 200, 400:600] = (250, 30, 30)
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def repeat(minute: Path, times: int, path: Path) -> None:
    """The minute again and again, its packets copied."""
    with av.open(str(path), "w") as target:
        copy = None
        for turn in range(times):
            with av.open(str(minute)) as source:
                stream = source.streams.video[0]
                copy = copy or target.add_stream_from_template(stream)
                assert stream.time_base
                shift = int(turn * 60 / stream.time_base)
                for packet in source.demux(stream):
                    if packet.dts is not None and packet.pts is not None:
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = copy
                        target.mux(packet)


def alone(path: str) -> int:
    """Frames that PyAV decodes."""
    with av.open(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        return sum(1 for _ in container.decode(video=0))


def ours(items: list[Item], spec: AnnotateSpec) -> int:
    """Frames that are sampled."""
    readers = max_concurrent_reads(spec.video)
    ahead = ReadAhead(reader(spec, SIZE), items, 32, spec.read_timeout, readers)
    with closing(ahead):
        inputs = list(map(bool, ahead))
    return len(inputs)


def measured(results: Any, work: Callable[..., int], *arguments: Any) -> None:
    """Puts frames, seconds and peak megabytes of some work into a queue."""
    started = time.perf_counter()
    frames = work(*arguments)
    seconds = time.perf_counter() - started
    status = Path("/proc/self/status").read_text()  # getrusage counts what the parent had, too
    peak = int(re.search(r"VmHWM:\s*(\d+)", status)[1]) / 1024  # type: ignore[index]
    results.put((frames, seconds, peak))


def run(work: Callable[..., int], *shares: tuple[Any, ...]) -> tuple[int, float, float]:
    """Frames, seconds of the slowest and megabytes of the largest of several processes."""
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    processes = [spawn.Process(target=measured, args=(results, work, *s)) for s in shares]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
    frames, seconds, peaks = zip(*found, strict=True)
    return sum(frames), max(seconds), max(peaks)


def main(minutes: int = 60) -> None:
    """Prints frames a second, peak memory and ratios."""
    with tempfile.TemporaryDirectory() as name:
        minute, path = Path(name, "minute.mp4"), Path(name, "video.mp4")
        write_minute(minute)
        repeat(minute, minutes, path)
        spec = AnnotateSpec.parse(
            {"input": "x", "output": "x", "run_id": "x", "prompts": ["x"], "video": {"fps": 1}}
        )
        print(f"{minutes} minutes, {WIDTH} x {HEIGHT}, {path.stat().st_size / 1e6:.0f} MB")
        frames, base, peak = run(alone, (str(path),))
        print(f"PyAV alone: {frames / base:.0f} frames/s, peak {peak:.0f} MB")
        parts = list(pieces([Item(str(path))], spec))
        half = len(parts) // 2
        for kind, shares in (
            (f"one process, {len(parts)} pieces", [parts]),
            ("two processes, half of the pieces each", [parts[:half], parts[half:]]),
        ):
            sampled, seconds, peak = run(ours, *((share, spec) for share in shares))
            print(
                f"{kind}: {frames / seconds:.0f} frames/s, {base / seconds:.2f} of PyAV alone, "
                f"{sampled} frames sampled, peak {peak:.0f} MB"
            )


if __name__ == "__main__":
    typer.run(main)
