"""FFmpeg's command line: makes films, and says which frame it shows when."""

import os
import re
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BINARY = os.environ.get("FFMPEG") or shutil.which("ffmpeg")
"""None where it is not installed."""
_SHOWN = re.compile(
    r"\[Parsed_showinfo[^]]*\] n: *(\d+) pts: *(\S+) pts_time:(\S+) .*? s:(\d+)x(\d+) .*?iskey:(\d)"
)
_ENOUGH_S = 120


class Shown(NamedTuple):
    """A frame as FFmpeg shows it."""

    time: float
    key: bool
    pixels: NDArray[np.uint8]
    """[height, width, 3], turned as the file says."""


def run(*arguments: object, cwd: Path | None = None) -> None:
    """Runs it on files.

    Raises:
        RuntimeError: it fails; the message is its last words.
    """
    assert BINARY
    command = [BINARY, "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=_ENOUGH_S, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])


def key_times(path: Path) -> list[float]:
    """When the packets are shown that the container says can be decoded by themselves."""
    assert BINARY
    command = [BINARY, "-v", "error", "-nostdin", "-copyts", "-i", str(path), "-map", "0:v:0"]
    done = subprocess.run(
        [*command, "-c", "copy", "-f", "framecrc", "-"],
        capture_output=True, text=True, timeout=_ENOUGH_S, check=False,
    )  # fmt: skip
    base, found = Fraction(1), []
    for line in done.stdout.splitlines():
        if line.startswith("#tb 0:"):
            base = Fraction(line.rpartition(" ")[2])
        elif not line.startswith("#") and "F=0x" not in line:  # other flags than that of a keyframe
            found.append(float(int(line.split(",")[2]) * base))
    return found


def shown(path: Path) -> list[Shown]:
    """All frames of a film, or the one of an image, with the times that its container has."""
    assert BINARY
    # The same way from 4:2:0 to RGB as ours, so that only what matters differs.
    filters = "scale=flags=bilinear,format=rgb24,showinfo"
    command = [BINARY, "-hide_banner", "-nostdin", "-copyts", "-i", str(path), "-map", "0:v:0"]
    command += ["-fps_mode", "passthrough", "-vf", filters, "-f", "rawvideo", "-"]
    done = subprocess.run(command, capture_output=True, timeout=_ENOUGH_S, check=False)
    found, at = [], 0
    for _, _, time, width, height, key in _SHOWN.findall(done.stderr.decode(errors="replace")):
        size = int(width) * int(height) * 3
        pixels = np.frombuffer(done.stdout, np.uint8, size, at)
        at += size
        seconds = float("nan") if time == "NOPTS" else float(Fraction(time))
        found.append(Shown(seconds, key == "1", pixels.reshape(int(height), int(width), 3)))
    return found
