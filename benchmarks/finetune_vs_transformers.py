"""Fine-tuning beside transformers and peft, on the device at hand: a table in Markdown.

    make gpu-check
    python -m paliflow.benchmarks.finetune_vs_transformers --torch PYTHON --output finetune.md

LoRA adapters of rank 16 on the language model's matrices, and all weights. Both engines read the
same images, the same 128 tokens of text, 16 of them scored, and the same batch; their weights are
random, made where they run, or those of `--weights`. Each engine has a process of its own, and the
shortest step counts, after one that compiles. Layers are computed again in the backward pass
(`again`) only where an engine runs out of memory otherwise.

Where all weights are trained, Paliflow holds them and Adam's moments in float32, as it always does,
and transformers in bfloat16, which takes it least. MFU is the arithmetic of `model/flops.py` over
the time, of the chip's peak. `jax:plain` is Paliflow as on a card that nothing was measured on.
Memory is the allocator's peak for torch, and what the compiled program takes for JAX.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import typer

from paliflow.configs.chips import catalogue
from paliflow.model import VARIANTS, PaliGemmaConfig
from paliflow.model.checkpoint import read_checkpoint
from paliflow.model.flops import train_flops
from paliflow.model.huggingface import config_json
from paliflow.model.loss import Batch
from paliflow.model.recipe import Recipe, trained_shapes
from paliflow.model.sharding import global_batch, global_mesh
from paliflow.model.train import Trainer
from paliflow.model.weights import expected_shapes, infer_config
from paliflow.model.xla import ANY, training_backend

RANK, STEPS, TEXT, SUFFIX = 16, 5, 128, 16
_NEEDS = "torch", "transformers", "peft"


class Case(NamedTuple):
    """A batch of a model at one resolution."""

    model: str
    """A published variant, or a folder of weights."""
    batch: int
    lora_rank: int | None
    """None trains all weights."""


CASES = (
    Case("paligemma-3b-224", 16, RANK),
    Case("paligemma-3b-448", 4, RANK),
    Case("paligemma-3b-224", 16, None),
    Case("paligemma-3b-448", 4, None),
)


def main(
    torch: Annotated[str, typer.Option(help="A Python with torch, transformers and peft.")] = (
        sys.executable
    ),
    weights: Annotated[
        Path | None, typer.Option(help="A Hugging Face folder, instead of 3B at 224 and 448.")
    ] = None,
    batch: Annotated[int, typer.Option(help="With --weights.")] = 16,
    text: Annotated[int, typer.Option(help="Tokens of prefix and suffix.")] = TEXT,
    suffix: Annotated[int, typer.Option(help="Tokens that are scored.")] = SUFFIX,
    steps: Annotated[int, typer.Option(help="The shortest counts.")] = STEPS,
    dtype: Annotated[str, typer.Option(help="Of the products.")] = "bfloat16",
    engine: Annotated[
        list[str] | None, typer.Option(help="torch, jax, jax:plain. Default: torch and jax.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="A file for the table as well.")] = None,
    one: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Prints the table of fine-tuning."""
    if one:
        _time_jax(json.loads(one))
        return
    engines = list(engine or ("torch", "jax"))
    missing = f"import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, {_NEEDS})))"
    if "torch" in engines and subprocess.run([torch, "-c", missing], check=False).returncode:
        print(f"{torch} lacks one of {', '.join(_NEEDS)}: not compared with", file=sys.stderr)
        engines.remove("torch")
    cases = list(CASES)
    if weights:
        cases = [Case(str(weights), batch, rank) for rank in (RANK, None)]
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        inputs = [_write_inputs(Path(folder), case, text, suffix) for case in cases]
        asked = {"steps": steps, "dtype": dtype}
        for line in _table(_results(engines, torch, cases, inputs, asked), cases, text, suffix):
            print(line, flush=True)
            lines.append(line)
            if output:  # as they come: who has little time has those that were measured
                output.write_text("\n".join(lines) + "\n")


def _table(
    results: Iterator[dict[str, Any]], cases: Sequence[Case], text: int, suffix: int
) -> Iterator[str]:
    """The lines of the table, as they are measured."""
    yield (
        "| engine | trains | pixels | batch | again | s a step | examples/s | MFU | peak GiB "
        "| first loss | ratio |\n|---|---|--:|--:|---|--:|--:|--:|--:|--:|--:|"
    )
    base: dict[int, float] = {}
    libraries = set()
    for result in results:
        case = cases[result["case"]]
        config = _config(case.model)
        chip = catalogue().of_device(result["device"])
        trained = trained_shapes(expected_shapes(config), _recipe(case))
        flops = case.batch * train_flops(config, text, suffix, trained=trained)
        speed = case.batch / result["step_s"]
        mfu = f"{flops / result['step_s'] / chip.flops('bfloat16'):.0%}" if chip else "-"
        peak = f"{result['peak_bytes'] / 2**30:.1f}" if result["peak_bytes"] else "-"
        libraries.add(f"{result['device']}, {result['library']}")
        yield (
            f"| {result['engine']} | {f'LoRA, rank {case.lora_rank}' if case.lora_rank else 'all'} "
            f"| {config.image_size} | {case.batch} | {'yes' if result['remat'] else 'no'} "
            f"| {result['step_s']:.3f} | {speed:.3g} | {mfu} | {peak} | {result['loss']:.4f} "
            f"| {speed / base.setdefault(result['case'], speed):.2f} |"
        )
    yield f"\n{'; '.join(sorted(libraries))}."


