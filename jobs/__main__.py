"""Runs the spec in the environment variable PALIFLOW_SPEC; what a Ray job's entry point calls."""

import os
import sys
from importlib import import_module

from rich.console import Console

from paliflow.configs import AnnotateSpec, EvaluateSpec, ExtractSpec, FineTuneSpec, PromoteSpec
from paliflow.configs.base import Spec, SpecError
from paliflow.configs.summary import SPEC_VARIABLE, SUMMARY_PREFIX
from paliflow.jobs.cli import user_errors

JOBS: dict[str, tuple[type[Spec], str]] = {
    "annotate": (AnnotateSpec, "run"),
    "evaluate": (EvaluateSpec, "evaluate"),
    "extract": (ExtractSpec, "extract"),
    "finetune": (FineTuneSpec, "finetune"),
    "promote": (PromoteSpec, "promote"),
}
"""Each job's spec, and the module of the function of its name."""


def main() -> None:
    """`python -m paliflow.jobs JOB`: progress, then the summary as the last line.

    Exit codes are the command line's.
    """
    with user_errors():
        _, *jobs = sys.argv
        if len(jobs) != 1 or jobs[0] not in JOBS:
            raise SpecError(f"python -m paliflow.jobs takes one of: {', '.join(JOBS)}")
        if SPEC_VARIABLE not in os.environ:
            raise SpecError(f"set the environment variable {SPEC_VARIABLE} to a spec's JSON")
        (job,) = jobs
        kind, module = JOBS[job]
        spec = kind.parse(os.environ[SPEC_VARIABLE])
        # Imported here, because a bad spec need not wait for JAX and Ray.
        run = getattr(import_module(f"paliflow.jobs.{module}"), job)
        summary = run(spec, Console(force_terminal=False))
    print(SUMMARY_PREFIX + summary.model_dump_json(), flush=True)


if __name__ == "__main__":
    main()
