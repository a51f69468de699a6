"""The actor: takes shards, reads ahead of the device, has the prompts asked, commits parts."""

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from importlib.metadata import version
from itertools import count, islice
from typing import Any

import jax
from jax.errors import JaxRuntimeError

from paliflow.configs import AnnotateSpec
from paliflow.jobs.annotate.answers import PendingBatch
from paliflow.jobs.annotate.filtering import RowFilters
from paliflow.jobs.annotate.model import devices_of_actor, load_model
from paliflow.jobs.annotate.predictor import Predictor, Repeat
from paliflow.jobs.annotate.progress import Progress, ShardRows
from paliflow.jobs.annotate.tracks import link
from paliflow.jobs.confidence.filling import Confidences
from paliflow.jobs.confidence.pinning import calibration_of
from paliflow.jobs.fleet.accelerators import chips
from paliflow.jobs.fleet.cluster import core_share, share_cores
from paliflow.jobs.fleet.scheduler import Heartbeat, ShardResult
from paliflow.jobs.fleet.stages import ChipClock, Stage, StageClock
from paliflow.jobs.gates.canaries import canary_items, commit_canaries
from paliflow.jobs.media.readahead import ReadAhead
from paliflow.jobs.media.reader import max_concurrent_reads, reader, sparing
from paliflow.jobs.media.reading import Input
from paliflow.jobs.registry.checkpoints import loading, opened
from paliflow.jobs.registry.locations import tokenizer_of
from paliflow.jobs.runs.parts import commit_part
from paliflow.jobs.runs.plan import Item, Plan, read_shard
from paliflow.jobs.runs.spending import require_price
from paliflow.jobs.safety.checking import face_finder
from paliflow.model import MaskDecoder, PaliGemma

_BATCHES_AHEAD = 2
_CANARIES = -1
"""Stands for a shard, in what is sampled."""


