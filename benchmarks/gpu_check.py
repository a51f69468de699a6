"""What one GPU does, beside transformers on the same card: tables in Markdown.

    make gpu-check
    python -m paliflow.benchmarks.gpu_check --torch PYTHON --output gpu.md
    python -m paliflow.benchmarks.gpu_check --engine jax:bfloat16 --engine jax:bfloat16:plain

Random full-size weights, made on the device; 8 prompt tokens, 20 new ones, which all rows generate;
everything has run before it is timed, and the best of three counts. Each library has a process of
its own. `jax` is Paliflow, which needs JAX and no Ray or Airflow, and `plain` Paliflow as on a card
that nothing was measured on (`model/xla.py`); `torch` is transformers, in a Python that has both.
`of products` is the arithmetic of vision tower and prefill over their time, against the rate of a
product of 8,192 x 8,192 of that dtype in that process; `ratio` is of images/s, to the first engine.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, groupby, product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import typer
from jax.sharding import Mesh
from jax.typing import DTypeLike

from paliflow.benchmarks.vs_transformers import PROMPT_TOKENS, Compiled, matmul_rate, write_inputs
from paliflow.model import VARIANTS, PaliGemma, PaliGemmaConfig
from paliflow.model.cost import Shape, work
from paliflow.model.huggingface import config_json
from paliflow.model.sharding import local_mesh
from paliflow.model.weights import Leaf, expected_shapes, load_params
from paliflow.model.xla import ANY, backend_of_mesh

NEW_TOKENS, ROUNDS, SIDE = 20, 3, 8192
ENGINES = ("torch:bfloat16", "jax:bfloat16", "jax:float8_e4m3fn", "jax:int8")
_HAS_BOTH = """
import sys
from importlib.util import find_spec
sys.exit(not (find_spec("torch") and find_spec("transformers")))
"""
_SEES_A_GPU = "import sys, jax; sys.exit(jax.default_backend() != 'gpu')"
_COMPILING = 8
"""Batches at a time."""


class Case(NamedTuple):
    """A batch of a model at one resolution."""

    pixels: int
    batch: int


CASES = (Case(224, 64), Case(224, 256), Case(448, 32), Case(896, 8))


def main(
    torch: Annotated[str, typer.Option(help="A Python with torch and transformers.")] = (
        sys.executable
    ),
    model: Annotated[str, typer.Option(help="A published family.")] = "paligemma-3b",
    case: Annotated[
        list[str] | None, typer.Option(help="Only PIXELSxBATCH, e.g. 224x64. Repeatable.")
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option(help=f"Default: {', '.join(ENGINES)}. Repeatable.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="A file for the tables as well.")] = None,
    one: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Prints the table of inference."""
    if one:
        _time_jax(json.loads(one))
        return
    # In a process of its own: one that has seen the GPU holds most of its memory.
    if subprocess.run([sys.executable, "-c", _SEES_A_GPU], check=False).returncode:
        raise SystemExit(
            "JAX finds no GPU here, which this measures: see `nvidia-smi` and jax[cuda13]"
        )
    engines = list(engine or ENGINES)
    if subprocess.run([torch, "-c", _HAS_BOTH], check=False).returncode:
        print(f"{torch} lacks torch or transformers: nothing to compare with", file=sys.stderr)
        engines = [each for each in engines if not each.startswith("torch:")]
    cases = [Case(*map(int, each.split("x"))) for each in case or ()] or list(CASES)
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for line in _inference(engines, torch, model, cases, Path(folder)):
            print(line, flush=True)
            lines.append(line)
            if output:  # as they come: who has little time has those that were measured
                output.write_text("\n".join(lines) + "\n")


