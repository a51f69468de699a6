"""A pool of decoder processes: each input is decoded apart from whoever wants its pixels."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from paliflow.jobs.media.channel import Channel, shared_memory
from paliflow.jobs.media.decoding import ImageTask, Task
from paliflow.jobs.media.pixels import (
    MAX_BYTES,
    VIEW_PIXELS,
    Files,
    FramePosition,
    Length,
    Result,
    unreadable,
)
from paliflow.jobs.media.places import frame_item
from paliflow.jobs.runs.item import Item

PROCESSES = hasattr(os, "fork") and hasattr(socket, "send_fds")
"""Whether there are decoder processes; else inputs are decoded in the threads that read them, with
no limit of memory, and what hangs cannot be ended."""
DECODER_MODULE = "paliflow.jobs.media.decoder_process"
_START_S = 120.0
"""Seconds for the server to import what decoding takes."""
_GRACE_S = 2.0
"""Seconds for the server to learn how a decoder ended that has closed its socket."""
_TICK_S = 1.0
"""Seconds between two signs of life while a decoder, or its turn, is waited for."""
_LONGEST_READ = 2**24
_ENVIRONMENT = (
    *("LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
    *("PYTHONHOME", "PYTHONUTF8"),
)
"""What the server inherits: nothing that may be secret."""

Int32 = Annotated[int, Field(ge=0, lt=2**31)]
Int63 = Annotated[int, Field(ge=0, lt=2**63)]


class _Message(BaseModel):
    # A decoder may be in the hands of whoever made a file.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Made(_Message):
    kind: Literal["result"]
    width: Int32 | None
    height: Int32 | None
    pixels: Annotated[tuple[Int32, ...], Field(max_length=4)] | None
    """Their shape; they lie at the beginning of the shared memory, the thumbnail behind them."""
    thumbnail: Annotated[int, Field(ge=0, le=MAX_BYTES)] | None
    error: Annotated[str, Field(max_length=2000)] | None
    moment: FramePosition | None
    length: tuple[Int63, Int63, Annotated[int, Field(ge=1, lt=2**63)]] | None
    orientation: Annotated[int, Field(ge=1, le=8)]
    view: bool
    """Whether what filters see lies behind the thumbnail."""


class _Read(_Message):
    kind: Literal["read"]
    offset: Int63
    size: Int63


class _Frame(_Message):
    kind: Literal["frame"]
    index: Int63


class _Exclusive(_Message):
    kind: Literal["exclusive"]
    wanted: bool


class _Word(_Message):
    kind: Literal["alive", "end", "no_memory"]


_MESSAGE: TypeAdapter[_Made | _Read | _Frame | _Exclusive | _Word] = TypeAdapter(
    Annotated[_Made | _Read | _Frame | _Exclusive | _Word, Field(discriminator="kind")]
)


class DecoderError(RuntimeError):
    """The decoder processes cannot be started."""


class _DiedError(Exception):
    """A decoder came to no result; says why."""


class Clock:
    """How long an input may take: it runs while the input is read or decoded, not while it waits
    for its turn or to be fetched."""

    def __init__(self, timeout: float, total: float = math.inf) -> None:
        """
        Args:
            timeout: seconds without a result or a sign of life.
            total: seconds in all.
        """
        self._timeout, self._total = timeout, total
        self._quiet_s = self._spent_s = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Counts."""
        began = time.monotonic()
        try:
            yield
        finally:
            elapsed = time.monotonic() - began
            self._quiet_s += elapsed
            self._spent_s += elapsed

    def heard(self) -> None:
        """There was a result or a sign of life."""
        self._quiet_s = 0.0

    @property
    def left_s(self) -> float:
        """Seconds."""
        return min(self._timeout - self._quiet_s, self._total - self._spent_s)

    @property
    def error(self) -> str:
        """What to say when there is no time left."""
        if self._spent_s >= self._total:
            return f"not decoded within {self._total:g} s (video_timeout)"
        return f"not read and decoded within {self._timeout:g} s"


