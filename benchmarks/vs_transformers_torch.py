"""The other side of `vs_transformers`, in a Python that has torch and transformers alone."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PaliGemmaForConditionalGeneration, StoppingCriteriaList


def main(asked: dict[str, Any]) -> dict[str, float]:
    """Times prefill and generation of one batch; see `vs_transformers.Asked`."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, asked["dtype"])

    def synchronised() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    x = torch.ones(asked["matmul"], asked["matmul"], dtype=dtype, device=device)
    torch.matmul(x, x)
    started = synchronised()
    torch.matmul(x, x)
    matmul = 2 * asked["matmul"] ** 3 / (synchronised() - started)
    del x

    model = PaliGemmaForConditionalGeneration.from_pretrained(asked["weights"], dtype=dtype)
    model = model.to(device).eval()
    data = np.load(asked["inputs"])
    images = torch.from_numpy(data["images"]).permute(0, 3, 1, 2).to(device, dtype)
    prompt = torch.from_numpy(data["prompt"]).long()
    patches = model.config.text_config.num_image_tokens
    image_ids = torch.full((len(prompt), patches), model.config.image_token_id)
    ids = torch.cat([image_ids, prompt], dim=1).to(device)

    def generate(count: int) -> tuple[float, float]:
        """Seconds to the first token, and to the last."""
        started, times = synchronised(), []

        def told(*_: Any) -> torch.Tensor:
            times.append(synchronised() - started)
            return torch.zeros(len(ids), dtype=torch.bool, device=device)

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
        return times[0], synchronised() - started

    if asked["warm"]:
        generate(2)
    first, last = generate(asked["new_tokens"])
    # Not `ru_maxrss`, which starts at what the parent had in memory.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    return {"prefill_s": first, "total_s": last, "peak_bytes": peak, "matmul": matmul}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
