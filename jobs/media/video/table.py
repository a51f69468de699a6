"""What a container says of a video's frames before one is read: its table, or an AVI's index."""

from bisect import bisect_left
from typing import Any, NamedTuple

_TABLED = "mov,mp4"
"""The demuxer that knows where every frame lies before it reads one."""
_CHUNK_HEADER = 8
REORDERED = 16
"""Frames that may be coded after a keyframe and presented before it."""


class Table(NamedTuple):
    """Of every frame in decoding order; empty where the container does not say it."""

    times: list[int]
    """When it is decoded."""
    ends: list[int]
    """The first byte after it."""
    before: list[int]
    """How many frames are presented before it, as far as the order of decoding tells."""
    keys: list[int]
    """Which of the frames are coded by themselves."""
    shown: list[int]
    """Which of them are shown: an edit list may leave out some that others are made from."""
    places: dict[tuple[int, int], int]
    """Each one's number by where it lies and when it is decoded."""

    @property
    def span(self) -> list[int]:
        """When the first and the last frame that are shown would be decoded, were they in order.

        Frames are decoded in another order than shown, but both orders have the same times. Those
        before the middle that are not shown come before all others, the rest after them.
        """
        if not self.shown:
            return []
        middle = (self.shown[0] + self.shown[-1]) // 2
        front = middle + 1 - bisect_left(self.shown, middle + 1)
        return self.times[front : front + len(self.shown)]


def read_table(stream: Any, container_format: str) -> Table:
    """Reads the table of an MP4 or MOV; empty of other containers, of fragments and of edit lists
    that go back and forth."""
    table = Table([], [], [], [], [], {})
    if not container_format.startswith(_TABLED) or stream.start_time is None or not stream.frames:
        return table
    entries = stream.index_entries
    if len(entries) < stream.frames:
        return table
    for number, entry in enumerate(entries):
        if table.times and entry.timestamp < table.times[-1]:
            return Table([], [], [], [], [], {})
        table.times.append(entry.timestamp)
        table.ends.append(entry.pos + entry.size)
        table.before.append(len(table.shown))
        if entry.is_keyframe:
            table.keys.append(number)
        if not entry.is_discard:
            table.shown.append(number)
        table.places[entry.pos, entry.timestamp] = number
    return table


def read_index(stream: Any, container_format: str) -> dict[int, tuple[int, int]]:
    """The number and the time of an AVI's frames by where they lie, if it has an index of all.

    Chunks without bytes, which say that the frame before is shown for longer, are no frames.
    """
    if container_format != "avi":
        return {}
    entries = list(stream.index_entries)
    if not entries or not stream.frames or entries[-1].timestamp + 1 < stream.frames:
        return {}
    frames = [entry for entry in entries if entry.size]
    return {entry.pos + _CHUNK_HEADER: (n, entry.timestamp) for n, entry in enumerate(frames)}
