"""One annotation run from spec to manifest: plan, drive, verify."""

import io
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version

import ray
from rich.console import Console

from paliflow.configs import AnnotateSpec, RunSummary
from paliflow.configs.base import SpecError
from paliflow.jobs import storage
from paliflow.jobs.annotator import Annotator, checkpoint_of
from paliflow.jobs.cluster import actor_count, actor_options, connected
from paliflow.jobs.driver import drive
from paliflow.jobs.plan import plan_uri, shard_sizes, write_plan
from paliflow.jobs.progress import Progress
from paliflow.jobs.sink import present_parts, read_part
from paliflow.jobs.sources import image_uris


def annotate(spec: AnnotateSpec, console: Console, ray_address: str | None = None) -> RunSummary:
    """Does what a run lacks and seals it with its manifest; Ray starts only if something lacks.

    Args:
        spec: relative paths in it are relative to this process's folder.
        console: where progress goes.
        ray_address: as in `connected`.

    Raises:
        SpecError: the user must change something: the input, the checkpoint, a prompt.
        RuntimeError: the parts do not add up to the plan, or actors keep dying.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    spec = _with_absolute_paths(spec)
    run = f"{spec.output}/run_id={spec.run_id}"
    manifest = f"{run}/_manifest.json"
    if storage.is_file(manifest):
        print(f"run {spec.run_id} is finished already: {run}", flush=True)
        return RunSummary.parse(storage.read_bytes(manifest).decode())
    if not storage.is_file(plan_uri(run)):
        write_plan(run, image_uris(spec.input, spec.image_column), spec.shard_size)
    sizes = shard_sizes(run)
    present = present_parts(run)
    missing = [shard for shard in range(len(sizes)) if shard not in present]
    resumed = f", {len(present)} of them done before" if present else ""
    print(f"{sum(sizes)} images in {len(sizes)} shards{resumed}, to {run}", flush=True)
    already = sum(sizes[shard] for shard in present)
    if missing:
        start = partial(ray.remote(Annotator).options(**actor_options(spec)).remote, spec, run)
        with connected(ray_address), Progress(sum(sizes), already, console) as progress:
            actors = actor_count(spec, len(missing))
            drive(start, missing, actors, lambda done: progress.add(done.inputs, done.errors))
    seconds = time.monotonic() - clock
    with ThreadPoolExecutor(16) as pool:
        parts = list(pool.map(partial(read_part, run), range(len(sizes))))
    for shard, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        if part.rows != size * len(spec.prompts):
            raise RuntimeError(
                f"part {shard} of {run} has {part.rows} rows; the plan and {len(spec.prompts)} "
                f"prompts make {size * len(spec.prompts)}: was it made by another spec?"
            )
    errors = sum(part.errors for part in parts)
    rows = sum(part.rows for part in parts)
    summary = RunSummary(
        run_id=spec.run_id,
        location=run,
        spec=spec,
        inputs=sum(sizes),
        rows=rows,
        ok=rows - errors,
        errors=errors,
        shards=len(sizes),
        checkpoint=checkpoint_of(spec),
        checkpoint_sha256=parts[-1].checkpoint_sha256,
        started=started,
        finished=datetime.now(UTC),
        seconds=seconds,
        images_per_second=(sum(sizes) - already) / seconds,
        versions={name: version(name) for name in ("paliflow", "ray", "jax", "flax", "pyarrow")},
    )
    storage.commit_if_absent(manifest, io.BytesIO(summary.model_dump_json(indent=2).encode()))
    return summary


def _with_absolute_paths(spec: AnnotateSpec) -> AnnotateSpec:
    """Actors run in other folders, and a resumed run may be started from another."""
    fields = {"input", "output", "checkpoint", "tokenizer", "mask_decoder"}
    paths = spec.model_dump(include=fields, exclude_none=True)
    for field, path in paths.items():
        try:
            paths[field] = storage.absolute(path)
        except ValueError as error:
            raise SpecError(f"{field}: {error}") from None
    return spec.model_copy(update=paths)
