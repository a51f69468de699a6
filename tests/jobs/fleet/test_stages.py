"""Where actors' time goes: each moment counts once, and who waits for a host says so."""

from rich.console import Console

from paliflow.configs.summary import StageSeconds
from paliflow.jobs.fleet.progress import Progress
from paliflow.jobs.fleet.scheduler import FleetStatus, ShardResult
from paliflow.jobs.fleet.stages import ChipClock, StageClock


def test_stage_clock_counts_each_second_once_and_the_device_first() -> None:
    times = iter(range(100))
    clock = StageClock(lambda: float(next(times)))  # every look is a second after the last
    clock.begin("read")
    clock.begin("vision")
    clock.begin("decode")
    clock.end("vision")
    clock.begin("prefill")  # of the next batch, which waits while the first is answered
    clock.begin("parse")
    clock.begin("commit")
    clock.end("decode")
    clock.end("prefill")  # now inputs are awaited again
    clock.end("read")
    clock.end("parse")
    clock.end("commit")
    assert clock.take() == StageSeconds(
        read=2.0, vision=1.0, prefill=1.0, decode=5.0, parse=1.0, commit=1.0, wait=2.0
    )
    assert clock.take() == StageSeconds(wait=1.0)
    with clock.stage("device"):
        pass
    assert clock.take() == StageSeconds(device=1.0, wait=2.0)


def test_progress_shows_the_shares_of_all_actors() -> None:
    with Progress(4, 0, Console(force_terminal=False)) as progress:
        assert "device" not in str(progress)
        first = StageSeconds(read=1, vision=2, decode=3, device=1, parse=1, wait=2)
        for seconds in (first, StageSeconds(read=3, prefill=4, decode=2, commit=1)):
            progress.add(ShardResult(2, stages=seconds), FleetStatus(2, 0))
        assert ", 20% read, 60% device, 5% parse, 5% commit, " in str(progress)
        assert progress.stages == StageSeconds(4, 2, 4, 5, 1, 1, 1, 2)


def test_host_bound_run_says_what_to_do_and_another_nothing() -> None:
    said = StageSeconds(read=60, device=30, wait=10).host_bound()
    assert said.startswith("the devices stood idle 60% of the time, waiting for inputs: ")
    assert StageSeconds(read=1, device=99).host_bound() == ""
    assert StageSeconds(read=20, device=20).host_bound() == ""  # its beginning, mostly
    assert StageSeconds().host_bound() == StageSeconds().said() == ""


def test_chip_clock_counts_each_chip_and_each_second_once() -> None:
    times = iter([10.0, 12.0, 12.5])
    clock = ChipClock(4, lambda: next(times))
    assert (clock.take(), clock.take()) == (8.0, 2.0)
