"""Beam search finds what big_vision's finds."""

import re
from functools import partial

import jax
import numpy as np
import pytest

from paliflow.model.beam import beam_search
from paliflow.tests.model.conftest import REFERENCE, load_reference


@pytest.mark.parametrize("name", ["pg1", "pg2"])
def test_beam_search_finds_what_big_vision_finds(name: str) -> None:
    want = np.load(REFERENCE / f"beam_{name}.npz")
    model = load_reference(name)
    tokens = model.encode_images(want["image"])
    cases = sorted(found.groups() for key in want if (found := _CASE.fullmatch(key)))
    assert len(cases) > 10
    for sharpen, eos, beams, length in cases:
        params = jax.tree_util.tree_map_with_path(partial(_sharpened, int(sharpen)), model.params)
        found = beam_search(
            *(model.network, params, tokens, want["prompt"], want["prompt_mask"]),
            beams=int(beams),
            max_new_tokens=int(length),
            eos_id=int(eos),
        )
        case = f"x{sharpen}/eos{eos}/beam{beams}/max{length}"
        np.testing.assert_array_equal(found.tokens, want[f"{case}/tokens"], case)
        np.testing.assert_array_equal(found.lengths, want[f"{case}/lengths"], case)
        np.testing.assert_array_equal(found.finished, want[f"{case}/finished"], case)
        np.testing.assert_allclose(found.logprobs, want[f"{case}/logprobs"], atol=1e-4)


def test_a_beam_search_without_an_end_token_is_refused() -> None:
    model = load_reference("pg1")
    image, prompt = np.zeros((1, 56, 56, 3), np.float32), np.ones((1, 4), np.int32)
    with pytest.raises(ValueError, match="beams=2: a beam search needs eos_id"):
        model.generate(image, prompt, prompt > 0, max_new_tokens=4, beams=2, eos_id=None)


_CASE = re.compile(r"x(\d+)/eos(\d+)/beam(\d+)/max(\d+)/tokens")


def _sharpened(by: int, path: jax.tree_util.KeyPath, leaf: jax.Array) -> jax.Array:
    """The last norm's scale so that hypotheses differ more, as in the reference."""
    named = "/".join(str(getattr(key, "key", key)) for key in path)
    return by * (1 + leaf) - 1 if named.endswith("llm/final_norm/scale") else leaf
