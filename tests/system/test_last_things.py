"""How a process ends that has threads, tasks or children to hold it up, and what is told of it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chronopype_mp import ConfigError, RestartType, Supervision, TickProcessor, WorkerStatus
from chronopype_mp.events import (
    DeathReason,
    ProcessorFailed,
    WorkerDied,
    WorkerReady,
    WorkerStopped,
)
from chronopype_mp.testing import faults
from tests.system.clocks import Watched, run
from tests.system.neighbours import SHORT
from tests.system.processors import Network
from tests.system.victims import FOR_EVER
from tests.waiting import running


class HasThread(TickProcessor):
    """Has a thread that Python would wait for."""

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        threading.Thread(target=time.sleep, args=(FOR_EVER,)).start()


class ExitsWithThread(HasThread):
    """Exits in its first tick."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status

    def tick(self, timestamp: float) -> None:
        sys.exit(self.status)


class Interrupts(TickProcessor):
    """Raises what no handler of errors catches, from its tick."""

    def tick(self, timestamp: float) -> None:
        raise KeyboardInterrupt("from a tick")


class ManyThreads(TickProcessor):
    """Has more threads than faulthandler shows, and more frames than fit into a dossier."""

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        for _ in range(150):
            threading.Thread(target=self.descend, args=(40,), daemon=True).start()

    def descend(self, depth: int) -> None:
        if depth:
            self.descend(depth - 1)
        else:
            time.sleep(FOR_EVER)


@pytest.mark.parametrize(
    ("status", "restart", "restarted"),
    [(3, RestartType.PERMANENT, True), (0, RestartType.TRANSIENT, False)],
)
def test_a_thread_keeps_no_process_from_exiting_with_its_status(
    status: int, restart: RestartType, restarted: bool
) -> None:
    async def scenario() -> None:
        watched = Watched(supervision=SHORT.model_copy(update={"restart": restart}))
        async with watched.clock as clock:
            handle = clock.add_processor(ExitsWithThread(status), name="a")
            await handle.wait_ready()
            async with running(clock):
                death = await watched.events.wait_for(WorkerDied, worker="a")
                assert (death.reason, death.exitcode) == (DeathReason.EXITED, status)
                if restarted:
                    await watched.events.wait_for(WorkerReady, worker="a", incarnation=2)
                else:
                    await watched.events.wait_for(WorkerStopped, worker="a")

    run(scenario())


def test_an_interrupt_from_a_tick_is_explained() -> None:
    async def scenario() -> None:
        watched = Watched(supervision=SHORT.model_copy(update={"restart": RestartType.TEMPORARY}))
        async with watched.clock as clock:
            handle = clock.add_processor(Interrupts(), name="a")
            await handle.wait_ready()
            async with running(clock):
                death = await watched.events.wait_for(WorkerDied, worker="a")
                assert (death.reason, death.error_type) == (DeathReason.EXITED, "KeyboardInterrupt")
                assert "in tick" in (death.error or "")

    run(scenario())


def test_a_thread_makes_no_orderly_stop_a_failure() -> None:
    async def scenario() -> None:
        watched = Watched(supervision=SHORT)
        async with watched.clock as clock:
            handle = clock.add_processor(HasThread(), name="a")
            await handle.wait_ready()
        assert handle.status is WorkerStatus.STOPPED
        assert not watched.events.of(WorkerDied)

    run(scenario())


def test_of_more_stacks_than_a_dossier_takes_the_culprits_is_kept() -> None:
    async def scenario() -> None:
        watched = Watched(supervision=SHORT)
        async with watched.clock as clock:
            handle = clock.add_processor(ManyThreads(), name="a")
            await handle.wait_ready()
            faults.block_loop(handle, FOR_EVER)
            death = await watched.events.wait_for(WorkerDied, worker="a")
            assert death.reason is DeathReason.LOOP_BLOCKED
            assert "_block_loop" in (death.stacks or "")

    run(scenario())


class Blocks(TickProcessor):
    """Stands still for ever in ``where``, in the way of ``how``."""

    def __init__(self, where: str, how: Callable[[], object]) -> None:
        super().__init__()
        self.where = where
        self.how = how

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        if self.where == "start":
            self.how()

    def stop(self) -> None:
        self.how()


def sleep() -> None:
    time.sleep(FOR_EVER)


def hold_gil() -> None:
    ctypes.PyDLL(None).usleep(int(FOR_EVER * 1e6))


def stop_itself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.parametrize(
    ("where", "late"),
    [("start", DeathReason.START_FAILED), ("stop", DeathReason.STOP_TIMEOUT)],
)
def test_what_holds_up_a_start_or_a_stop_is_shown_by_its_stack_unless_it_is_a_signal(
    where: str, late: DeathReason
) -> None:
    async def scenario() -> None:
        policy = Supervision(start_timeout=2.0, stop_grace=1.0, restart=RestartType.TEMPORARY)
        watched = Watched(supervision=policy)
        async with watched.clock as clock:
            handles = {
                how.__name__: clock.add_processor(Blocks(where, how), name=how.__name__)
                for how in (sleep, hold_gil, stop_itself)
            }
            if where == "stop":
                for handle in handles.values():
                    await handle.wait_ready()
                for handle in handles.values():
                    clock.remove_processor(handle)
            deaths = {
                name: await watched.events.wait_for(WorkerDied, worker=name) for name in handles
            }
        stopped = deaths.pop("stop_itself")
        assert stopped.reason is DeathReason.STOPPED
        assert stopped.stacks is None
        assert "SIGSTOP" in (stopped.detail or "")
        for name, death in deaths.items():
            assert death.reason is late, name
            assert re.search(rf"in (Blocks\.)?{where}\n", death.stacks or ""), name

    run(scenario())


def test_a_fault_that_makes_no_sense_is_refused_by_name() -> None:
    async def scenario() -> None:
        watched = Watched(supervision=SHORT)
        async with watched.clock as clock:
            handle = clock.add_processor(TickProcessor(), name="a")
            await handle.wait_ready()
            with pytest.raises(ConfigError, match=r"faults\.hold_gil.*'x'"):
                faults.hold_gil(handle, "x")  # type: ignore[arg-type]
            with pytest.raises(ConfigError, match=r"faults\.exit_at_once.*300.*at most 255"):
                faults.exit_at_once(handle, 300)
            with pytest.raises(ConfigError, match=r"faults\.exit_in_hook.*-1"):
                faults.exit_in_hook(handle, -1)

    run(scenario())


class HangingCheck(Network):
    """Its check takes too long, always."""

    check_network_timeout = 0.1

    async def check_network(self) -> None:  # type: ignore[override]
        await asyncio.sleep(FOR_EVER)


def test_the_last_error_of_the_network_is_in_the_dossier_of_its_process_only(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        watched = Watched(supervision=SHORT)
        async with watched.clock as clock:
            handle = clock.add_processor(HangingCheck(tmp_path / "a"), name="a")
            await watched.events.wait_for(WorkerReady, worker="a")
            await watched.events.wait_for(ProcessorFailed, worker="a", hook="check_network")
            faults.kill(handle)
            death = await watched.events.wait_for(WorkerDied, worker="a")
            assert "check_network: HookTimeout" in (death.network_error or "")
            assert death.rss > 0
            assert handle._record.network_error_of(death.incarnation + 1) is None

    run(scenario())