class _Server:
    """The process that forks decoders; it and they end with this process."""

    def __init__(self, memory_mb: int) -> None:
        self._memory_mb = memory_mb
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        self._said: Any = tempfile.TemporaryFile()  # noqa: SIM115 -- read when it has died
        with theirs:
            self._process = subprocess.Popen(
                # -P: not what happens to lie in the working folder.
                [sys.executable, "-P", "-m", DECODER_MODULE, str(theirs.fileno())],
                env=environment
                | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
                | {"OPENBLAS_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                start_new_session=True,  # an interrupt from the keyboard is not for it
            )

    def fork(self) -> "_Decoder":
        """
        Raises:
            OSError: the server is gone.
        """
        ours, theirs = socket.socketpair()
        memory = shared_memory()
        try:
            with theirs:
                reply = self._ask({"memory_mb": self._memory_mb}, theirs.fileno(), memory)
        except BaseException:
            ours.close()
            os.close(memory)
            raise
        return _Decoder(self, reply["pid"], Channel(ours, memory))

    def end(self, pid: int, grace_s: float) -> int | None:
        """A decoder's exit code, or minus a signal's number; None if nobody knows it any more."""
        with suppress(OSError):
            code: int = self._ask({"pid": pid, "grace_s": grace_s})["code"]
            return code
        return None

    def _ask(self, message: dict[str, Any], *descriptors: int) -> Any:
        with self._lock:
            self._control.settimeout(_START_S)
            socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)
            reply = self._control.recv(4096)
        if not reply:
            raise ConnectionResetError(f"the decoders' server ended: {self.last_words()}")
        return json.loads(reply)

    def close(self) -> None:
        """Has it end."""
        self._control.close()
        self._process.kill()
        self._process.wait()

    def last_words(self) -> str:
        """The end of what it wrote to its standard error."""
        self._said.seek(0)
        return str(self._said.read()[-2000:], errors="replace")


class _Decoder:
    def __init__(self, server: _Server, pid: int, channel: Channel) -> None:
        self._server, self._pid, self.channel = server, pid, channel
        self._over = False
        self.fresh = True
        """Whether it has decoded nothing yet."""

    def end(self, grace_s: float = 0.0) -> int | None:
        """As `_Server.end`, once."""
        if self._over:
            return None
        self._over = True
        self.channel.close()
        return self._server.end(self._pid, grace_s)


