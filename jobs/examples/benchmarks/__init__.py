"""Public benchmarks in their official files: where the files are, and their rows as examples.

`configs/benchmarks/<name>.yaml` says of each which files it has and how they are read.
`benchmark_examples` reads one; `readers` holds the forms that are not lists of records.
"""

from paliflow.jobs.examples.benchmarks.reading import benchmark_examples

__all__ = ["benchmark_examples"]
