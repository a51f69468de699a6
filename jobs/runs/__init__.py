"""A run on storage: its identity, its plan, its parts, its manifest, its compaction.

A run is a folder. Others do one through `lifecycle.run_once`, write its `plan` and `parts`, and
read what runs there are through `outputs`.
"""