class DecoderPool:
    """Decoder processes of this process, for any number of threads."""

    def __init__(self, memory_mb: int, decoders: int) -> None:
        """
        Args:
            memory_mb: what a decoder may take for one input.
            decoders: how many images are decoded at once; of videos, as many as are asked for.
        """
        self._memory_mb = memory_mb
        self._lock = threading.Lock()
        self._idle: list[_Decoder] = []
        self._kept = decoders
        self._turns = threading.Semaphore(decoders)
        self._exclusive = threading.Lock()
        self._server = _Server(memory_mb) if PROCESSES else None

    def results(
        self, task: Task, item: Item, files: Files, clock: Clock, data: bytes | None = None
    ) -> Iterator[Result | None]:
        """What a decoder makes of an item; whatever goes wrong becomes the last result's error.

        Args:
            task: what to make.
            item: of what.
            files: where the bytes come from, which this process reads.
            clock: how long it may take.
            data: the bytes, if they are read already.

        Yields:
            Results; None at least every second while the next is waited for.
        """
        if not PROCESSES:
            yield from _in_this_thread(task, item, files, data)
            return
        try:
            with ExitStack() as stack:
                file, size = None, 0
                if data is None and item.frames is None:
                    with clock.running():
                        file, size = stack.enter_context(files.open(item))
                bare = item._replace(prompts=None, id=None, metadata=None, version=None, roots=None)
                request = {
                    "task": task.model_dump(mode="json"),
                    "item": bare._asdict(),
                    "data": None if data is None else len(data),
                    "size": size,
                }
                bytes_of = _Bytes(files, item, file)
                yield from self._tried(task, json.dumps(request).encode(), data, bytes_of, clock)
        except (OSError, ValueError) as error:
            yield Result(error=unreadable(error))

    def _tried(
        self, task: Task, request: bytes, data: bytes | None, files: "_Bytes", clock: Clock
    ) -> Iterator[Result | None]:
        """A decoder may have been killed, or be full of what it did before: a new one tries again,
        and what is known already is passed over."""
        known = 0
        reason = ""
        for anew in (False, True):
            seen = 0
            try:
                for result in self._decoded(task, request, data, files, clock, anew):
                    seen += result is not None
                    if result is None or seen > known:
                        yield result
                    known = max(known, seen)
                return
            except _DiedError as error:
                reason = str(error)
        yield Result(error=reason)

    def _decoded(
        self,
        task: Task,
        request: bytes,
        data: bytes | None,
        files: "_Bytes",
        clock: Clock,
        anew: bool,
    ) -> Iterator[Result | None]:
        last = None
        with ExitStack() as stack:
            if task.single:
                while not self._turns.acquire(timeout=_TICK_S):
                    yield None
                stack.callback(self._turns.release)
            decoder = self._new() if anew else self._take()
            conversation = _Conversation(decoder, files, clock, self._exclusive, self._memory_mb)
            try:
                for result in conversation.results(task, request, data):
                    if task.single and result is not None:
                        last = result
                    else:
                        yield result
            finally:
                if conversation.ended:
                    self._give_back(decoder)
                else:
                    decoder.end()
        # Whoever takes this may let one wait for long, and a turn is what others wait for.
        if last is not None:
            yield last

    def _take(self) -> _Decoder:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._new()

    def _new(self) -> _Decoder:
        """
        Raises:
            DecoderError: the server does not start.
        """
        with self._lock:
            assert self._server
            try:
                return self._server.fork()
            except OSError:  # somebody has ended it, and all decoders with it
                self._server.close()
                self._server = _Server(self._memory_mb)
                try:
                    return self._server.fork()
                except OSError as error:
                    raise DecoderError(str(error)) from error

    def _give_back(self, decoder: _Decoder) -> None:
        decoder.channel.trim()
        decoder.fresh = False
        with self._lock:
            if len(self._idle) < self._kept:
                self._idle.append(decoder)
                return
        decoder.end()


