"""Annotation: inputs and prompts in, rows of answers out. Others use `job.annotate`."""
