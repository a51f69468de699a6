"""The digit reader: labels of patches say what the scene shows; training can be interrupted."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jax import Array

from paliflow.benchmarks.digits import scenes
from paliflow.benchmarks.digits.loop import fit
from paliflow.benchmarks.digits.pretraining import label_patches


@pytest.mark.parametrize("seed", range(5))
def test_a_patch_on_a_digit_knows_its_name_its_place_and_its_edges(seed: int) -> None:
    scene = scenes.compose(np.random.default_rng(seed), "train", scale=2)
    side, size = 8, scene.image.width
    labels = label_patches(scene, side)
    for number in range(side * side):
        y, x = (np.array(divmod(number, side)) + 0.5) * size / side
        on = [
            place
            for place, d in enumerate(scene.digits)
            if d.y_min <= y < d.y_max and d.x_min <= x < d.x_max
        ]
        assert labels.places[number] == (on[0] if on else scenes.MAX_DIGITS)
        assert labels.digits[number] == (int(scene.digits[on[0]].label) if on else 10)
        if on:
            d = scene.digits[on[0]]
            box = labels.edges[number] * size / side + [y, x, y, x]
            assert box == pytest.approx([d.y_min, d.x_min, d.y_max, d.x_max])


def test_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    @struct.dataclass
    class Sum:
        step: Array
        total: Array

    def add(state: Sum, batch: int) -> tuple[Sum, dict[str, Array]]:
        return Sum(state.step + 1, state.total + batch), {"loss": jnp.float32(0)}

    begun: list[int] = []

    def make_batch(step: int) -> int:
        begun.append(step)
        return step

    start = Sum(jnp.int32(0), jnp.int32(0))
    fit(tmp_path, start, add, make_batch, 4)
    assert fit(tmp_path, start, add, make_batch, 7) == Sum(jnp.int32(7), jnp.int32(sum(range(7))))
    assert begun == list(range(7))
