"""Paliflow beside Hugging Face transformers: the same random weights, images and prompts.

    python -m paliflow.benchmarks.vs_transformers --torch venv/bin/python --weights /tmp/random-3b

Engines run in processes of their own, one after the other. `--torch` is a Python that has torch
and transformers; Paliflow's side needs JAX and no Ray or Airflow. All rows generate the same
number of tokens, so that both do the same work. `of matmul` is the arithmetic of vision tower and
prefill over their time, against the rate of a large square product in the same process.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import typer

from paliflow.model import VARIANTS, Greedy, PaliGemma, PaliGemmaConfig
from paliflow.model.cost import Shape, work
from paliflow.model.generate import decode, prefill
from paliflow.model.huggingface import write_huggingface
from paliflow.model.layers import quantise
from paliflow.model.paligemma import encode_images
from paliflow.model.weights import expected_shapes
from paliflow.model.xla import int8_product

PROMPT_TOKENS = 8


def main(
    torch: Annotated[str, typer.Option(help="A Python with torch and transformers.")] = "",
    weights: Annotated[Path, typer.Option(help="Made there, if it is not.")] = Path("random-3b"),
    model: Annotated[str, typer.Option(help="A published variant.")] = "paligemma-3b-224",
    batch: Annotated[list[int] | None, typer.Option(help="The best counts. Default: 16.")] = None,
    new_tokens: int = 20,
    rounds: Annotated[int, typer.Option(help="The best counts.")] = 1,
    warm: Annotated[bool, typer.Option(help="Run once before timing.")] = True,
    engine: Annotated[
        list[str] | None, typer.Option(help="E.g. jax:int8, torch:float32. Repeatable.")
    ] = None,
    matmul: Annotated[int, typer.Option(help="Side of the product measured beside.")] = 2048,
    one: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Prints a table of both engines."""
    if one:
        print(json.dumps(_time_jax(json.loads(one))))
        return
    if not (weights / "config.json").exists():
        write_weights(weights, VARIANTS[model])
    engines = engine or ["torch:bfloat16", "jax:bfloat16", "jax:int8"]
    best: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for size in batch or (16,):
                inputs = write_inputs(Path(folder), model, size)
                for name in engines:
                    library, _, dtype = name.partition(":")
                    asked = {
                        "engines": [dtype], "new_tokens": new_tokens, "matmul": matmul,
                        "cases": [{"weights": str(weights), "inputs": str(inputs)}],
                        "warm": warm, "rounds": 1,
                    }  # fmt: skip
                    result = _run(torch if library == "torch" else None, asked) | {"batch": size}
                    result["images/s"] = size / result["total_s"]
                    print(name, json.dumps(result), flush=True)
                    if name not in best or best[name]["images/s"] < result["images/s"]:
                        best[name] = result
    _print(best, model, new_tokens)


