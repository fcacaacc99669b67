"""Stalls that mislead: what blocked first is not the culprit, or there is none."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path

from chronopype_mp import Resources, RestartType, Supervision, TickProcessor
from chronopype_mp.events import DeathReason, WorkerDied
from chronopype_mp.testing import faults
from tests.system.clocks import Watched, run
from tests.system.processors import Scribe, ticks_in
from tests.system.victims import FOR_EVER
from tests.waiting import running


class BlocksTwice(TickProcessor):
    """Blocks its loop for a while, as it may, then for ever in the way of ``how``."""

    def __init__(self, how: Callable[[], object]) -> None:
        super().__init__()
        self.how = how

    def tick(self, timestamp: float) -> None:
        self.harmless()
        self.how()

    def harmless(self) -> None:
        time.sleep(1.2)  # the fault under test


def culprit_in_sleep() -> None:
    time.sleep(FOR_EVER)  # the fault under test


def culprit_with_gil() -> None:
    ctypes.PyDLL(None).usleep(int(FOR_EVER * 1e5))


def test_what_blocks_last_is_blamed_not_what_blocked_before() -> None:
    expected = {
        culprit_in_sleep: DeathReason.LOOP_BLOCKED,
        culprit_with_gil: DeathReason.GIL_STUCK,
    }

    async def scenario() -> None:
        policy = Supervision(loop_stall_timeout=3.0, stop_grace=1.0, restart=RestartType.TEMPORARY)
        watched = Watched(supervision=policy)
        async with watched.clock as clock:
            for how in expected:
                handle = clock.add_processor(BlocksTwice(how), name=how.__name__)
                await handle.wait_ready()
            async with running(clock):
                for how, reason in expected.items():
                    death = await watched.events.wait_for(WorkerDied, worker=how.__name__)
                    assert death.reason is reason
                    assert f"in {how.__name__}\n" in (death.stacks or "")
                    assert "in BlocksTwice.harmless\n" not in (death.stacks or "")

    run(scenario())


class Slow(Scribe):
    """Blocks its loop in every tick, for less than it may."""

    def tick(self, timestamp: float) -> None:
        super().tick(timestamp)
        time.sleep(1.0)  # the fault under test


def test_a_loop_that_turns_late_but_in_time_is_left_alone(tmp_path: Path) -> None:
    """Two beats may then be more than the deadline apart: the guard asks for one in between."""

    async def scenario() -> None:
        watched = Watched(supervision=Supervision(loop_stall_timeout=1.5))
        async with watched.clock as clock:
            handle = clock.add_processor(Slow(tmp_path / "ticks"), name="a")
            await handle.wait_ready()
            async with running(clock):
                await watched.ticks(45)
        assert not watched.events.of(WorkerDied)
        assert len(ticks_in(tmp_path / "ticks")) >= 3

    run(scenario())


class HasAChildThatCrashes(TickProcessor):
    """Forks a child that dies of a segmentation fault."""

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        pid = os.fork()
        if pid == 0:
            ctypes.string_at(0)
        os.waitpid(pid, 0)


def test_the_crash_of_a_forked_child_is_no_sign_of_the_workers() -> None:
    async def scenario() -> None:
        policy = Supervision(loop_stall_timeout=1.5, restart=RestartType.TEMPORARY)
        watched = Watched(supervision=policy)
        async with watched.clock as clock:
            handle = clock.add_processor(HasAChildThatCrashes(), name="a")
            await handle.wait_ready()
            faults.drop_reports(handle, 60.0)
            death = await watched.events.wait_for(WorkerDied, worker="a")
            assert (death.reason, death.exitcode) == (DeathReason.UNREACHABLE, 0)
            assert death.stacks is None

    run(scenario())


def test_a_worker_that_may_not_write_files_is_told_from_one_whose_gil_is_held() -> None:
    async def scenario() -> None:
        policy = Supervision(
            loop_stall_timeout=1.0,
            stop_grace=1.0,
            restart=RestartType.TEMPORARY,
            resources=Resources(rlimits={"FSIZE": 0}),
        )
        watched = Watched(supervision=policy)
        async with watched.clock as clock:
            handle = clock.add_processor(TickProcessor(), name="a")
            await handle.wait_ready()
            faults.block_loop(handle, FOR_EVER)
            death = await watched.events.wait_for(WorkerDied, worker="a")
            assert (death.reason, death.stacks) == (DeathReason.LOOP_BLOCKED, None)

    run(scenario())
