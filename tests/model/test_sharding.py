"""Several devices compute what one computes."""

import os
import subprocess
import sys

import pytest

CODE = """
import jax, numpy as np
from paliflow.tests.model.conftest import expected, load_reference
model, want = load_reference("pg2"), expected("pg2")
rows = np.arange({batch}) % 3
image, prompt, mask = (want[name][rows] for name in ("image", "prompt", "prompt_mask"))
assert len(jax.devices()) == 8
tokens = model.encode_images(image)
assert len(tokens.sharding.device_set) == 8
assert tokens.is_fully_replicated == ({batch} % 8 != 0)
result = model.generate_from_tokens(tokens, prompt, mask, max_new_tokens=16, eos_id=None)
np.testing.assert_array_equal(result.tokens, want["decoded"][rows])
"""


@pytest.mark.parametrize("batch", [3, 16])
def test_eight_devices_generate_what_one_does(batch: int) -> None:
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    code = CODE.format(batch=batch)
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
