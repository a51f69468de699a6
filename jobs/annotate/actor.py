"""The actor: takes shards, reads ahead of the device, has the prompts asked, commits parts."""

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from importlib.metadata import version
from itertools import count, islice
from pathlib import Path
from typing import Any

import jax
from jax.errors import JaxRuntimeError

from paliflow.configs import AnnotateSpec
from paliflow.configs.folders import require_closed
from paliflow.jobs.annotate.predictor import PendingBatch, Predictor
from paliflow.jobs.annotate.tracks import link
from paliflow.jobs.fleet.accelerators import local_chips, require_accelerators, require_alone
from paliflow.jobs.fleet.cluster import core_share, share_cores
from paliflow.jobs.fleet.scheduler import Heartbeat, ShardResult
from paliflow.jobs.fleet.stages import StageClock
from paliflow.jobs.media.readahead import ReadAhead
from paliflow.jobs.media.reader import max_concurrent_reads, reader
from paliflow.jobs.media.reading import Input
from paliflow.jobs.registry.checkpoints import loading, opened
from paliflow.jobs.registry.locations import tokenizer_of
from paliflow.jobs.runs.parts import commit_part
from paliflow.jobs.runs.plan import Item, Plan, read_shard
from paliflow.jobs.runs.spending import require_price
from paliflow.model import MaskDecoder, PaliGemma

_BATCHES_AHEAD = 2