def _results(
    engines: Sequence[str],
    torch: str,
    cases: Sequence[Case],
    inputs: Sequence[Path],
    asked: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """What the engines' processes print, as they do."""
    for engine in engines:
        weights: list[Any] = [case.model for case in cases]
        command = [sys.executable, "-m", "paliflow.benchmarks.finetune_vs_transformers", "--one"]
        if engine == "torch":
            command = [torch, str(Path(__file__).parent / "finetune_vs_transformers_torch.py")]
            weights = [
                config_json(VARIANTS[each], jnp.bfloat16) if each in VARIANTS else each
                for each in weights
            ]
        told = [
            {"weights": each, "inputs": str(path), "batch": c.batch, "lora_rank": c.lora_rank}
            for each, path, c in zip(weights, inputs, cases, strict=True)
        ]
        said = json.dumps(asked | {"engine": engine, "cases": told})
        env = {**os.environ, "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}  # torch has all of it
        with subprocess.Popen([*command, said], stdout=subprocess.PIPE, env=env) as process:
            assert process.stdout
            for line in process.stdout:
                result: dict[str, Any] = json.loads(line)
                yield result
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")


def _write_inputs(folder: Path, case: Case, text: int, suffix: int) -> Path:
    """Random images and texts, in a file that both engines read."""
    config = _config(case.model)
    size, rng = config.image_size, np.random.default_rng(0)
    path = folder / f"{size}-{case.batch}.npz"
    ids = rng.integers(5, min(config.text.vocab_size, 200_000), (case.batch, text))
    images = rng.integers(0, 256, (case.batch, size, size, 3), np.uint8)
    np.savez(path, images=images, text=ids.astype(np.int32), suffix=suffix)
    return path


def _config(model: str) -> PaliGemmaConfig:
    if model in VARIANTS:
        return VARIANTS[model]
    leaves, described = read_checkpoint(Path(model))
    return infer_config({path: leaf.shape for path, leaf in leaves.items()}, **described)


def _recipe(case: Case, remat: bool = False, dtype: str = "bfloat16") -> Recipe:
    return Recipe(1000, lora_rank=case.lora_rank, remat=remat, dtype=dtype)


def _time_jax(asked: dict[str, Any]) -> None:
    """Prints what each case takes, a line of JSON each; all are compiled before, side by side."""
    mesh = global_mesh()
    backend = ANY if asked["engine"] == "jax:plain" else training_backend(mesh)
    cases = [Case(each["weights"], each["batch"], each["lora_rank"]) for each in asked["cases"]]
    batches = [_batch(Path(each["inputs"])) for each in asked["cases"]]
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", float("inf"))

    def compiled(case: Case, batch: Batch) -> tuple[Trainer, Any, int, bool]:
        """The program, its bytes, and whether it computes layers again."""
        for remat in (False, True):
            recipe = _recipe(case, remat, asked["dtype"])
            trainer = Trainer(_config(case.model), recipe, mesh, backend)
            step = trainer.step.lower(*trainer.abstract, global_batch(batch, mesh)).compile()
            memory: Any = step.memory_analysis()
            peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes
            if peak < limit:
                break
        return trainer, step, peak, remat

    with ThreadPoolExecutor() as pool:
        programs = list(pool.map(compiled, cases, batches))
    device = mesh.devices.flat[0].device_kind
    known = {"engine": asked["engine"], "library": f"jax {jax.__version__}", "device": device}
    for number, (trainer, step, peak, remat) in enumerate(programs):
        state, frozen = trainer.init(_params(cases[number].model))
        batch, steps = global_batch(batches[number], mesh), []
        for _ in range(1 + asked["steps"]):
            started = time.perf_counter()
            state, metrics = step(state, frozen, batch)
            steps.append((float(metrics["loss"]), time.perf_counter() - started))
        (loss, _), *others = steps
        result = {"case": number, "loss": loss, "step_s": min(each for _, each in others)}
        print(json.dumps(known | result | {"peak_bytes": peak, "remat": remat}), flush=True)
        del state, frozen, metrics


def _batch(inputs: Path) -> Batch:
    data = np.load(inputs)
    text = data["text"]
    suffix = np.zeros_like(text)
    suffix[:, -int(data["suffix"]) :] = 1
    return Batch(data["images"], text, suffix, suffix)


def _params(model: str) -> Mapping[str, Any]:
    """Weights of a folder, or random ones, by path."""
    if model not in VARIANTS:
        leaves, _ = read_checkpoint(Path(model))
        return {path: leaf.read(np.dtype(np.float32)) for path, leaf in leaves.items()}
    some = np.random.default_rng(0).normal(scale=0.02, size=999_983).astype(np.float32)
    shapes = expected_shapes(VARIANTS[model])
    return {path: np.resize(some, shape) for path, shape in shapes.items()}


if __name__ == "__main__":
    typer.run(main)
