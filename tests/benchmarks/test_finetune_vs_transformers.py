"""The table of fine-tuning: what two libraries measured, and that they train the same."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from paliflow.benchmarks import finetune_vs_transformers
from paliflow.benchmarks.finetune_vs_transformers import Case
from paliflow.model import VARIANTS
from paliflow.model.flops import train_flops
from paliflow.tests.model.conftest import checkpoint_of


def test_table_has_rates_shares_of_the_peak_and_ratios() -> None:
    cases = [Case("paligemma-3b-224", 16, 16), Case("paligemma-3b-448", 4, None)]
    same = {"device": "NVIDIA H100 80GB HBM3", "library": "some 1.0", "loss": 12.5}
    same |= {"case": 0, "engine": "jax", "remat": False, "peak_bytes": 2**34}
    told: list[dict[str, Any]] = [
        same | {"step_s": 1.0, "engine": "torch", "remat": True},
        same | {"step_s": 0.5},
        same | {"step_s": 0.8, "case": 1, "device": "cpu", "peak_bytes": None},
    ]
    _, *rows, libraries = finetune_vs_transformers._table(iter(told), cases, 128, 16)
    names = ["attn/q_einsum/w", "attn/kv_einsum/w", "attn/attn_vec_einsum/w"]
    names += ["mlp/gating_einsum", "mlp/linear"]
    adapters = [f"llm/layers/{name}_lora_{x}" for name in names for x in "ab"]
    mfu = 16 * train_flops(VARIANTS["paligemma-3b-224"], 128, 16, trained=adapters) / 989e12
    lora = "LoRA, rank 16 | 224 | 16"
    assert rows == [
        f"| torch | {lora} | yes | 1.000 | 16 | {mfu:.0%} | 16.0 | 12.5000 | 1.00 |",
        f"| jax | {lora} | no | 0.500 | 32 | {2 * mfu:.0%} | 16.0 | 12.5000 | 2.00 |",
        "| jax | all | 448 | 4 | no | 0.800 | 5 | - | - | 12.5000 | 1.00 |",
    ]
    assert "NVIDIA H100 80GB HBM3, some 1.0" in libraries


@pytest.mark.slow
def test_both_libraries_begin_with_the_same_loss(tmp_path: Path) -> None:
    """With transformers where `TORCH_PYTHON` is a Python that has torch, transformers and peft."""
    output = tmp_path / "table.md"
    command = [sys.executable, "-m", "paliflow.benchmarks.finetune_vs_transformers"]
    command += ["--weights", str(checkpoint_of("hf_pg1")), "--dtype", "float32"]
    command += ["--torch", os.environ.get("TORCH_PYTHON", sys.executable), "--output", str(output)]
    command += ["--batch", "4", "--text", "12", "--suffix", "5", "--steps", "1"]
    subprocess.run([*command, "--engine", "torch", "--engine", "jax"], check=True, timeout=600)
    lines = [line for line in output.read_text().splitlines()[2:] if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    engines = ["torch", "torch"] if "TORCH_PYTHON" in os.environ else []
    assert [row[0] for row in rows] == [*engines, "jax", "jax"]
    assert [row[1] for row in rows[-2:]] == ["LoRA, rank 16", "all"]
    # Adapters change nothing yet: all begin with the loss of the weights.
    losses = [float(row[9]) for row in rows]
    assert losses == pytest.approx([losses[0]] * len(rows), abs=2e-4)
    assert losses[0] > 1
