"""What reading images takes of a core, how `decode: fast` differs from `exact`, pool and threads.

    python -m paliflow.benchmarks.reading rates
    python -m paliflow.benchmarks.reading differences
    python -m paliflow.benchmarks.reading pool --images 400

`rates`: CPU milliseconds an image of each way, turn and turn about in one process, beside Pillow
alone and, where they are installed, OpenCV and torchvision. `differences`: grey levels and greedy
answers. `pool`: the same files, cached by the system, read in this process's threads and by the
pool of decoder processes, through the queue from which a device is fed.
"""

import io
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from paliflow.benchmarks.digits.measure import PROMPTS
from paliflow.benchmarks.digits.scenes import compose
from paliflow.configs import AnnotateSpec
from paliflow.configs.run import Decode
from paliflow.jobs.annotate.predictor import Predictor
from paliflow.jobs.media.pixels import decode_to_result
from paliflow.jobs.media.readahead import ReadAhead
from paliflow.jobs.media.reader import Read, reader
from paliflow.jobs.media.reading import Input, finished, read_input
from paliflow.jobs.media.video.picture import Frame
from paliflow.jobs.media.video.sampling import FrameTime
from paliflow.jobs.runs.item import Item
from paliflow.model import BUNDLED_CHECKPOINT, PaliGemma, Tokenizer
from paliflow.model.images import resize

app = typer.Typer(add_completion=False)
SIDES = 224, 640, 1920
SIZE, DEPTH = 224, 32
FILES = (
    ("JPEG", 640, 480),
    ("JPEG", 1632, 1224),
    ("JPEG", 2592, 1944),
    ("JPEG", 4000, 3000),
    ("JPEG", 8000, 6000),
    ("PNG", 1632, 1224),
    ("WEBP", 1632, 1224),
)
Way = Callable[[bytes], Any]


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Shapes of all sizes, the smaller the fainter, and grain, so that it compresses like one."""
    rng = np.random.default_rng(seed)
    small = np.full((600, 800, 3), 120, np.float32)
    for octave in range(2, 10):
        noise = rng.normal(0, 100 / octave**1.5, (3 * 2**octave // 4, 2**octave, 3))
        for band in range(3):
            layer = Image.fromarray(noise[..., band].astype(np.float32))
            small[..., band] += np.asarray(layer.resize((800, 600), Image.Resampling.BICUBIC))
    shapes = Image.fromarray(small.clip(0, 255).astype(np.uint8))
    levels = np.asarray(shapes.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    grain = rng.integers(-5, 6, (height, width, 1), np.int8)
    return Image.fromarray((levels + grain).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, form: str, quality: int = 88) -> bytes:
    """A file."""
    file = io.BytesIO()
    image.save(file, form, quality=quality)
    return file.getvalue()


def ours(data: bytes, size: int, way: Decode) -> NDArray[np.uint8]:
    """What a decoder process and the process that it works for do with a file's bytes."""
    result = decode_to_result(data, size, 10**9, None, way=way)
    found = finished(Item("x"), result, data)
    assert found.pixels is not None
    return found.pixels


def pillow(data: bytes, size: int) -> NDArray[np.uint8]:
    """Pillow alone: all pixels, then its own resize of bytes."""
    with Image.open(io.BytesIO(data)) as image:
        rgb = image.convert("RGB")
    return np.asarray(rgb.resize((size, size), Image.Resampling.BILINEAR))


def others(size: int) -> dict[str, Way]:
    """Readers of other libraries that are installed here, on one thread each."""
    found: dict[str, Way] = {"Pillow": partial(pillow, size=size)}
    if find_spec("cv2"):
        cv2: Any = import_module("cv2")
        cv2.setNumThreads(1)

        def opencv(data: bytes) -> Any:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
            return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)

        found["OpenCV"] = opencv
    if find_spec("torchvision"):
        torch: Any = import_module("torch")
        vision: Any = import_module("torchvision.io")
        functional: Any = import_module("torchvision.transforms.v2.functional")
        torch.set_num_threads(1)

        def torchvision(data: bytes) -> Any:
            raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            image = vision.decode_image(raw, vision.ImageReadMode.RGB)
            return functional.resize(image, [size, size], antialias=True)

        found["torchvision"] = torchvision
    return found