def _inference(
    engines: Sequence[str], torch: str, model: str, cases: list[Case], folder: Path
) -> Iterator[str]:
    """The lines of the table of inference, as they are measured."""
    yield f"| {model} | pixels | batch | prefill s | s a step | images/s | of products | ratio |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    names = [f"{model}-{case.pixels}" for case in cases]
    inputs = [write_inputs(folder, name, c.batch) for name, c in zip(names, cases, strict=True)]
    base: dict[int, float] = {}
    libraries = set()
    for result in chain(
        _results(
            [torch, str(Path(__file__).parent / "vs_transformers_torch.py")],
            [each for each in engines if each.startswith("torch:")],
            [config_json(VARIANTS[name], jnp.bfloat16) for name in names],
            inputs,
        ),
        _results(
            [sys.executable, "-m", "paliflow.benchmarks.gpu_check", "--one"],
            [each for each in engines if each.startswith("jax:")],
            names,
            inputs,
        ),
    ):
        case, name = cases[result["case"]], names[result["case"]]
        libraries.add(result["library"])
        does = work(VARIANTS[name], Shape("bfloat16", PROMPT_TOKENS, NEW_TOKENS))
        flops = case.batch * (does.vision.flops + does.prefill.flops)
        reached = flops / result["prefill_s"] / result["matmul"]
        speed = case.batch / result["total_s"]
        step = (result["total_s"] - result["prefill_s"]) / (NEW_TOKENS - 1)
        yield (
            f"| {result['engine']} | {case.pixels} | {case.batch} | {result['prefill_s']:.3f} "
            f"| {step:.4f} | {speed:.3g} | {reached:.0%} "
            f"| {speed / base.setdefault(result['case'], speed):.2f} |"
        )
    yield f"\n{'; '.join(sorted(libraries))}."


def _results(
    command: list[str], engines: list[str], weights: list[Any], inputs: list[Path]
) -> Iterator[dict[str, Any]]:
    """What a process prints, as it does; none if it is asked for no engine."""
    if not engines:
        return
    asked = {
        "engines": [each.partition(":")[2] for each in engines],
        "cases": [
            {"weights": each, "inputs": str(path)}
            for each, path in zip(weights, inputs, strict=True)
        ],
        **{"new_tokens": NEW_TOKENS, "rounds": ROUNDS, "matmul": SIDE, "warm": True},
    }
    with subprocess.Popen([*command, json.dumps(asked)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        library = engines[0].partition(":")[0]
        for said in process.stdout:
            result: dict[str, Any] = json.loads(said)
            yield result | {"engine": f"{library}:{result['engine']}"}
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")


def _time_jax(asked: dict[str, Any]) -> None:
    """Prints what each case takes, a line of JSON each; those of a dtype are compiled at once."""
    mesh = local_mesh()
    library = f"{mesh.devices.flat[0].device_kind}, jax {jax.__version__}"
    for dtype, engines in groupby(asked["engines"], key=lambda each: each.partition(":")[0]):
        rate = matmul_rate(dtype, asked["matmul"])
        params = random_params(VARIANTS[asked["cases"][0]["weights"]], dtype, mesh)

        def compiled(
            engine: str, case: dict[str, str], params: dict[str, Any] = params
        ) -> Compiled:
            # Nothing but the position embedding depends on the resolution.
            config = VARIANTS[case["weights"]]
            position = _random((1, config.vision.num_patches, config.vision.width), jnp.bfloat16)
            params = params | {"img": params["img"] | {"pos_embedding": position}}
            backend = ANY if engine.endswith(":plain") else backend_of_mesh(mesh)
            model = PaliGemma(config, params, mesh, backend)
            return Compiled(model, Path(case["inputs"]), asked["new_tokens"])

        pairs = list(product(engines, enumerate(asked["cases"])))
        with ThreadPoolExecutor(_COMPILING) as pool:
            programs = list(pool.map(lambda each: compiled(each[0], each[1][1]), pairs))
        for (engine, (case, _)), answer in zip(pairs, programs, strict=True):
            answer()  # and again, to be timed
            rounds = [answer() for _ in range(asked["rounds"])]
            prefill, total = (min(seconds) for seconds in zip(*rounds, strict=True))
            result = {"prefill_s": prefill, "total_s": total, "matmul": rate, "library": library}
            print(json.dumps(result | {"engine": engine, "case": case}), flush=True)
        del params, programs


def random_params(config: PaliGemmaConfig, dtype: DTypeLike, mesh: Mesh) -> dict[str, Any]:
    """Random weights as `load_params` lays them, made on the device."""
    leaves = {
        path: Leaf(shape, partial(_random, shape))  # type: ignore[arg-type]
        for path, shape in expected_shapes(config).items()
    }
    return load_params(leaves, config, dtype, mesh)


def _random(shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    return (0.02 * jax.random.normal(jax.random.key(0), shape)).astype(dtype)


if __name__ == "__main__":
    typer.run(main)
