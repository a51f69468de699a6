"""Places: an output where no folder can be is refused by every job before it begins."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from paliflow.configs import AnnotateSpec, EvaluateSpec, ExtractSpec, FilterSpec, FineTuneSpec
from paliflow.configs.base import SpecError
from paliflow.jobs.annotate.job import annotate
from paliflow.jobs.evaluate.job import evaluate
from paliflow.jobs.extract.job import extract
from paliflow.jobs.finetune.job import finetune
from paliflow.jobs.safety.job import filter

_SOURCE = {"path": "/in.jsonl"}


@pytest.mark.parametrize(
    ("job", "kind", "fields"),
    [
        (annotate, AnnotateSpec, {"input": "in", "prompts": ["ocr"]}),
        (extract, ExtractSpec, {"input": "in", "video": {"fps": 1}}),
        (filter, FilterSpec, {"input": "in", "filters": ["quality"]}),
        (evaluate, EvaluateSpec, {"sets": {"a": _SOURCE}}),
        (finetune, FineTuneSpec, {"train": [_SOURCE]}),
    ],
)
def test_an_output_under_a_file_is_refused_with_its_name(
    job: Any, kind: Any, fields: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    spec = kind.parse(fields | {"output": str(tmp_path / "file" / "out"), "run_id": "r"})
    with pytest.raises(SpecError, match=r"^output='.*/file/out': no folder can be made there"):
        job(spec, Console())
