"""A run on storage: its identity, its plan, its parts, its manifest, its compaction.

A run is a folder. Others write one through `plan`, `parts` and `outputs.seal`, read one through
`outputs`, and start one over through `restarting`.
"""
