"""Copies of the images that remain, without their metadata and with blurred faces."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from paliflow import storage
from paliflow.configs import FilterSpec
from paliflow.configs.base import brief
from paliflow.configs.safety import Verdict
from paliflow.jobs.fleet.cluster import core_share
from paliflow.jobs.media.decoding import CopyTask
from paliflow.jobs.media.reader import max_concurrent_reads, task_reader
from paliflow.jobs.media.reading import Input
from paliflow.jobs.safety.checking import face_finder

COPIES = "images"
_QUALITY = 95
_SUFFIXES = {b"\xff\xd8": "jpg", b"\x89P": "png", b"RI": "webp"}
"""By how files begin."""


class Copies:
    """Writes them to a run's folder."""

    def __init__(self, spec: FilterSpec, run: str) -> None:
        """
        Raises:
            SpecError: what blurs faces is not installed.
        """
        self._run, self._faces = run, face_finder(spec.redact)
        cores = core_share(spec)
        task = CopyTask(max_pixels=spec.max_pixels, as_jpeg=self._faces is not None)
        self._read = task_reader(task, spec, cores)
        self._readers = max_concurrent_reads(None, cores)

    def write(
        self, inputs: Sequence[Input], rows: Sequence[dict[str, Any]], folder: str, first: int
    ) -> None:
        """Writes the copies of images that may remain, and says in their rows where they are.

        What cannot be copied becomes an error, so that no original takes its place.

        Args:
            inputs: which images.
            rows: theirs; those that are filtered are left out.
            folder: below that of all copies.
            first: the number of the first one; the same image always has the same.
        """
        chosen = [n for n, row in enumerate(rows) if row["status"] in ("ok", "unscored")]
        with ThreadPoolExecutor(self._readers) as threads:
            copies = threads.map(lambda n: self._image(inputs[n]), chosen)
            for number, copy in zip(chosen, copies, strict=True):
                row = rows[number]
                if copy.error or not copy.thumbnail:
                    said = brief(f"no copy: {copy.error or 'nothing was read'}")
                    row.update(status="error", error=said)
                else:
                    row["copy"] = self._written(
                        copy.thumbnail, row, f"{folder}/{first + number:05d}"
                    )

    def _image(self, source: Input) -> Input:
        for found in self._read(source.item):
            if found is not None and not found.error and found.sha256 != source.sha256:
                return Input(source.item, error="the file has changed since it was looked at")
            if found is not None:
                return found
        return Input(source.item, error="nothing was read")

    def _written(self, copy: bytes, row: dict[str, Any], name: str) -> str:
        if self._faces:
            copy, count = self._faces.blurred(copy, quality=_QUALITY)
            done, found = ("redact", f"{count} found") if count else ("pass", None)
            verdict = Verdict(
                "faces", self._faces.version, "image", "face", float(count), done, found
            )
            row["safety"].append(verdict._asdict())
        path = f"{COPIES}/{name}.{_SUFFIXES[copy[:2]]}"
        storage.overwrite(f"{self._run}/{path}", io.BytesIO(copy))
        return path
