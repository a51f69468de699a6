"""The size of the frames in an AVIF, which its header (`ispe`) need not tell truly.

Only as much is parsed as leads to the AV1 sequence headers (ISO/IEC 14496-12, AV1 5.5).
"""

from collections.abc import Iterator

_SEQUENCE_HEADER, _TEMPORAL_DELIMITER, _PADDING = 1, 2, 15


def coded_pixels(data: bytes) -> int:
    """Pixels of the largest frame of any item, by its sequence header; 0 where none is found."""
    sizes = [_frame_pixels(data[offset : offset + 256]) for offset in _item_offsets(data)]
    return max(sizes, default=0)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, first and last byte of each box's content."""
    while start + 8 <= end:
        size, kind, content = (
            int.from_bytes(data[start : start + 4]),
            data[start + 4 : start + 8],
            8,
        )
        if size == 1:
            size, content = int.from_bytes(data[start + 8 : start + 16]), 16
        stop = end if size == 0 else min(end, start + size)
        if stop < start + content:
            return
        yield kind, start + content, stop
        start = stop


def _item_offsets(data: bytes) -> Iterator[int]:
    """Where the items begin in the file, and where the samples of a sequence do."""
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"mdat":
            yield start
        if kind == b"meta":
            for inner, first, last in _boxes(data, start + 4, end):
                if inner == b"iloc":
                    yield from _locations(data[first:last])


def _locations(iloc: bytes) -> Iterator[int]:
    """The first extent of each item of an `iloc` box whose items lie in the file."""
    version, at = iloc[0], 6
    offset_size, length_size = iloc[4] >> 4, iloc[4] & 15
    base_size, index_size = iloc[5] >> 4, iloc[5] & 15 if version else 0
    wide = 4 if version == 2 else 2

    def take(size: int) -> int:
        nonlocal at
        at += size
        if at > len(iloc):
            raise EOFError
        return int.from_bytes(iloc[at - size : at])

    try:
        for _ in range(take(wide)):
            take(wide + (2 if version else 0) + 2)
            base = take(base_size)
            for extent in range(take(2)):
                take(index_size)
                offset = base + take(offset_size)
                take(length_size)
                if not extent:
                    yield offset
    except EOFError:
        return


def _frame_pixels(item: bytes) -> int:
    """By the sequence header that an item of AV1 begins with; 0 if it does not."""
    at = 0
    while at + 2 <= len(item):
        kind, extended, sized = item[at] >> 3 & 15, item[at] >> 2 & 1, item[at] >> 1 & 1
        at += 1 + extended
        size = shift = 0
        while sized and at < len(item):
            byte = item[at]
            size, shift, at = size | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128 or shift > 56:
                break
        if kind == _SEQUENCE_HEADER:
            return _sequence_pixels(_Bits(item[at:]))
        if kind not in (_TEMPORAL_DELIMITER, _PADDING) or not sized:
            return 0
        at += size
    return 0


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data), 8 * len(data)

    def __call__(self, count: int) -> int:
        self._left = max(0, self._left - count)
        return self._value >> self._left & (1 << count) - 1

    def uvlc(self) -> int:
        zeros = 0
        while zeros < 32 and self._left and not self(1):
            zeros += 1
        return self(zeros) + (1 << zeros) - 1 if zeros < 32 else 2**32 - 1


def _sequence_pixels(bits: _Bits) -> int:
    """`max_frame_width` times `max_frame_height`."""
    bits(3)  # profile
    bits(1)  # still picture
    if bits(1):  # reduced header
        bits(5)
    else:
        delays = decoder_model = 0
        if bits(1):  # timing
            bits(64)
            if bits(1):
                bits.uvlc()
            if decoder_model := bits(1):
                delays = bits(5) + 1
                bits(32 + 5 + 5)
        initial_delay = bits(1)
        for _ in range(bits(5) + 1):
            bits(12)
            if bits(5) > 7:
                bits(1)
            if decoder_model and bits(1):
                bits(2 * delays + 1)
            if initial_delay and bits(1):
                bits(4)
    width_bits, height_bits = bits(4) + 1, bits(4) + 1
    return (bits(width_bits) + 1) * (bits(height_bits) + 1)
