"""What a process and its decoder say to each other: JSON over a socket, bulk in shared memory.

No pickles: a decoder that a file took over can send nothing that runs code in who reads it.
"""

import os
import socket
import struct
import sys
import tempfile
import time
from typing import Any

_LENGTH = struct.Struct("!I")
LONGEST = 2**20
"""Bytes of a message from a decoder."""
_KEPT = 2**24
"""Bytes of shared memory that stay between two inputs."""


class Channel:
    """One end: a socket, and a file without a name in memory that both ends have open.

    The memory is read and written as a file, never mapped: whoever shortens it harms nobody.
    """

    def __init__(self, end: socket.socket, memory: int, longest: int = LONGEST) -> None:
        self._socket, self.memory, self._longest = end, memory, longest
        self._received = bytearray()

    def send(self, message: bytes, *bulk: Any) -> None:
        """Sends JSON, once the bulk (bytes, arrays) lies in the memory, one after the other.

        Raises:
            OSError: nobody is there, or nobody takes it.
        """
        offset = 0
        for each in bulk:
            view = memoryview(each).cast("B")
            while view:
                written = os.pwrite(self.memory, view, offset)
                offset, view = offset + written, view[written:]
        self._socket.settimeout(_SEND_S)
        self._socket.sendall(_LENGTH.pack(len(message)) + message)

    def receive(self, seconds: float | None = None) -> bytes | None:
        """The next message; None if none has come within so many seconds.

        Raises:
            EOFError: the other end is gone.
            OSError: likewise.
            ValueError: it is too long.
        """
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            if len(self._received) >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._received)
                if length > self._longest:
                    raise ValueError(f"a message of {length} bytes")
                end = _LENGTH.size + length
                if len(self._received) >= end:
                    message = bytes(self._received[_LENGTH.size : end])
                    del self._received[:end]
                    return message
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return None
            self._socket.settimeout(left)
            try:
                piece = self._socket.recv(2**16)
            except TimeoutError:
                return None
            if not piece:
                raise EOFError
            self._received += piece

    def take(self, size: int, offset: int = 0) -> bytes:
        """Bulk as bytes.

        Raises:
            ValueError: there is less.
        """
        pieces = []
        while size and (piece := os.pread(self.memory, size, offset)):
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        if size:
            raise ValueError("bulk that is not there")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def trim(self) -> None:
        """Gives memory back after something large."""
        if os.fstat(self.memory).st_size > _KEPT:
            os.ftruncate(self.memory, 0)

    def close(self) -> None:
        """Closes this end."""
        self._socket.close()
        os.close(self.memory)


def shared_memory() -> int:
    """A descriptor of a file in memory or, where there is no such thing, without a name."""
    if sys.platform == "linux":
        return os.memfd_create("paliflow")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


_SEND_S = 10.0
"""Seconds after which who takes no message is taken for dead."""
