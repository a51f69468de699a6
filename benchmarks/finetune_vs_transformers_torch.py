"""The other side of `finetune_vs_transformers`, in a Python that has torch, transformers and peft.

What is fastest: everything in bfloat16, moments included, Adam in one kernel, attention by torch's
own kernels, logits of the suffix alone, and layers computed again only where memory is short.
"""

import gc
import json
import sys
import time
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MATRICES = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"


def main(asked: dict[str, Any]) -> None:
    """Prints what each case takes, a line of JSON each.

    Args:
        asked: `dtype`; `steps`, of which the shortest counts, after one that does not; and `cases`,
            each of `weights` (a folder, or a configuration whose weights are then random),
            `inputs`, and `lora_rank`, or null for training all weights.
    """
    dtype = getattr(torch, asked["dtype"])
    library = f"transformers {transformers.__version__}, torch {torch.__version__}"
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    for number, case in enumerate(asked["cases"]):
        for remat in (False, True):
            gc.collect()
            if DEVICE == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            try:
                result = _timed(case, dtype, remat, asked["steps"])
            except torch.OutOfMemoryError:
                continue  # its traceback holds the tensors until here
            known = {"engine": "torch", "case": number, "library": library, "device": device}
            print(json.dumps(known | result | {"remat": remat}), flush=True)
            break
        else:
            print(f"torch has not the memory for case {number}", file=sys.stderr)


def _timed(case: dict[str, Any], dtype: torch.dtype, remat: bool, steps: int) -> dict[str, Any]:
    """Seconds of a step, the first step's loss, and the peak of memory."""
    model = _model(case["weights"], dtype)
    if case["lora_rank"]:
        from peft import LoraConfig, get_peft_model

        rank = case["lora_rank"]
        adapters = LoraConfig(r=rank, lora_alpha=rank, target_modules=MATRICES)
        model = get_peft_model(model, adapters, autocast_adapter_dtype=False)
    if remat:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-5, fused=True)
    data = np.load(case["inputs"])
    images = torch.from_numpy(data["images"]).permute(0, 3, 1, 2).to(DEVICE)
    text = torch.from_numpy(data["text"]).long()
    suffix, patches = int(data["suffix"]), model.config.text_config.num_image_tokens
    image_ids = torch.full((len(text), patches), model.config.image_token_id)
    ids = torch.cat([image_ids, text], dim=1).to(DEVICE)
    kinds = torch.zeros_like(ids)
    kinds[:, -suffix:] = 1
    targets = ids[:, -suffix:]

    def step() -> float:
        logits = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            token_type_ids=kinds,
            pixel_values=images.to(dtype) / 127.5 - 1,
            logits_to_keep=suffix + 1,
            use_cache=False,
        ).logits[:, :-1]
        loss = cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    first = step()
    seconds = []
    for _ in range(steps):
        started = _synchronised()
        step()
        seconds.append(_synchronised() - started)
    peak = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else None
    return {"loss": first, "step_s": min(seconds), "peak_bytes": peak}


def _synchronised() -> float:
    """The clock, when everything that was asked of the device is done."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _model(weights: str | dict[str, Any], dtype: torch.dtype) -> Any:
    if isinstance(weights, str):
        loaded = PaliGemmaForConditionalGeneration.from_pretrained(weights, dtype=dtype)
        return loaded.to(DEVICE)
    torch.set_default_dtype(dtype)
    with torch.device(DEVICE):
        model = PaliGemmaForConditionalGeneration(PaliGemmaConfig.from_dict(weights))
    torch.set_default_dtype(torch.float32)
    return model


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
