"""Rows 10, 12, 14 and 15 of the table of faults: what a stop, an end, a set clock must not do."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from chronopype_mp import (
    BackoffPolicy,
    ProcessorSpec,
    RestartBudget,
    Supervision,
    TickProcessor,
    WorkerHandle,
    WorkerStatus,
)
from chronopype_mp.core.worker_events import Event
from chronopype_mp.events import (
    DeathReason,
    WorkerBackingOff,
    WorkerDied,
    WorkerReady,
    WorkerStarting,
    WorkerStopped,
    WorkerStopping,
)
from chronopype_mp.testing import faults
from chronopype_mp.timing import SystemTime
from tests.system.clocks import run
from tests.system.neighbours import SHORT, Neighbourhood, row
from tests.system.processors import Scribe
from tests.system.scripts import wait_for_ends, wait_until
from tests.system.victims import BlocksWithChildren, CannotBeMade, HangsInStop, SlowToMake

AT_ONCE = 1.0
"""Seconds; a process has to be killed and reaped in them."""


@row(10, "forkserver", "spawn")
def test_workers_that_will_not_stop_are_killed_at_the_grace_and_hold_up_nobody(
    tmp_path: Path, launcher: str
) -> None:
    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=SHORT) as n:
            deaf = [await n.add(Scribe(tmp_path / f"deaf-{i}"), name=f"deaf-{i}") for i in (1, 2)]
            hanging = [
                await n.add(HangsInStop(tmp_path / f"hangs-{i}"), name=f"hangs-{i}") for i in (1, 2)
            ]
            for handle in deaf:
                faults.ignore_signals(handle)
            await n.ticks(3)
            n.clock.remove_processor(deaf[0])
            n.clock.remove_processor(hanging[0])
            for handle in (deaf[0], hanging[0]):
                await handle.wait_stopped()
                stopping = await n.events.wait_for(WorkerStopping, worker=handle.name)
                death = await n.events.wait_for(WorkerDied, worker=handle.name)
                took = death.at - stopping.at
                assert SHORT.stop_grace - 0.1 < took < SHORT.stop_grace + AT_ONCE
            began = time.monotonic()
            await n.leave()
            assert time.monotonic() - began < SHORT.stop_grace + 2.0
        for handle in (*deaf, *hanging):
            (death,) = n.events.of(WorkerDied, worker=handle.name)
            assert (death.reason, death.signal) == (DeathReason.STOP_TIMEOUT, "SIGKILL")
            assert handle.status is WorkerStatus.STOPPED
            assert len(n.events.of(WorkerStarting, worker=handle.name)) == 1
        for number in (1, 2):
            assert (tmp_path / f"hangs-{number}").read_text() == "started\nstop begun\n"

    run(scenario())


@row(12, "forkserver", "spawn")
def test_the_children_of_a_worker_end_with_it_whichever_way_that_is(
    tmp_path: Path, launcher: str
) -> None:
    run(_children(tmp_path, launcher))


async def _children(tmp_path: Path, launcher: str) -> None:
    ends = {
        "killed": faults.kill,
        "crashed": faults.crash,
        "exits": lambda handle: faults.exit_in_hook(handle, 3),
        "exits-at-once": lambda handle: faults.exit_at_once(handle, 4),
        "stopped": faults.stop,
        "spins": lambda handle: faults.spin(handle, 600.0),
        "holds-the-gil": lambda handle: faults.hold_gil(handle, 600.0),
    }
    if launcher == "spawn":  # every process is an interpreter to start
        ends = {name: ends[name] for name in ("killed", "exits", "holds-the-gil")}
    async with Neighbourhood(tmp_path, launcher=launcher, supervision=SHORT) as n:
        handles = {name: await n.add(Scribe(tmp_path / name), name=name) for name in ends}
        removed = await n.add(Scribe(tmp_path / "removed"), name="removed")
        blocks = BlocksWithChildren(tmp_path / "blocks")
        await n.add(blocks, name="blocks")
        children = []
        for handle in (*handles.values(), removed):
            faults.start_children(handle, 600.0)
            children += await asyncio.to_thread(_children_of, handle)
        for name, end in ends.items():
            end(handles[name])
        n.clock.remove_processor(removed)
        await removed.wait_stopped()
        for name in (*handles, "blocks"):
            await n.events.wait_for(WorkerDied, worker=name)
            await n.events.wait_for(WorkerReady, worker=name, incarnation=2)
        pids = [int(line) for line in blocks.path.read_text().splitlines()]
        assert len(pids) == 2
        children += [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
        assert not await asyncio.to_thread(wait_for_ends, children, 2.0)


def _children_of(handle: WorkerHandle) -> list[psutil.Process]:
    """Wait for the two children of a worker; return them."""
    worker = psutil.Process(handle.pid)
    wait_until(lambda: len(worker.children()) == 2, 10.0)
    return worker.children()


@row(14)
@pytest.mark.parametrize("whole", [False, True], ids=["one-by-one", "with-the-clock"])
def test_a_worker_that_is_starting_or_between_two_starts_is_stopped_at_once_and_for_good(
    tmp_path: Path, launcher: str, whole: bool
) -> None:
    run(_stops(tmp_path, launcher, whole))


def _spec(kind: type[TickProcessor]) -> ProcessorSpec:
    return ProcessorSpec(target=f"{kind.__module__}:{kind.__name__}")


async def _stops(tmp_path: Path, launcher: str, whole: bool) -> None:
    patient = Supervision(backoff=BackoffPolicy(minimum=300.0, maximum=300.0))
    restless = Supervision(
        backoff=BackoffPolicy(minimum=0.05, maximum=0.05),
        budget=RestartBudget(max_restarts=1000),
    )
    async with Neighbourhood(tmp_path, launcher=launcher) as n:
        starting = await n.add(_spec(SlowToMake), ready=False, name="starting")
        waiting = await n.add(_spec(CannotBeMade), ready=False, name="waiting", supervision=patient)
        looping = await n.add(
            _spec(CannotBeMade), ready=False, name="looping", supervision=restless
        )
        just_added = await n.add(_spec(SlowToMake), ready=False, name="just added")
        handles = [starting, waiting, looping, just_added]
        await n.events.wait_for(WorkerBackingOff, worker="waiting", count=2)
        await n.events.wait_for(WorkerStarting, worker="looping", count=4)
        assert starting.status is WorkerStatus.STARTING
        assert waiting.status is WorkerStatus.BACKOFF
        began = time.monotonic()
        if whole:
            await n.leave()
        else:
            for handle in handles:
                n.clock.remove_processor(handle)
            for handle in handles:
                await handle.wait_stopped()
        assert time.monotonic() - began < AT_ONCE
        count = len(n.events.of(WorkerStarting))
        if not whole:
            await n.run_for(1.0)
        assert len(n.events.of(WorkerStarting)) == count
        for handle in handles:
            assert (handle.status, handle.pid) == (WorkerStatus.STOPPED, None)
            assert len(n.events.of(WorkerStopped, worker=handle.name)) == 1
        assert not n.events.of(WorkerDied, worker="starting")


class ShiftedTime(SystemTime):
    """The machine's clocks, the wall clock of which can be set."""

    def __init__(self) -> None:
        self.shift = 0.0

    def wall(self) -> float:
        return super().wall() + self.shift


