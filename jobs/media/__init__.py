"""Media: bytes to pixels, in expendable decoder processes, ahead of whoever wants the pixels.

Others use `reader.reader`, which reads a spec's items, `readahead`, and `video`.
"""
