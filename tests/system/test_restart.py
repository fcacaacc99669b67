"""Workers that die come back, as they were added, until their budget is spent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from chronopype_mp import (
    ProcessorSpec,
    RestartBudget,
    Supervision,
    TickProcessor,
    WorkerError,
    WorkerStatus,
)
from chronopype_mp.events import (
    DeathReason,
    WorkerDied,
    WorkerQuarantined,
    WorkerReady,
    WorkerStarting,
)
from tests.system.clocks import Watched, closes, run
from tests.system.neighbours import QUICK
from tests.system.processors import Scribe
from tests.system.scripts import wait_for_ends


def lines_of(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().splitlines()]


class Counter(Scribe):
    """Notes how many ticks this incarnation has run."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.count = 100

    def tick(self, timestamp: float) -> None:
        self.count += 1
        self.note(str(self.count))


def test_after_a_kill_a_worker_is_ready_again_and_starts_from_the_state_it_was_added_with(
    tmp_path: Path,
) -> None:
    run(_kill(tmp_path / "counts"))


async def _kill(path: Path) -> None:
    watched = Watched()
    async with watched.clock as clock:
        counter = Counter(path)
        handle = clock.add_processor(counter, name="a")
        vars(counter)["count"] = 0  # what the owner's object becomes later does not travel
        await handle.wait_ready()
        first = handle.pid
        assert first is not None
        await watched.run_for(0.5)
        os.kill(first, signal.SIGKILL)
        ready = await watched.events.wait_for(WorkerReady, worker="a", incarnation=2)
        assert handle.status is WorkerStatus.READY
        assert (handle.incarnation, handle.restarts) == (2, 1)
        assert handle.pid == ready.pid != first
        await watched.run_for(0.5)
    counts = lines_of(path)
    assert counts.count(101) == 2
    assert max(counts) < 130
    assert closes(handle)


class ExitAtOnce(TickProcessor):
    """Cannot start."""

    def start(self, timestamp: float) -> None:
        raise RuntimeError("no way to start")


def test_a_worker_that_uses_up_its_budget_is_quarantined_and_an_operator_brings_it_back(
    tmp_path: Path,
) -> None:
    run(_quarantine(tmp_path))


async def _quarantine(tmp_path: Path) -> None:
    policy = Supervision(backoff=QUICK, budget=RestartBudget(max_restarts=2, window=60.0))
    watched = Watched(supervision=policy)
    async with watched.clock as clock:
        handle = clock.add_processor(Scribe(tmp_path / "ticks"), name="a")
        neighbour = clock.add_processor(Scribe(tmp_path / "b"), name="b")
        for incarnation in (1, 2, 3):
            ready = await watched.events.wait_for(WorkerReady, worker="a", incarnation=incarnation)
            os.kill(ready.pid, signal.SIGKILL)
        await watched.events.wait_for(WorkerQuarantined, worker="a")
        assert handle.status is WorkerStatus.QUARANTINED
        assert len(watched.events.of(WorkerDied, worker="a")) == 3
        with pytest.raises(WorkerError, match="QUARANTINED"):
            await handle.wait_ready()
        await handle.restart()
        assert handle.status is WorkerStatus.READY
        assert neighbour.restarts == 0


def test_a_processor_that_cannot_start_says_why_once_a_try_and_ends_in_quarantine() -> None:
    run(_cannot_start())


async def _cannot_start() -> None:
    policy = Supervision(backoff=QUICK, budget=RestartBudget(max_restarts=1, window=60.0))
    watched = Watched(supervision=policy)
    async with watched.clock as clock:
        clock.add_processor(ExitAtOnce(), name="a")
        await watched.events.wait_for(WorkerQuarantined, worker="a")
    deaths = watched.events.of(WorkerDied, worker="a")
    assert len(deaths) == 2
    assert all("no way to start" in (death.error or "") for death in deaths)
    assert "Traceback" in str(deaths[0])


def test_a_spec_that_names_nothing_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        policy = Supervision(backoff=QUICK, budget=RestartBudget(max_restarts=0))
        watched = Watched(supervision=policy)
        async with watched.clock as clock:
            spec = ProcessorSpec(target="tests.no_such_module:Nothing")
            clock.add_processor(spec, name="a")
            death = await watched.events.wait_for(WorkerDied, worker="a")
            assert "No module named 'tests.no_such_module'" in (death.error or "")

    run(scenario())


class BlocksWithChild(Scribe):
    """Starts a child, then blocks its event loop."""

    def tick(self, timestamp: float) -> None:
        for new_session in (False, True):
            child = subprocess.Popen(
                [sys.executable, "-c", "import time; time.sleep(300)"],
                start_new_session=new_session,
            )
            self.note(str(child.pid))
        print("about to block", flush=True)
        time.sleep(300)  # the fault under test


def test_a_worker_whose_loop_stops_turning_is_killed_with_its_children(tmp_path: Path) -> None:
    run(_stall(tmp_path / "pids"))


async def _stall(path: Path) -> None:
    watched = Watched(supervision=Supervision(loop_stall_timeout=1.0, backoff=QUICK))
    async with watched.clock as clock:
        clock.add_processor(BlocksWithChild(path), name="a")
        await watched.events.wait_for(WorkerReady, worker="a")
        await watched.run_for(0.2)
        death = await watched.events.wait_for(WorkerDied, worker="a")
        assert death.reason is DeathReason.LOOP_BLOCKED
        assert death.output == ("about to block",)
        await watched.events.wait_for(WorkerReady, worker="a", incarnation=2)
    children = [psutil.Process(pid) for pid in lines_of(path) if psutil.pid_exists(pid)]
    assert not wait_for_ends(children, 5.0)


class Exits(TickProcessor):
    """Leaves the process in its first tick, after some last words."""

    def tick(self, timestamp: float) -> None:
        print("last words", flush=True)
        raise SystemExit(3)


def test_a_worker_that_exits_is_restarted_and_its_last_output_is_in_the_event() -> None:
    async def scenario() -> None:
        watched = Watched(supervision=Supervision(backoff=QUICK))
        async with watched.clock as clock:
            handle = clock.add_processor(Exits(), name="a")
            await handle.wait_ready()
            await watched.run_for(0.3)
            death = await watched.events.wait_for(WorkerDied, worker="a")
            assert (death.reason, death.exitcode) == (DeathReason.EXITED, 3)
            assert death.output == ("last words",)
            await watched.events.wait_for(WorkerReady, worker="a", incarnation=2)
        assert closes(handle)

    run(scenario())


def test_a_stop_while_a_worker_starts_leaves_it_stopped() -> None:
    async def scenario() -> None:
        watched = Watched()
        async with watched.clock as clock:
            handle = clock.add_processor(TickProcessor(), name="a")
            assert handle.status is WorkerStatus.STARTING
            clock.remove_processor(handle)
            await handle.wait_stopped()
            assert handle.status is WorkerStatus.STOPPED
        assert len(watched.events.of(WorkerStarting)) == 1

    run(scenario())