class Annotator:
    """One model on one host's devices. `load` comes first, then any number of shards.

    A threaded actor: while one shard is computed, the next one's inputs are read and the last
    one's part is written.
    """

    FOLLOWER = "paliflow.jobs.annotate.follower:Follower"

    def __init__(
        self, spec: AnnotateSpec, run: str, plan: Plan, repeat: Repeat | None = None
    ) -> None:
        """Keeps what it is told; fast, so that what can fail fails in `load`.

        Args:
            spec, run, plan: of the run.
            repeat: where the model spans several hosts, has their processes do as this one.
        """
        self._spec, self._run, self._plan, self._repeat = spec, run, plan, repeat
        self._device, self._progress = threading.Lock(), Progress()

    def load(self) -> tuple[tuple[str, str], ...]:
        """Loads the weights and tokenizes the prompts.

        Returns:
            What is worth knowing of it, as `ShardResult.notes`.

        Raises:
            SpecError: the checkpoint, the tokenizer or the mask decoder is missing or bad, others
                can write to the compilation cache, the checkpoint is not what was registered, a
                prompt is too long, a filter is not installed, or the devices are not those of
                `accelerators_per_actor`.
        """
        started = time.monotonic()
        spec, pinned = self._spec, self._plan.pinned(self._spec)
        self._filters, self._faces = RowFilters(spec.filters), face_finder(spec.redact)
        share_cores(spec)
        devices = devices_of_actor(spec)
        self._held, self._kind = ChipClock(chips(devices)), devices[0].device_kind
        require_price(self._kind, spec)
        with opened(pinned, tokenizer_of(spec.tokenizer, pinned.checkpoint)) as files:
            model = load_model(files.path, spec, devices)
        mask_decoder = None
        if spec.mask_decoder:
            with loading("mask_decoder", spec.mask_decoder):
                mask_decoder = MaskDecoder.from_checkpoint(spec.mask_decoder)
        with loading("max_prompt_tokens", spec.max_prompt_tokens):
            known = calibration_of(self._run, spec, files.digests)
            precision = spec.accept.precision if spec.accept else None
            confidences = Confidences(known, precision) if known else None
            self._predictor = Predictor(
                *(model, files.tokenizer, mask_decoder, spec, confidences),
                *(self._repeat, self._watch),
            )
        self._image_size, self._cores = model.config.image_size, core_share(spec)
        self._about = {
            "spec": spec.model_dump_json(),
            "checkpoint_sha256": files.sha256,
            "image_size": str(model.config.image_size),
            "version": version("paliflow"),
        }
        self._progress.loaded(started)
        self._clock = StageClock()
        self._watcher = ThreadPoolExecutor(1, "watcher")
        self._ask_canaries()
        return (("model", self._describe(model, time.monotonic() - started)),)

    def _describe(self, model: PaliGemma, seconds: float) -> str:
        needs, chips = self._predictor.memory, model.mesh.size
        kind = jax.local_devices()[0].device_kind
        parts = {"weights": needs.parameters, "cache": needs.cache, "logits": needs.logits}
        parts["activations"] = needs.activations
        said = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in parts.items())
        return (
            f"{self._spec.dtype} on {chips} x {kind}, {self._predictor.batch_size} rows at a time, "
            f"estimated to take {needs.total / 2**30:.2f} GiB of each ({said}); loaded in "
            f"{seconds:.1f} s"
        )

    def _ask_canaries(self) -> None:
        """Asks the run's canaries, before anything else, and keeps the answers."""
        if not (items := canary_items(self._run)):
            return
        progress, self._progress = self._progress, Progress()  # of no shard
        rows = self._answer(items, _CANARIES, {})
        self._progress = progress
        self._clock.take()
        commit_canaries(self._run, [row for own in rows for row in own])

    def heartbeat(self) -> Heartbeat:
        """Says how far it is."""
        return self._progress.heartbeat()

    def process(self, shard: int, quarantined: Mapping[int, str] | None = None) -> ShardResult:
        """Answers every prompt about every input of a shard and commits its part.

        Args:
            shard: of the plan.
            quarantined: inputs not to touch, by their place in the shard, and why.
        """
        with self._clock.stage("read"):
            items = read_shard(self._run, self._plan, shard)
        untouched = {items[place]: reason for place, reason in (quarantined or {}).items()}
        rows = self._answer(items, shard, untouched)
        wrong = [[row["error"] for row in own if row["status"] == "error"] for own in rows]
        reasons = tuple(errors[0] for errors in wrong if errors)
        flat = [row for own in rows for row in own]
        held_s = self._held.take()
        counts = {"inputs": str(len(items)), "failed": str(len(reasons))}
        counts |= {"chip_seconds": f"{held_s:.3f}", "device": self._kind}
        with self._clock.stage("commit"):
            commit_part(
                *(self._run, shard, flat, self._about | counts),
                row_group_size=self._spec.row_group_size,
                compression_level=self._spec.compression_level,
            )
        return ShardResult(
            len(items),
            reasons,
            self._clock.take(),
            self._progress.notes + self._predictor.notes,
            sum(row.get("token_count") or 0 for row in flat),
            held_s,
            self._kind,
        )

    def probe(self, shard: int, place: int) -> None:
        """Does one input of a shard and forgets it, to see whether it kills."""
        self._answer([read_shard(self._run, self._plan, shard)[place]], shard, {})

    def _answer(
        self, items: list[Item], shard: int, untouched: Mapping[Item, str]
    ) -> list[list[dict[str, Any]]]:
        """The rows of each item."""
        rows = ShardRows(items)
        pending: deque[PendingBatch] = deque()
        batch_size = self._predictor.batch_size
        with closing(self._read_ahead(items, untouched, batch_size)) as ahead, self._device:
            inputs = iter(ahead)
            for number in count():
                with self._clock.stage("read"):
                    # A broken input keeps its place, so that no other's batch depends on it.
                    batch = list(islice(inputs, batch_size))
                if not batch:
                    break
                with self._clock.stage("device"):
                    pending.append(self._predictor.ask(batch, (shard, number)))
                if len(pending) > 1:  # the device has the next batch while this one is parsed
                    self._collect(pending.popleft(), rows)
        while pending:  # and the first of the next shard while the last of this one is
            self._collect(pending.popleft(), rows)
        self._progress.answered(rows.left)
        if self._spec.video and self._spec.video.track:
            for own in rows.of_items:
                link(own, self._spec.video.track)
        return rows.of_items

    def _read_ahead(
        self, items: list[Item], untouched: Mapping[Item, str], batch_size: int
    ) -> ReadAhead:
        """Starts to read: a few batches of inputs, or why there is none of an item."""
        spec = self._spec
        filters = self._filters
        read_item = reader(
            spec, self._image_size, spec.thumbnail, self._cores, view=filters.sees_images
        )

        def read(item: Item) -> Iterable[Input | None]:
            return (
                source and self._redacted(filters.check_image(source)) for source in read_item(item)
            )

        depth = _BATCHES_AHEAD * batch_size
        readers = max_concurrent_reads(spec.video, self._cores)
        spared = sparing(read, untouched)
        return ReadAhead(spared, items, depth, spec.read_timeout, readers, self._progress.move)

    def _redacted(self, source: Input) -> Input:
        """An input whose thumbnail shows no faces, if the spec wants that."""
        if not self._faces or not source.thumbnail:
            return source
        return source._replace(thumbnail=self._faces.redact(source.thumbnail))

    def _watch(self, stage: Stage, results: Any) -> None:
        """Has a thread wait for what the device was given; it works in the order of these calls."""
        self._watcher.submit(self._timed, stage, results)

    def _timed(self, stage: Stage, results: Any) -> None:
        with self._clock.stage(stage), suppress(JaxRuntimeError):  # which `collect` raises again
            jax.block_until_ready(results)
        self._progress.move()

    def _collect(self, pending: PendingBatch, rows: ShardRows) -> None:
        """Waits for a batch and adds its rows."""
        with self._clock.stage("parse"):
            answers = self._predictor.collect(pending)
            self._filters.check_rows(zip(pending.inputs, answers, strict=True))
        self._progress.batch_done(rows.add(zip(pending.inputs, answers, strict=True)))
