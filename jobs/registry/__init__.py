"""The registry: named models with versions and aliases, and the files of a checkpoint.

Others use `aliases` (the registry itself) and `checkpoints` (weights and tokenizer as local files).
"""
