"""An index of hashes that finds near ones exactly, by bands: 10^7 of them, in bounded memory."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paliflow.jobs.safety.hashing import distances

MAX_DISTANCE = 31
_BANDS = 16
_BITS = 16
_MASKS = np.array([0, *(1 << bit for bit in range(_BITS))], np.uint16)
_AT_ONCE = 2**20
"""Candidates compared at once: 32 MB of hashes."""
_QUERIES = 1024


class Near(NamedTuple):
    """The nearest hash of an index to each that was asked for."""

    place: NDArray[np.int64]
    """Of the hash, in the order in which they were added; -1 where none is near."""
    distance: NDArray[np.int64]
    """Bits; 256 where none is near."""


class _Level:
    """Hashes sorted by each of 16 bands of 16 bits.

    Two hashes that differ in at most 31 bits differ in at most one bit of some band (16 bands with
    two each are 32), so that whoever looks up a band and its 16 neighbours misses none.
    """

    def __init__(self, words: NDArray[np.uint64], first: int) -> None:
        self.words, self.first = words, first
        bands = words.view(np.uint16).reshape(-1, _BANDS)
        self._columns = words.T.copy()  # one word of all is read faster than all of one
        self._order = np.argsort(bands, axis=0, kind="stable").astype(np.int32).T.ravel()
        counts = [np.bincount(bands[:, band], minlength=2**_BITS) for band in range(_BANDS)]
        self._starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])

    def search(self, queries: NDArray[np.uint64], limit: int, best: Near) -> None:
        """Improves `best` by what is near in this level."""
        keys = queries.view(np.uint16).reshape(-1, _BANDS)[:, :, None] ^ _MASKS
        buckets = (keys + (np.arange(_BANDS) << _BITS)[:, None]).reshape(len(queries), -1)
        starts = self._starts.take(buckets)
        sizes = self._starts.take(buckets + 1) - starts
        totals = np.cumsum(sizes.sum(1))
        begin = 0
        while begin < len(queries):  # as many queries as have few enough candidates
            done = totals[begin - 1] if begin else 0
            end = max(begin + 1, int(np.searchsorted(totals, done + _AT_ONCE, "right")))
            part = slice(begin, end)
            own = Near(best.place[part], best.distance[part])
            self._compare(queries[part], starts[part], sizes[part], limit, own)
            begin = end

    def _compare(
        self,
        queries: NDArray[np.uint64],
        starts: NDArray[np.int64],
        sizes: NDArray[np.int64],
        limit: int,
        best: Near,
    ) -> None:
        owner = np.repeat(np.arange(len(queries), dtype=np.int32), sizes.sum(1))
        flat = sizes.ravel()
        places = np.repeat(starts.ravel() - (np.cumsum(flat) - flat), flat)
        places += np.arange(len(places))
        places = self._order.take(places)
        apart = np.zeros(len(places), np.int64)
        for column, word in zip(self._columns, queries.T, strict=True):
            apart += np.bitwise_count(column.take(places) ^ word.take(owner))
            if not (near := apart <= limit).all():
                owner, places, apart = owner[near], places[near], apart[near]
        # The nearest first, and of those that are equally near the one that was added first.
        order = np.lexsort((places, apart, owner))
        owners, first = np.unique(owner[order], return_index=True)
        found, apart = places[order][first] + self.first, apart[order][first]
        better = apart < best.distance[owners]
        best.place[owners[better]] = found[better]
        best.distance[owners[better]] = apart[better]


class NearIndex:
    """Hashes to which others are compared; it may grow between two searches."""

    def __init__(self) -> None:
        self._levels: list[_Level] = []

    def __len__(self) -> int:
        return sum(len(level.words) for level in self._levels)

    def add(self, words: NDArray[np.uint64]) -> None:
        """Adds hashes, uint64 [count, 4]; their places follow those of the ones before."""
        if not len(words):
            return
        first = len(self)
        # Levels of doubling size: each hash is sorted again a few times only.
        while self._levels and len(self._levels[-1].words) <= 2 * len(words):
            level = self._levels.pop()
            words, first = np.concatenate([level.words, words]), level.first
        self._levels.append(_Level(np.ascontiguousarray(words), first))

    def nearest(self, words: NDArray[np.uint64], limit: int = MAX_DISTANCE) -> Near:
        """Finds for each hash the nearest that differs in at most `limit` bits.

        Of equally near ones it is the one that was added first.

        Args:
            words: uint64 [count, 4].
            limit: at most 31; beyond that some would be missed.

        Raises:
            ValueError: the limit is larger.
        """
        if not 0 <= limit <= MAX_DISTANCE:
            raise ValueError(f"limit={limit}: near hashes differ in 0 to {MAX_DISTANCE} bits")
        near = Near(np.full(len(words), -1), np.full(len(words), 256))
        words = np.ascontiguousarray(words)
        for start in range(0, len(words), _QUERIES):
            part = slice(start, start + _QUERIES)
            best = Near(near.place[part], near.distance[part])  # views
            for level in self._levels:
                level.search(words[part], limit, best)
        return near


def duplicates(words: NDArray[np.uint64], limit: int = MAX_DISTANCE) -> Near:
    """Finds for each hash the nearest one before it that is itself no duplicate.

    Args:
        words: uint64 [count, 4], in the order in which who comes first stays.
        limit: bits in which two may differ, at most 31.

    Returns:
        For each hash the place of the one that it repeats, or -1.
    """
    index, known = NearIndex(), np.empty(len(words), np.int64)
    found = Near(np.full(len(words), -1), np.full(len(words), 256))
    for start in range(0, len(words), _QUERIES):
        block = words[start : start + _QUERIES]
        before = index.nearest(block, limit)
        within = distances(block[:, None], block[None])
        originals: list[int] = []
        for number in range(len(block)):
            place, distance = int(before.place[number]), int(before.distance[number])
            repeated = int(known[place]) if place >= 0 else -1
            if originals:
                apart = within[number, originals]
                least = int(apart.argmin())
                if apart[least] <= limit and apart[least] < distance:
                    repeated, distance = start + originals[least], int(apart[least])
            if repeated < 0:
                originals.append(number)
            else:
                found.place[start + number], found.distance[start + number] = repeated, distance
        known[len(index) : len(index) + len(originals)] = np.array(originals, np.int64) + start
        index.add(block[originals])
    return found
