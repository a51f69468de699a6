"""The GPU's table: what processes measured becomes seconds, rates and ratios."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paliflow.benchmarks import gpu_check
from paliflow.model import VARIANTS
from paliflow.model.cost import Shape, work

_SAYS = """
import json, sys
asked = json.loads(sys.argv[1])
for engine in asked["engines"]:
    for case in range(len(asked["cases"])):
        seconds = 2.0 if engine == "int8" else 4.0
        print(json.dumps({"engine": engine, "case": case, "prefill_s": seconds / 2,
            "total_s": seconds, "matmul": 1e15, "library": "some 1.0"}), flush=True)
"""


def test_table_has_a_row_for_each_engine_and_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def results(
        command: list[str], engines: list[str], weights: list[Any], inputs: list[Path]
    ) -> Iterator[dict[str, Any]]:
        return actual([sys.executable, "-c", _SAYS], engines, weights, inputs)

    actual = gpu_check._results
    monkeypatch.setattr(gpu_check, "_results", results)
    monkeypatch.setattr(gpu_check, "write_inputs", lambda *_: Path("none.npz"))
    cases = [gpu_check.Case(224, 64), gpu_check.Case(896, 8)]
    engines = ["torch:bfloat16", "jax:int8"]
    _, _, *rows, libraries = gpu_check._inference(engines, "-", "paligemma-3b", cases, Path())
    each = work(VARIANTS["paligemma-3b-224"], Shape("bfloat16", 8, 20))
    share = 64 * (each.vision.flops + each.prefill.flops) / 1e15 / 2.0
    assert rows == [
        f"| torch:bfloat16 | 224 | 64 | 2.000 | 0.1053 | 16 | {share:.0%} | 1.00 |",
        "| torch:bfloat16 | 896 | 8 | 2.000 | 0.1053 | 2 | 9% | 1.00 |",
        f"| jax:int8 | 224 | 64 | 1.000 | 0.0526 | 32 | {2 * share:.0%} | 2.00 |",
        "| jax:int8 | 896 | 8 | 1.000 | 0.0526 | 4 | 19% | 2.00 |",
    ]
    assert libraries.endswith("some 1.0.")


def test_table_is_not_printed_as_whole_if_an_engine_fails() -> None:
    command = [sys.executable, "-c", "import sys; sys.exit(3)"]
    with pytest.raises(SystemExit, match="ended with 3"):
        list(gpu_check._results(command, ["jax:int8"], [], []))
    assert not list(gpu_check._results(command, [], [], []))


def test_a_machine_without_a_gpu_is_told_so_before_anything_is_made() -> None:
    with pytest.raises(SystemExit, match="JAX finds no GPU here"):
        gpu_check.main()
