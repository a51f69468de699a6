"""The decoder processes: a server that forks them, and what one of them does.

The pool (`decoder_pool`) starts `python -m paliflow.jobs.media.decoder_process FD` with an
environment without secrets. It imports what decoding takes, once, and forks a decoder for each
request that comes over the socket FD. A decoder has no file but its socket and its shared memory,
and can open none: it asks for what it reads.
"""

import contextlib
import ctypes
import errno
import gc
import io
import json
import os
import pkgutil
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import PIL
from PIL import Image

from paliflow.jobs.media.channel import Channel
from paliflow.jobs.media.decoding import TASK
from paliflow.jobs.media.pixels import MAX_BYTES, RangeFile, Result
from paliflow.jobs.runs.item import Item
from paliflow.model import images

_PR_SET_PDEATHSIG = 1
_SIGN_S = 1.0
"""Seconds between two signs of life."""
_ERROR_CHARACTERS = 1000
_MB = 2**20


def main() -> None:
    """Serves until the process that started it is gone; then its decoders go, too."""
    _import_all()
    gc.freeze()  # so that collections in the forks leave shared pages shared
    control = socket.socket(fileno=int(sys.argv[1]))
    decoders: set[int] = set()
    try:
        while True:
            request, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
            if not request:
                return
            message = json.loads(request)
            if descriptors:
                pid = os.fork()
                if not pid:
                    control.close()
                    _decoder(socket.socket(fileno=descriptors[0]), descriptors[1], **message)
                decoders.add(pid)
                for descriptor in descriptors:
                    os.close(descriptor)
                reply = {"pid": pid}
            else:
                reply = {"code": _ended(message["pid"], message["grace_s"], decoders)}
            control.sendall(json.dumps(reply).encode())
    finally:
        for pid in decoders:
            os.kill(pid, signal.SIGKILL)


def _import_all() -> None:
    """What Pillow and PyAV import when a file needs it: no decoder can open a module's file."""
    Image.init()
    for package in (PIL, av):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(("__main__", "report", "Tk", "Qt", "_tkinter_finder")):
                with contextlib.suppress(ImportError):  # of libraries that are not installed
                    import_module(module.name)


def _ended(pid: int, grace_s: float, decoders: set[int]) -> int:
    """A decoder's exit code, or minus a signal's number; killed if it has not ended by then."""
    decoders.discard(pid)
    until = time.monotonic() + grace_s
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        time.sleep(0.01)


def _decoder(end: socket.socket, memory: int, memory_mb: int) -> None:
    """What a decoder does, from its beginning to its end."""
    try:
        _confine(memory_mb)
        channel = Channel(end, memory, MAX_BYTES)
        images.one_at_a_time = _Exclusive(channel)
        while (request := channel.receive()) is not None:
            _serve(channel, json.loads(request))
    finally:
        os._exit(0)


def _confine(memory_mb: int) -> None:
    """Limits what this process can do: it opens nothing, takes no more memory, leaves no core."""
    if sys.platform == "linux":
        server = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server or server == 1:
            os._exit(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.close(nothing)
    size = memory_mb * _MB
    # Of Linux's limits this one leaves out what is only reserved, as threads do; it has counted
    # mapped memory since 4.7. macOS keeps none of them.
    for kind, value in (
        (resource.RLIMIT_DATA, _data_bytes() + size),
        (resource.RLIMIT_FSIZE, size),  # of the shared memory
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 1),  # what is open stays so; polling one file takes 1
    ):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (value, value))


def _data_bytes() -> int:
    """What this process has of what RLIMIT_DATA counts."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    except OSError:
        return 0


def _serve(channel: Channel, request: dict[str, Any]) -> None:
    task = TASK.validate_python(request["task"])
    item = Item(**request["item"])
    data = None if request["data"] is None else channel.take(request["data"])
    files = _Asked(channel, item, data, request["size"])
    shown = time.monotonic()
    try:
        for result in task.results(item, files):
            if result is not None:
                _send(channel, result)
                if task.single:
                    return
                channel.receive()  # has been taken: the memory is free again
            elif time.monotonic() - shown >= _SIGN_S:
                _tell(channel, kind="alive")
            else:
                continue
            shown = time.monotonic()
    except MemoryError:
        gc.collect()
        _tell(channel, kind="no_memory")
        return
    except (EOFError, ConnectionError):
        raise
    except Exception as error:  # decoders raise nearly anything on files made to break them
        _send(channel, Result(error=f"cannot be decoded: {type(error).__name__}: {error}"))
        if task.single:
            return
        channel.receive()
    _tell(channel, kind="end")


def _send(channel: Channel, result: Result) -> None:
    bulk: list[Any] = []
    if result.pixels is not None:
        bulk.append(np.ascontiguousarray(result.pixels))
    if result.thumbnail is not None:
        bulk.append(result.thumbnail)
    if result.view is not None:
        bulk.append(np.ascontiguousarray(result.view))
    said = result._asdict() | {
        "pixels": None if result.pixels is None else result.pixels.shape,
        "thumbnail": None if result.thumbnail is None else len(result.thumbnail),
        "view": result.view is not None,
    }
    if result.error is not None:
        # Lone surrogates are not JSON.
        said["error"] = result.error.encode(errors="backslashreplace").decode()[:_ERROR_CHARACTERS]
    _tell(channel, *bulk, kind="result", **said)


def _tell(channel: Channel, *bulk: Any, **message: Any) -> None:
    channel.send(json.dumps(message).encode(), *bulk)


class _Exclusive:
    """Held by one decoder of a pool at a time; the pool takes it back from the dead."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __enter__(self) -> None:
        _tell(self._channel, kind="exclusive", wanted=True)
        self._channel.receive()

    def __exit__(self, *error: object) -> None:
        _tell(self._channel, kind="exclusive", wanted=False)


class _Asked:
    """`Files` that the other end of a channel reads."""

    def __init__(self, channel: Channel, item: Item, data: bytes | None, size: int) -> None:
        self._channel, self._data, self._size = channel, data, size
        self._numbers = {uri: number for number, uri in enumerate(item.frames or ())}

    def read(self, item: Item) -> bytes:
        """See `Files`."""
        if self._data is not None:
            return self._data
        if self._numbers:
            return self.ask(kind="frame", index=self._numbers[item.uri])
        if self._size > MAX_BYTES:
            raise OSError(errno.EFBIG, f"larger than {MAX_BYTES} bytes")
        with self.open(item) as (file, _):
            return file.read()

    @contextlib.contextmanager
    def open(self, item: Item) -> Iterator[tuple[BinaryIO, int]]:
        """See `Files`."""

        def read(offset: int, size: int) -> bytes:
            return self.ask(kind="read", offset=offset, size=size)

        yield io.BufferedReader(RangeFile(read, self._size)), self._size

    def ask(self, **request: Any) -> bytes:
        """What the other end reads.

        Raises:
            OSError, ValueError: as it was raised there.
        """
        _tell(self._channel, **request)
        reply = json.loads(self._channel.receive() or b"")
        if reply["error"] is None:
            return self._channel.take(reply["size"])
        if reply["errno"] is None:
            raise ValueError(reply["error"])
        raise OSError(reply["errno"], reply["error"])


if __name__ == "__main__":
    main()
