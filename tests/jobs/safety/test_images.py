"""Image filters: quality by its limits; hashes that survive re-encoding and tell images apart."""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter
from sklearn.datasets import load_sample_images

import paliflow.dags
from paliflow.configs.safety import QualityFilter
from paliflow.jobs.safety.checking import ImageCheck, outcome
from paliflow.jobs.safety.hashing import as_words, distances, image_hash
from paliflow.jobs.safety.near import MAX_DISTANCE, NearIndex, duplicates
from paliflow.jobs.safety.protocol import VIEW, View
from paliflow.model.images import decode_image, resize

SAMPLE = Path(str(paliflow.dags.__file__)).parent / "sample"


@cache
def images() -> list[Image.Image]:
    """Two photographs and twelve drawn scenes."""
    photographs = [Image.fromarray(each) for each in load_sample_images().images]
    scenes = sorted(SAMPLE.glob("scene_0*")) + sorted(SAMPLE.glob("scene_1[01]*"))
    return photographs + [decode_image(path.read_bytes(), 10**7).image for path in scenes]


def view(image: Image.Image) -> View:
    return View(resize(image.convert("RGB"), VIEW), *image.size)


def hashes(pictures: list[Image.Image]) -> NDArray[np.uint64]:
    found = [image_hash(view(picture).pixels) for picture in pictures]
    assert None not in found
    return as_words([each for each in found if each])


def labels(image: Image.Image, **limits: float) -> set[str]:
    """What a quality filter flags."""
    (verdicts,) = ImageCheck([QualityFilter.parse(limits)]).verdicts([view(image)])
    assert outcome(verdicts) == ("filtered" if any(v.reason for v in verdicts) else "ok")
    return {each.label for each in verdicts if each.action == "drop"}


def test_quality_filter_passes_good_images_and_names_what_is_wrong_with_others() -> None:
    photograph, _, *scenes = images()
    assert [labels(each) for each in (photograph, *scenes)] == [set()] * 13
    assert labels(photograph.resize((40, 30))) == {"small"}
    assert labels(photograph.resize((32, 32))) == set()  # at the limit
    assert labels(photograph.resize((640, 60))) == {"long"}
    assert labels(photograph.filter(ImageFilter.GaussianBlur(12))) == {"blurred"}
    assert labels(Image.new("RGB", (300, 300), "white")) == {"blurred", "blank"}
    assert labels(photograph, min_side=500, max_aspect=1.2) == {"small", "long"}
    assert labels(Image.new("RGB", (8, 8)), min_side=0, min_sharpness=0, min_entropy=0) == set()


def test_quality_scores_are_those_of_the_arithmetic() -> None:
    checks = np.indices((VIEW, VIEW)).sum(0) % 2  # every neighbour is 255 levels away
    board = Image.fromarray(np.repeat((checks * 255).astype(np.uint8)[..., None], 3, -1))
    settings = QualityFilter(action="label", min_entropy=1.5)
    (verdicts,) = ImageCheck([settings]).verdicts([View(np.asarray(board), 512, 128)])
    scores = {each.label: each.score for each in verdicts}
    assert scores["small"] == 128
    assert scores["long"] == 4
    assert scores["blurred"] == pytest.approx((4 * 255) ** 2, rel=1e-4)
    assert scores["blank"] == pytest.approx(1.0, abs=1e-3)
    (blank,) = [each for each in verdicts if each.label == "blank"]
    assert (blank.action, blank.reason) == ("label", "1 is beyond min_entropy=1.5")


def jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=30)
    return Image.open(file)


def marked(image: Image.Image) -> Image.Image:
    image = image.copy()
    width, height = image.size
    place = (0.8 * width, 0.9 * height, 0.97 * width, 0.95 * height)
    ImageDraw.Draw(image).rectangle(place, fill="white")
    return image


def cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 20, height // 20, width * 19 // 20, height * 19 // 20))