def _print(best: dict[str, dict[str, float]], model: str, new_tokens: int) -> None:
    does = work(VARIANTS[model], Shape("bfloat16", PROMPT_TOKENS, new_tokens))
    flops = does.vision.flops + does.prefill.flops
    base = next((best[name] for name in best if name.startswith("torch")), None)
    print(
        "\n| engine | batch | prefill images/s | decode tokens/s | s a step | images/s | ratio "
        "| peak GB | of matmul |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    for name, r in best.items():
        reached = flops * r["batch"] / r["prefill_s"] / r["matmul"]
        step = (r["total_s"] - r["prefill_s"]) / (new_tokens - 1)
        ratio = r["images/s"] / base["images/s"] if base else 1.0
        print(
            f"| {name} | {r['batch']:.0f} | {r['batch'] / r['prefill_s']:.3g} "
            f"| {r['batch'] / step:.3g} | {step:.3g} | {r['images/s']:.3g} | {ratio:.2f} "
            f"| {r['peak_bytes'] / 1e9:.2f} | {reached:.0%} |"
        )


def _run(python: str | None, asked: dict[str, Any]) -> dict[str, float]:
    if python:
        command = [python, str(Path(__file__).parent / "vs_transformers_torch.py")]
    else:
        command = [sys.executable, "-m", "paliflow.benchmarks.vs_transformers", "--one"]
    done = subprocess.run([*command, json.dumps(asked)], stdout=subprocess.PIPE, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def write_inputs(folder: Path, model: str, batch: int) -> Path:
    """Random images and prompts, in a file that both engines read."""
    rng = np.random.default_rng(0)
    size = VARIANTS[model].image_size
    path = folder / f"{size}-{batch}.npz"
    images = rng.uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)
    prompt = rng.integers(1000, 200_000, (batch, PROMPT_TOKENS)).astype(np.int32)
    prompt[:, 0] = 2
    np.savez(path, images=images, prompt=prompt)
    return path


def write_weights(folder: Path, config: PaliGemmaConfig) -> None:
    """Random weights in the published format, 2 bytes a parameter."""
    rng = np.random.default_rng(0)
    params: dict[str, Any] = {}
    for path, shape in expected_shapes(config).items():
        leaf = np.empty(shape, ml_dtypes.bfloat16)
        for row in leaf.reshape(shape[0], -1):
            row[:] = rng.standard_normal(row.shape, np.float32) * 0.02
        params[path] = leaf
    write_huggingface(folder, params, config)


def matmul_rate(dtype: str, side: int) -> float:
    """Operations a second of a large square product of random numbers."""
    x = jax.random.normal(jax.random.key(0), (side, side))
    if dtype == "int8":
        x, _ = quantise(x, (1,))
        square = jax.jit(lambda x: int8_product(x, x))
    else:
        x = x.astype(dtype)
        square = jax.jit(
            lambda x: jnp.einsum("AB,CB->AC", x, x, preferred_element_type=jnp.float32)
        )
    products = 1 if jax.default_backend() == "cpu" else 10
    square(x).block_until_ready()
    started = time.perf_counter()
    for _ in range(products):
        product = square(x)
    product.block_until_ready()
    return products * 2 * side**3 / (time.perf_counter() - started)


class Compiled:
    """The programs that answer one batch, compiled; every call runs them once."""

    def __init__(self, model: PaliGemma, inputs: Path, new_tokens: int) -> None:
        """Compiles them for the images and prompts of `write_inputs`."""
        data = np.load(inputs)
        self._params, self._count = model.params, new_tokens
        self._images, self._prompt = jnp.asarray(data["images"]), jnp.asarray(data["prompt"])
        self._mask = jnp.ones(self._prompt.shape, bool)
        rows, patches = len(self._images), model.config.vision.num_patches
        encoded = encode_images.lower(
            model.network, model.params, self._images, model.slices(rows, patches)
        )
        prefilled = prefill.lower(
            *(model.network, model.params, encoded.out_info, self._prompt, self._mask),
            max_new_tokens=new_tokens,
            slices=model.slices(rows, patches + PROMPT_TOKENS),
        )
        decoded = decode.lower(
            *(model.network, model.params, *prefilled.out_info, 0), sampler=Greedy(), eos_id=None
        )
        self._programs = [each.compile() for each in (encoded, prefilled, decoded)]

    def __call__(self) -> tuple[float, float]:
        """Seconds to the first token's logits, and to the last token."""
        encode, read, generate = self._programs
        started = time.perf_counter()
        tokens = encode(self._params, self._images)
        prefilled = read(self._params, tokens, self._prompt, self._mask)
        prefilled.logits.block_until_ready()
        first = time.perf_counter() - started
        answers, _ = generate(self._params, *prefilled, 0)
        assert np.asarray(answers.lengths).tolist() == [self._count] * len(self._mask)
        return first, time.perf_counter() - started


def _time_jax(asked: dict[str, Any]) -> dict[str, float]:
    """Times prefill and generation of one batch; compiled before."""
    (dtype,), (case,) = asked["engines"], asked["cases"]
    rate = matmul_rate("bfloat16" if dtype == "int8" else dtype, asked["matmul"])
    model = PaliGemma.from_checkpoint(case["weights"], dtype=dtype)
    answer = Compiled(model, Path(case["inputs"]), asked["new_tokens"])
    if asked["warm"]:
        answer()
    first, last = answer()
    # Not `ru_maxrss`, which starts at what the parent had in memory.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    if stats := jax.local_devices()[0].memory_stats():
        peak = stats["peak_bytes_in_use"]
    return {"prefill_s": first, "total_s": last, "peak_bytes": peak, "matmul": rate}


if __name__ == "__main__":
    typer.run(main)