def milliseconds(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The least CPU milliseconds of each way, turn and turn about: what else the machine does only
    adds to them."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.process_time()
            way()
            spent[name].append(time.process_time() - began)
    return {name: 1000 * min(each) for name, each in spent.items()}


def frame(width: int, height: int) -> Frame:
    """A decoded frame of a film."""
    pixels = np.asarray(photograph(width, height))
    picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
    return Frame(FrameTime(0, Fraction(0)), 0.0, picture)


@app.command()
def rates(size: int = SIZE, rounds: int = 7) -> None:
    """Prints CPU milliseconds an image, and images a second and core, as Markdown."""
    readers = others(size)
    names = [*readers, "exact", "fast"]
    print(f"| to {size} pixels, ms of a core | MB | {' | '.join(names)} | fast: images/s a core |")
    print(f"|---|--:|{'--:|' * len(names)}--:|")

    def line(what: str, megabytes: str, spent: dict[str, float]) -> None:
        cells = [f"{spent[name]:.1f}" if name in spent else "" for name in names]
        print(f"| {what} | {megabytes} | {' | '.join(cells)} | {1000 / spent['fast']:.0f} |")

    for form, width, height in FILES:
        data = encoded(photograph(width, height), form)
        ways: dict[str, Callable[[], Any]] = {
            name: partial(way, data) for name, way in readers.items()
        }
        ways |= {
            "exact": partial(ours, data, size, "exact"),
            "fast": partial(ours, data, size, "fast"),
        }
        what = f"{form} of {width * height / 1e6:.1f} megapixels"
        line(what, f"{len(data) / 1e6:.2f}", milliseconds(ways, rounds))
    film = frame(1920, 1080)
    spent = milliseconds(
        {
            "Pillow": lambda: film.upright().resize((size, size), Image.Resampling.BILINEAR),
            "exact": lambda: resize(film.upright(), size),
            "fast": lambda: film.squashed(size),
        },
        rounds,
    )
    line("frame of 1080p, decoded already (whole, and as it is read)", "", spent)


@app.command()
def differences(scenes: int = 48) -> None:
    """Prints by how many grey levels, and in how many greedy answers, the two ways differ."""
    for side in (224, 448):
        for width, height in ((1632, 1224), (2592, 1944), (4000, 3000), (8000, 6000)):
            found = []
            for pixels in load_sample_images().images:
                large = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
                for form in ("JPEG", "PNG"):
                    data = encoded(large, form)
                    exact, fast = (ours(data, side, way) for way in _WAYS)
                    found.append((form, fast.astype(int) - exact))
            for form in ("JPEG", "PNG"):
                levels = np.array([each for name, each in found if name == form])
                print(
                    f"two photographs as {form} of {width} x {height}, to {side}: "
                    f"{np.abs(levels).mean():.3f} levels, mean {levels.mean():+.3f}, "
                    f"at most {np.abs(levels).max():.0f}",
                    flush=True,
                )
    model = PaliGemma.from_checkpoint(BUNDLED_CHECKPOINT)
    tokenizer = Tokenizer.from_file(BUNDLED_CHECKPOINT.with_name("tokenizer.model"))
    spec = AnnotateSpec(
        input="x", output="x", run_id="x", prompts=PROMPTS, max_new_tokens=32, batch_size=16
    )
    predictor, side = Predictor(model, tokenizer, None, spec), model.config.image_size
    rng = np.random.default_rng(2024)
    drawn = [compose(rng, "test", scale=16).image for _ in range(scenes)]
    for width, height in ((1632, 1224), (4000, 3000)):
        texts: dict[Decode, list[str]] = {way: [] for way in _WAYS}
        apart = []
        for start in range(0, scenes, 16):
            files = [
                encoded(image.resize((width, height), Image.Resampling.LANCZOS), "JPEG")
                for image in drawn[start : start + 16]
            ]
            read = {way: [_input(data, side, way) for data in files] for way in _WAYS}
            for way, inputs in read.items():
                for rows in predictor.collect(predictor.ask(inputs, (0, start))):
                    texts[way] += [row["text"] for row in rows]
            pairs = zip(read["exact"], read["fast"], strict=True)
            apart += [np.abs(_pixels(a) - _pixels(b)).mean() for a, b in pairs]
        same = sum(a == b for a, b in zip(texts["exact"], texts["fast"], strict=True))
        print(
            f"{scenes} scenes as JPEG of {width} x {height}, to {side}: {np.mean(apart):.3f} "
            f"levels; {same} of {len(texts['exact'])} greedy answers are the same token by token",
            flush=True,
        )


_WAYS: tuple[Literal["exact"], Literal["fast"]] = "exact", "fast"


def _input(data: bytes, size: int, way: Decode) -> Input:
    return finished(Item("x"), decode_to_result(data, size, 10**9, None, way=way), data)


def _pixels(read: Input) -> NDArray[np.int64]:
    assert read.pixels is not None
    return read.pixels.astype(int)


def write(folder: Path, side: int, count: int) -> list[Item]:
    """Photograph-like JPEGs of `side` x 3/4 `side` pixels."""
    rng = np.random.default_rng(0)
    items = []
    for number in range(count):
        noise = rng.integers(0, 256, (side // 16, side // 12, 3), np.uint8)
        image = Image.fromarray(noise).resize((side, side * 3 // 4), Image.Resampling.BICUBIC)
        path = folder / f"{side}-{number}.jpg"
        image.save(path, quality=90)
        items.append(Item(str(path)))
    return items


def in_threads(item: Item) -> Iterator[Input | None]:
    """As before there were decoder processes."""
    yield read_input(item, size=SIZE, max_pixels=10**8, thumbnail=None, https_hosts=(), way="fast")


def rate(read: Read, items: list[Item], readers: int) -> float:
    """Images a second."""
    started = time.perf_counter()
    with closing(ReadAhead(read, items, DEPTH, 60.0, readers)) as ahead:
        done = sum(found.pixels is not None for found in ahead)
    assert done == len(items)
    return done / (time.perf_counter() - started)


@app.command()
def pool(images: int = 400, rounds: int = 5) -> None:
    """Prints the median rates of threads and pool, and their ratio, by size and readers."""
    spec = AnnotateSpec.parse({"input": "x", "output": "x", "run_id": "x", "prompts": ["x"]})
    ways = {"threads": in_threads, "pool": reader(spec, SIZE)}
    with tempfile.TemporaryDirectory() as name:
        for side in SIDES:
            items = write(Path(name), side, max(8, images * SIDES[0] // side))
            for readers in (1, 2, 4, 8):
                measure = partial(rate, items=items, readers=readers)
                for read in ways.values():
                    measure(read)
                found: dict[str, list[float]] = {way: [] for way in ways}
                for _ in range(rounds):
                    for way, read in ways.items():
                        found[way].append(measure(read))
                threads, pooled = (float(np.median(found[way])) for way in ways)
                print(
                    f"{side:5d} pixels, {readers} readers: threads {threads:.0f} images/s, "
                    f"pool {pooled:.0f} images/s, ratio {pooled / threads:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    app()