class _Conversation:
    """With a decoder about one input."""

    def __init__(
        self,
        decoder: _Decoder,
        files: "_Bytes",
        clock: Clock,
        exclusive: threading.Lock,
        memory_mb: int,
    ) -> None:
        self._decoder, self._channel = decoder, decoder.channel
        self._files, self._clock = files, clock
        self._exclusive, self._memory_mb = exclusive, memory_mb
        self.ended = False
        """Whether the decoder waits for another input."""

    def results(self, task: Task, request: bytes, data: bytes | None) -> Iterator[Result | None]:
        """
        Raises:
            _DiedError: the decoder ended without one.
        """
        held = False
        try:
            self._channel.send(request, *([] if data is None else [data]))
            while True:
                message = self._next()
                if message is None:
                    if self._clock.left_s <= 0:
                        yield Result(error=self._clock.error)
                        return
                    yield None
                    continue
                self._clock.heard()
                match message:
                    case _Made():
                        result = self._result(message, task)
                        self.ended = task.single
                        yield result
                        if task.single:
                            return
                        self._channel.send(b"{}")
                    case _Read() | _Frame():
                        with self._clock.running():
                            reply, content = self._files.get(message)
                        self._channel.send(json.dumps(reply).encode(), content)
                    case _Exclusive(wanted=True) if not held:
                        while not self._exclusive.acquire(timeout=_TICK_S):
                            yield None
                        held = True
                        self._channel.send(b"{}")
                    case _Exclusive(wanted=False) if held:
                        self._exclusive.release()
                        held = False
                    case _Word(kind="alive") if not task.single:
                        yield None
                    case _Word(kind="end") if not task.single:
                        self.ended = True
                        return
                    case _Word(kind="no_memory"):
                        said = f"needs more than decoder_memory={self._memory_mb} MB to decode"
                        if not self._decoder.fresh:  # which may be full of what it did before
                            raise _DiedError(said)
                        yield Result(error=said)
                        return
                    case _:
                        raise ValueError("out of turn")
                if self._clock.left_s <= 0:
                    yield Result(error=self._clock.error)
                    return
        except (EOFError, OSError):
            code = self._decoder.end(_GRACE_S)
            how = f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name
            raise _DiedError(f"crashes the decoder ({how})") from None
        except ValueError as error:
            raise _DiedError("crashes the decoder (it sends nonsense)") from error
        finally:
            if held:
                self._exclusive.release()

    def _next(self) -> Any:
        with self._clock.running():
            raw = self._channel.receive(max(0.0, min(_TICK_S, self._clock.left_s)))
        return None if raw is None else _MESSAGE.validate_json(raw)

    def _result(self, made: _Made, task: Task) -> Result:
        """
        Raises:
            ValueError: it is not what was asked for.
        """
        pixels, size = None, 0
        if made.pixels is not None:
            if made.pixels != task.shape:
                raise ValueError(f"pixels of shape {made.pixels}")
            size = math.prod(made.pixels)
            pixels = np.frombuffer(self._channel.take(size), np.uint8).reshape(made.pixels)
        elif task.shape and made.error is None:
            raise ValueError("neither pixels nor an error")
        wanted = isinstance(task, ImageTask) and task.view and made.error is None
        if made.view != wanted:
            raise ValueError("a view that was not asked for, or none")
        view, before = None, size + (made.thumbnail or 0)
        if made.view:
            shape = (VIEW_PIXELS, VIEW_PIXELS, 3)
            content = self._channel.take(math.prod(shape), before)
            view = np.frombuffer(content, np.uint8).reshape(shape)
        return Result(
            made.width,
            made.height,
            pixels,
            None if made.thumbnail is None else self._channel.take(made.thumbnail, size),
            made.error,
            made.moment,
            None if made.length is None else Length(*made.length),
            made.orientation,
            view,
        )


class _Bytes:
    """What a decoder may read: of the one item that it decodes."""

    def __init__(self, files: Files, item: Item, file: BinaryIO | None) -> None:
        self._files, self._item, self._file = files, item, file

    def get(self, wanted: _Read | _Frame) -> tuple[dict[str, Any], bytes]:
        """The answer, and the bytes."""
        try:
            if isinstance(wanted, _Read):
                if self._file is None:
                    raise ValueError("there is no file")
                self._file.seek(wanted.offset)
                content = self._file.read(min(wanted.size, _LONGEST_READ))
            else:
                frames = self._item.frames or ()
                if wanted.index >= len(frames):
                    raise ValueError("there is no such frame")
                content = self._files.read(frame_item(self._item, frames[wanted.index]))
        except OSError as error:
            said = error.strerror or str(error)
            return {"error": said, "errno": error.errno or 0, "size": 0}, b""
        except ValueError as error:
            return {"error": str(error), "errno": None, "size": 0}, b""
        return {"error": None, "errno": None, "size": len(content)}, content


@cache
def decoder_pool(memory_mb: int, decoders: int) -> DecoderPool:
    """The pool of this process with such limits."""
    return DecoderPool(memory_mb, max(2, decoders))


def _in_this_thread(
    task: Task, item: Item, files: Files, data: bytes | None
) -> Iterator[Result | None]:
    try:
        yield from task.results(item, _Known(files, item, data))
    except MemoryError:
        yield Result(error="needs more memory than there is to decode")
    except (OSError, ValueError) as error:
        yield Result(error=unreadable(error))


class _Known:
    """`Files` of one item, whose bytes may be there already."""

    def __init__(self, files: Files, item: Item, data: bytes | None) -> None:
        self._item, self._data, self.open, self._read = item, data, files.open, files.read

    def read(self, item: Item) -> bytes:
        """See `Files`."""
        if self._data is not None:
            return self._data
        return self._read(frame_item(self._item, item.uri) if self._item.frames else item)