@pytest.mark.quiet
@row(15)
@pytest.mark.parametrize("shift", [-3600.0, 3600.0], ids=["set-back", "set-forward"])
def test_setting_the_wall_clock_moves_neither_a_tick_nor_a_timer(
    tmp_path: Path, launcher: str, shift: float
) -> None:
    run(_wall_clock(tmp_path, launcher, shift))


async def _wall_clock(tmp_path: Path, launcher: str, shift: float) -> None:
    timing = ShiftedTime()
    delay = 2.0
    backoff = BackoffPolicy(minimum=delay, maximum=delay, jitter=0.0)
    policy = Supervision(backoff=backoff, loop_stall_timeout=1.5)
    async with Neighbourhood(tmp_path, launcher=launcher, supervision=policy, timing=timing) as n:
        seen: list[tuple[float, Event]] = []
        n.clock.events.subscribe(lambda event: seen.append((time.monotonic(), event)))
        waiting = await n.add(Scribe(tmp_path / "waiting"), name="waiting")
        stalling = await n.add(Scribe(tmp_path / "stalling"), name="stalling")
        for incarnation in (1, 2):
            await n.events.wait_for(WorkerReady, worker="waiting", incarnation=incarnation)
            faults.kill(waiting)
        backing_off = await n.events.wait_for(WorkerBackingOff, worker="waiting", count=2)
        assert backing_off.delay == delay
        blocked = time.monotonic()
        faults.block_loop(stalling, 600.0)
        await n.ticks(2)
        began, count = time.monotonic(), len(n.published)
        timing.shift = shift
        await n.ticks(20)
        took = time.monotonic() - began
        assert took == pytest.approx(20 * n.tick_size, abs=3 * n.tick_size)
        await n.events.wait_for(WorkerReady, worker="waiting", incarnation=3)
        await n.events.wait_for(WorkerReady, worker="stalling", incarnation=2)

        def when(kind: type[Event], worker: str, number: int) -> float:
            found = [at for at, e in seen if isinstance(e, kind) and e.worker == worker]
            return found[number - 1]

        waited = when(WorkerStarting, "waiting", 3) - when(WorkerBackingOff, "waiting", 2)
        assert delay - 0.01 < waited < delay + 0.5
        found = when(WorkerDied, "stalling", 1) - blocked
        assert policy.loop_stall_timeout - policy.beat_interval < found < 3.5
        (death,) = n.events.of(WorkerDied, worker="stalling")
        assert death.reason is DeathReason.LOOP_BLOCKED
        assert len(n.published) > count
        assert n.clock.position.skipped <= 2  # a busy machine may cost one, the shift none
    gaps = [later - earlier for earlier, later in pairwise(n.published)]
    assert n.tick_size - 1e-5 < min(gaps) <= max(gaps) < 3 * n.tick_size + 1e-5
