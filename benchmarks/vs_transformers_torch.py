"""The other side of `vs_transformers`, in a Python that has torch and transformers alone."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import PaliGemmaForConditionalGeneration, StoppingCriteriaList

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main(asked: dict[str, Any]) -> None:
    """Prints what each case takes, a line of JSON each.

    Args:
        asked: `engines`, the dtypes; `matmul`, the side of a product to time; `new_tokens`; `warm`,
            whether to answer once before; `rounds`, of which the best counts; and `cases`, each of
            `inputs` and `weights`: a folder, or a configuration whose weights are then random.
    """
    library = f"transformers {transformers.__version__}, torch {torch.__version__}"
    for engine in asked["engines"]:
        dtype = getattr(torch, engine)
        known = {"engine": engine, "library": library, "matmul": _rate(dtype, asked["matmul"])}
        for number, case in enumerate(asked["cases"]):
            result = _timed(asked, case["inputs"], _model(case["weights"], dtype), dtype)
            print(json.dumps(known | result | {"case": number}), flush=True)


def _rate(dtype: torch.dtype, side: int) -> float:
    """Operations a second of a large square product of random numbers."""
    x = torch.randn(side, side, dtype=dtype, device=DEVICE)
    products = 10 if DEVICE == "cuda" else 1
    torch.matmul(x, x)
    started = _synchronised()
    for _ in range(products):
        torch.matmul(x, x)
    return products * 2 * side**3 / (_synchronised() - started)


def _timed(asked: dict[str, Any], inputs: str, model: Any, dtype: torch.dtype) -> dict[str, float]:
    """Times prefill and generation of one batch."""
    data = np.load(inputs)
    images = torch.from_numpy(data["images"]).permute(0, 3, 1, 2).to(DEVICE, dtype)
    prompt = torch.from_numpy(data["prompt"]).long()
    patches = model.config.text_config.num_image_tokens
    image_ids = torch.full((len(prompt), patches), model.config.image_token_id)
    ids = torch.cat([image_ids, prompt], dim=1).to(DEVICE)

    def generate(count: int) -> tuple[float, float]:
        """Seconds to the first token, and to the last."""
        started, times = _synchronised(), []

        def told(*_: Any) -> torch.Tensor:
            times.append(_synchronised() - started)
            return torch.zeros(len(ids), dtype=torch.bool, device=DEVICE)

        with torch.inference_mode():
            answers = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                token_type_ids=torch.zeros_like(ids),
                pixel_values=images,
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                stopping_criteria=StoppingCriteriaList([told]),
            )
        assert answers.shape[1] == ids.shape[1] + count
        return times[0], _synchronised() - started

    if asked["warm"]:
        generate(2)
    rounds = [generate(asked["new_tokens"]) for _ in range(asked["rounds"])]
    first, last = (min(seconds) for seconds in zip(*rounds, strict=True))
    # Not `ru_maxrss`, which starts at what the parent had in memory.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    if DEVICE == "cuda":
        peak = torch.cuda.max_memory_allocated()
    return {"prefill_s": first, "total_s": last, "peak_bytes": peak}


def _synchronised() -> float:
    """The clock, when everything that was asked of the device is done."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _model(weights: str | dict[str, Any], dtype: torch.dtype) -> Any:
    if isinstance(weights, str):
        model = PaliGemmaForConditionalGeneration.from_pretrained(weights, dtype=dtype)
        return model.to(DEVICE).eval()
    torch.set_default_dtype(dtype)
    with torch.device(DEVICE):
        model = PaliGemmaForConditionalGeneration(transformers.PaliGemmaConfig.from_dict(weights))
    torch.set_default_dtype(torch.float32)
    return model.eval()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
