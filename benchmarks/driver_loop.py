"""What the driver's loop costs a shard, with many actors that do nothing.

    python -m paliflow.benchmarks.driver_loop --actors 200 --shards 100000

The actors are simulated: handles whose calls go to a few real Ray actors, so that the loop waits
for real Ray results and nothing else competes for the cores.
"""

import time
from typing import Any

import ray
import typer

from paliflow.jobs.fleet.scheduler import FleetStatus, Heartbeat, ShardResult, drive

_PROCESSES = 1


class Host:
    """Answers for many simulated annotators at once."""

    def load(self) -> None:
        """Nothing to load."""

    def heartbeat(self) -> Heartbeat:
        """Always the same."""
        return Heartbeat(0, 0)

    def process(self, shard: int) -> ShardResult:
        """Every shard is done at once."""
        return ShardResult(256)


class Simulated:
    """The handle of an annotator that lives in a shared process."""

    def __init__(self, host: Any) -> None:
        self.load, self.beat, self.annotate = host.load, host.beat, host.annotate


def _keep(actor: Simulated, *, no_restart: bool = True) -> None:
    """Simulated actors have no process to kill."""


def main(actors: int = 200, shards: int = 100_000) -> None:
    """Prints the time of the whole loop and of one shard."""
    ray.init("local", num_cpus=_PROCESSES, include_dashboard=False, log_to_driver=False)
    host: Any = ray.remote(Host).options(max_concurrency=4)
    hosts = [host.remote() for _ in range(_PROCESSES)]
    ray.kill = _keep  # type: ignore[assignment]
    started, seen, most = time.perf_counter(), 0, 0

    def report(done: ShardResult, fleet: FleetStatus) -> None:
        nonlocal seen, most
        seen += done.inputs
        most = max(most, fleet.actors)
        if done.inputs and seen % (256 * 10_000) == 0:
            rate = seen / 256 / (time.perf_counter() - started)
            print(f"{seen // 256} shards, {rate:.0f} a second", flush=True)

    numbers = iter(range(10**9))
    drive(
        lambda: Simulated(hosts[next(numbers) % _PROCESSES]),
        range(shards),
        lambda shard: 256,
        lambda: actors,
        report,
        stall_timeout=900.0,
    )
    seconds = time.perf_counter() - started
    assert seen == 256 * shards
    each = seconds / shards * 1e3
    print(f"{shards} shards by {most} actors: {seconds:.1f} s, {each:.3f} ms a shard")


if __name__ == "__main__":
    typer.run(main)
