"""How long the TPU compiler expects attention to take: cycles of a chip, on a machine without one.

    PYTHONPATH=.venv/tpu-aot python -m paliflow.benchmarks.tpu_attention --slice v5e:1x1

One layer's attention of the prefill and of the vision tower, for a slice of 2,560 tokens. The
cycles are those that the compiler writes beside each operation that it makes; what is in a loop
counts for each round.
"""

import re
from typing import Annotated

import jax
import jax.numpy as jnp
import typer
from jax.sharding import SingleDeviceSharding

from paliflow.model import VARIANTS
from paliflow.model.aot import slice_devices
from paliflow.model.attention import attend, blocks_of
from paliflow.model.xla import ANY, TOKENS

PROMPT = 8
_CYCLES = re.compile(r'estimated_cycles":"(\d+)"')


def main(
    slice_: Annotated[str, typer.Option("--slice", help="One chip, e.g. v6e:1x1.")] = "v5e:1x1",
) -> None:
    """Prints a table."""
    place = SingleDeviceSharding(slice_devices(slice_)[0])
    print("| attention of | rows | million cycles |\n|---|--:|--:|")
    for model in ("paligemma-3b", "paligemma2-3b"):
        for pixels in (224, 448, 896):
            config = VARIANTS[f"{model}-{pixels}"]
            text, vision = config.text, config.vision
            heads = text.num_heads, text.num_kv_heads, text.head_dim
            towers = {model: (vision.num_patches + PROMPT, heads, text.attn_logits_softcap)}
            if model == "paligemma-3b":  # both have the same vision tower
                own = vision.num_heads, vision.num_heads, vision.width // vision.num_heads
                towers["vision tower"] = vision.num_patches, own, None
            for name, (length, shape, softcap) in towers.items():
                rows = max(1, TOKENS // length)
                cycles = _estimated(rows, length, shape, softcap, place, name == model)
                print(f"| {name}, {pixels} pixels | {rows} | {cycles / 1e6:.2f} |", flush=True)


def _estimated(
    rows: int,
    length: int,
    heads: tuple[int, int, int],
    softcap: float | None,
    place: SingleDeviceSharding,
    masked: bool,
) -> int:
    """Cycles of `attend`."""
    count, kv_heads, dim = heads

    def array(*shape: int, dtype: jax.typing.DTypeLike = jnp.bfloat16) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    def run(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array) -> jax.Array:
        return attend(query, key, value, mask if masked else None, softcap)

    keys = array(rows, length, kv_heads, dim)
    mask = array(rows, 1, length, dtype=bool)
    program = jax.jit(run).lower(array(rows, length, count, dim), keys, keys, mask).compile()
    rounds = blocks_of(length, ANY)
    total, times = 0, 1
    for line in (program.as_text() or "").splitlines():
        if line.endswith("{") and "->" in line:  # a computation begins
            times = 1 if line.startswith("ENTRY") else rounds
        total += times * sum(map(int, _CYCLES.findall(line)))
    if not total:
        raise SystemExit("this compiler writes no cycles beside its operations")
    return total


if __name__ == "__main__":
    typer.run(main)