class Annotator:
    """One model on one host's devices. `load` comes first, then any number of shards.

    A threaded actor: while one shard is computed, the next one's inputs are read and the last
    one's part is written.
    """

    def __init__(self, spec: AnnotateSpec, run: str, plan: Plan) -> None:
        """Keeps what it is told; fast, so that what can fail fails in `load`."""
        self._spec, self._run, self._plan = spec, run, plan
        self._device, self._tally = threading.Lock(), threading.Lock()
        self._answered = self._moved = 0  # items; inputs, batches and signs of life
        self._started = 0.0  # when loading began; 0 once the first batch is told of

    def load(self) -> tuple[tuple[str, str], ...]:
        """Loads the weights and tokenizes the prompts.

        Returns:
            What is worth knowing of it, as `ShardResult.notes`.

        Raises:
            SpecError: the checkpoint, the tokenizer or the mask decoder is missing or bad, others
                can write to the compilation cache, the checkpoint is not what was registered, a
                prompt is too long, or the devices are not those of `accelerators_per_actor`.
        """
        self._started = self._charged = time.monotonic()
        spec, pinned = self._spec, self._plan.pinned(self._spec)
        share_cores(spec)
        require_accelerators("accelerators_per_actor", spec.accelerators_per_actor)
        require_alone("accelerators_per_actor", spec.actor_topology)
        self._chips, self._kind = local_chips(), jax.local_devices()[0].device_kind
        require_price(self._kind, spec)
        if spec.compilation_cache:
            with loading("compilation_cache", spec.compilation_cache):
                if not spec.compilation_cache.startswith("gs://"):
                    require_closed(Path(spec.compilation_cache))
            jax.config.update("jax_compilation_cache_dir", spec.compilation_cache)
        overrides = spec.model_dump(include={"query_pre_attn_scalar"}, exclude_none=True)
        with opened(pinned, tokenizer_of(spec, pinned.checkpoint)) as files:
            model = PaliGemma.from_checkpoint(
                files.path, dtype=spec.dtype, model_parallel=spec.model_parallel, **overrides
            )
        mask_decoder = None
        if spec.mask_decoder:
            with loading("mask_decoder", spec.mask_decoder):
                mask_decoder = MaskDecoder.from_checkpoint(spec.mask_decoder)
        with loading("max_prompt_tokens", spec.max_prompt_tokens):
            self._asker = Predictor(model, files.tokenizer, mask_decoder, spec)
        self._image_size, self._cores = model.config.image_size, core_share(spec)
        self._about = {
            "spec": spec.model_dump_json(),
            "checkpoint_sha256": files.sha256,
            "version": version("paliflow"),
        }
        self._loaded_s = time.monotonic() - self._started
        self._clock = StageClock()
        self._watcher = ThreadPoolExecutor(1, "watcher")
        return (("model", self._describe(model)),)

    def _describe(self, model: PaliGemma) -> str:
        needs, chips = self._asker.memory, model.mesh.size
        kind = jax.local_devices()[0].device_kind
        parts = {"weights": needs.parameters, "cache": needs.cache, "logits": needs.logits}
        parts["activations"] = needs.activations
        said = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in parts.items())
        return (
            f"{self._spec.dtype} on {chips} x {kind}, {self._asker.width} rows at a time, "
            f"estimated to take {needs.total / 2**30:.2f} GiB of each ({said}); loaded in "
            f"{self._loaded_s:.1f} s"
        )

    def heartbeat(self) -> Heartbeat:
        """Says how far it is."""
        return Heartbeat(self._answered, self._moved)

    def _move(self) -> None:
        self._moved += 1

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
        held_s = self._charge()
        counts = {"inputs": str(len(items)), "failed": str(len(reasons))}
        counts |= {"chip_seconds": f"{held_s:.3f}", "device": self._kind}
        with self._clock.stage("commit"):
            commit_part(self._run, shard, flat, self._spec, self._about | counts)
        return ShardResult(
            len(items),
            reasons,
            self._clock.take(),
            tuple(self._asker.notes),
            sum(row.get("token_count") or 0 for row in flat),
            held_s,
            self._kind,
        )

    def _charge(self) -> float:
        """The chip-seconds since it was last asked, or since loading began."""
        with self._tally:
            now = time.monotonic()
            held_s, self._charged = (now - self._charged) * self._chips, now
        return held_s

    def probe(self, shard: int, place: int) -> None:
        """Does one input of a shard and forgets it, to see whether it kills."""
        self._answer([read_shard(self._run, self._plan, shard)[place]], shard, {})

    def _answer(
        self, items: list[Item], shard: int, untouched: Mapping[Item, str]
    ) -> list[list[dict[str, Any]]]:
        """The rows of each item."""
        spec = self._spec
        read_item = reader(spec, self._image_size, spec.thumbnail, self._cores)

        def read(item: Item) -> Iterable[Input | None]:
            if item in untouched:
                return (Input(item, error=untouched[item]),)
            return read_item(item)

        rows: list[list[dict[str, Any]]] = [[] for _ in items]
        place = told = 0  # of the item whose rows came last; items that are told of as answered
        asked: deque[PendingBatch] = deque()

        def collect() -> None:
            nonlocal place, told
            batch = asked.popleft()
            for source, own in zip(batch.batch, batch.rows(), strict=True):
                while items[place] is not source.item:
                    place += 1
                rows[place].extend(own)
            with self._tally:
                self._moved += 1
                self._answered += place - told
                told = place
                if self._started:
                    after = time.monotonic() - self._started
                    rest = f"{self._loaded_s:.1f} of them to load, then compilation"
                    self._asker.notes.append(("first batch", f"after {after:.1f} s, {rest}"))
                    self._started = 0.0

        width = self._asker.width
        depth = _BATCHES_AHEAD * width
        readers = max_concurrent_reads(spec, self._cores)
        ahead = ReadAhead(read, items, depth, spec.read_timeout, readers, self._move)
        with closing(ahead), self._device:
            inputs = iter(ahead)
            for number in count():
                with self._clock.stage("read"):
                    # A broken input keeps its place, so that no other's batch depends on it.
                    batch = list(islice(inputs, width))
                if not batch:
                    break
                self._clock.begin("device")
                asked.append(self._asker.ask(batch, (shard, number)))
                self._watcher.submit(self._watch, asked[-1])
                if len(asked) > 1:  # the device has the next batch while this one is parsed
                    collect()
        while asked:  # and the first of the next shard while the last of this one is
            collect()
        with self._tally:
            self._answered += len(items) - told
        if spec.video and spec.video.track:
            for own in rows:
                link(own, spec.video.track)
        return rows

    def _watch(self, batch: PendingBatch) -> None:
        """Notices when the device is done with a batch: who wants its rows may ask later."""
        with suppress(JaxRuntimeError):  # which the rows raise again
            batch.wait()
        self._clock.end("device")