CHANGES: dict[str, tuple[Callable[[Image.Image], Image.Image], float, float]] = {
    "JPEG 30": (jpeg, 1, 1),
    "half the size": (lambda image: image.resize((image.width // 2, image.height // 2)), 1, 1),
    "brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.3), 1, 1),
    "darker": (lambda image: ImageEnhance.Brightness(image).enhance(0.7), 1, 1),
    "grey": (lambda image: image.convert("L"), 1, 1),
    "blurred": (lambda image: image.filter(ImageFilter.GaussianBlur(2)), 1, 1),
    "watermark": (marked, 0.8, 1),
    "crop 5 %": (cropped, 0, 0.2),
    "flipped": (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 0, 0),
}
"""Each with the least and the largest share of images that are known again."""


def test_hash_knows_changed_images_again_and_no_others() -> None:
    known = hashes(images())
    apart = distances(known[:, None], known[None]) + 256 * np.eye(len(known), dtype=np.int64)
    print(f"other images differ in {apart.min()} to {apart[apart <= 256].max()} bits")
    assert apart.min() > 2 * MAX_DISTANCE
    for name, (change, least, most) in CHANGES.items():
        own = distances(hashes([change(each) for each in images()]), known)
        recall = float((own <= MAX_DISTANCE).mean())
        print(f"{name}: recall {recall:.0%}, distances {own.min()} to {own.max()}")
        assert least <= recall <= most, name


def test_flat_images_have_no_hash() -> None:
    noise = np.random.default_rng(0).normal(128, 2, (VIEW, VIEW, 3)).astype(np.uint8)
    assert image_hash(noise) is None
    assert image_hash(np.full((VIEW, VIEW, 3), 255, np.uint8)) is None


def spread(count: int, seed: int = 0) -> NDArray[np.uint64]:
    """Hashes drawn at random."""
    return np.random.default_rng(seed).integers(0, 2**64, (count, 4), np.uint64)


def flipped(words: NDArray[np.uint64], bits: int, seed: int = 1) -> NDArray[np.uint64]:
    """Hashes of which so many bits were changed each."""
    draw = np.random.default_rng(seed)
    chosen = np.argsort(draw.random((len(words), 256)), axis=1)[:, :bits]
    mask = np.zeros((len(words), 256), np.uint8)
    np.put_along_axis(mask, chosen, 1, axis=1)
    return words ^ np.packbits(mask, axis=1).view(np.uint64)


def test_index_finds_every_hash_that_is_near_and_no_other() -> None:
    known = spread(3000)
    index = NearIndex()
    for part in np.array_split(known, 7):  # levels of several sizes
        index.add(part)
    assert len(index) == 3000
    for bits in (0, 1, 16, 30, 31):
        near = index.nearest(flipped(known[::6], bits))
        assert (near.place == np.arange(0, 3000, 6)).all(), bits
        assert (near.distance == bits).all()
    far = index.nearest(flipped(known[::6], 32))
    assert (far.place == -1).all()
    assert (far.distance == 256).all()
    assert (index.nearest(flipped(known[::6], 9), limit=8).place == -1).all()
    with pytest.raises(ValueError, match="limit=32"):
        index.nearest(known, limit=32)
    assert (NearIndex().nearest(known[:5]).place == -1).all()


def test_nearest_of_several_is_found_and_of_equally_near_ones_the_first() -> None:
    one = spread(1)
    index = NearIndex()
    index.add(np.concatenate([flipped(one, 9, 2), flipped(one, 4, 3), spread(300, 4), one, one]))
    near = index.nearest(np.concatenate([one, flipped(one, 9, 2)]))
    assert near.place.tolist() == [302, 0]
    assert near.distance.tolist() == [0, 0]


def test_duplicates_name_the_first_image_that_stays() -> None:
    first, second = spread(2)[:1], spread(2)[1:]
    # Each is near the one before it, and the third is too far from the first to repeat it.
    chain = [first, flipped(first, 20, 5)]
    chain.append(flipped(chain[1], 20, 6))
    words = np.concatenate([first, second, *chain[1:], second, spread(600, 9), first])
    found = duplicates(words)
    apart = distances(chain[2], first)[0]
    assert apart > MAX_DISTANCE
    assert found.place[:5].tolist() == [-1, -1, 0, -1, 1]
    assert found.place[-1] == 0
    assert (found.place[5:-1] == -1).all()
    assert found.distance[[2, 4, 5]].tolist() == [20, 0, 256]
