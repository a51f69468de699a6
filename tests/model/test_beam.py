"""Beam search finds what big_vision's finds."""

import re
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from paliflow.model.beam import beam_search
from paliflow.model.generate import prefill
from paliflow.tests.model.conftest import REFERENCE, held_bytes, load_reference


@pytest.mark.parametrize(
    ("name", "beams", "length"),
    [
        ("pg2", 3, 5),
        *(
            pytest.param(name, *case, marks=pytest.mark.slow)
            for name in ("pg1", "pg2")
            for case in ((1, 16), (2, 16), (3, 16), (3, 5), (4, 16))
        ),
    ],
)
def test_beam_search_finds_what_big_vision_finds(name: str, beams: int, length: int) -> None:
    want = np.load(REFERENCE / f"beam_{name}.npz")
    model = load_reference(name)
    tokens = model.encode_images(want["image"])
    case = re.compile(rf"x(\d+)/eos(\d+)/beam{beams}/max{length}/tokens")
    cases = sorted(found.groups() for key in want if (found := case.fullmatch(key)))
    assert cases
    for sharpen, eos in cases:
        params = jax.tree_util.tree_map_with_path(partial(_sharpened, int(sharpen)), model.params)
        prefilled = prefill(
            *(model.network, params, tokens, want["prompt"], want["prompt_mask"]),
            max_new_tokens=length,
            copies=beams,
        )
        program = beam_search.lower(model.network, params, *prefilled, eos_id=int(eos)).compile()
        memory: Any = program.memory_analysis()
        assert memory.alias_size_in_bytes == held_bytes(prefilled.cache)
        found, _ = program(params, *prefilled, eos_id=int(eos))
        own = f"x{sharpen}/eos{eos}/beam{beams}/max{length}"
        np.testing.assert_array_equal(found.tokens, want[f"{own}/tokens"], own)
        np.testing.assert_array_equal(found.lengths, want[f"{own}/lengths"], own)
        np.testing.assert_array_equal(found.finished, want[f"{own}/finished"], own)
        np.testing.assert_allclose(found.logprobs, want[f"{own}/logprobs"], atol=1e-3)


def test_a_beam_search_without_an_end_token_is_refused() -> None:
    model = load_reference("pg1")
    image, prompt = np.zeros((1, 56, 56, 3), np.float32), np.ones((1, 4), np.int32)
    with pytest.raises(ValueError, match="beams=2: a beam search needs eos_id"):
        model.generate(image, prompt, prompt > 0, max_new_tokens=4, beams=2, eos_id=None)


def _sharpened(by: int, path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
    """The last norm's scale so that hypotheses differ more, as in the reference."""
    named = "/".join(str(getattr(key, "key", key)) for key in path)
    return by * (1 + leaf) - 1 if named.endswith("llm/final_norm/scale") else leaf
