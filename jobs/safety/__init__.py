"""Safety: filters of images and texts, and the run that applies them to a dataset.

A filter scores batches (`protocol`). Others check images and texts through `checking`, and compare
images through `hashing` and `near`. `job.filter_dataset` is the run.
"""
