"""Rows 1 to 4 of the table of faults: a worker's process ends, or never gets to work."""

from __future__ import annotations

import itertools
import logging
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from chronopype_mp import (
    ProcessorSpec,
    RestartBudget,
    RestartType,
    Supervision,
    WorkerHandle,
    WorkerStatus,
)
from chronopype_mp.events import (
    DeathReason,
    ProcessorFailed,
    WorkerDied,
    WorkerQuarantined,
    WorkerReady,
    WorkerStarting,
    WorkerStopped,
)
from chronopype_mp.exceptions import WorkerError
from chronopype_mp.testing import faults
from tests.system.clocks import run
from tests.system.neighbours import QUICK, SHORT, Neighbourhood, row
from tests.system.processors import Scribe
from tests.system.victims import CannotBeLoaded, DiesInTick, LastWords


@row(1, "forkserver", "spawn")
def test_a_worker_that_is_killed_is_ready_again_as_another_process(
    tmp_path: Path, launcher: str
) -> None:
    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=SHORT) as n:
            victim = await n.add(Scribe(tmp_path / "victim"), name="victim")
            pids = {victim.pid}
            for incarnation in (1, 2, 3):
                await n.ticks(3)
                killed = faults.kill(victim)
                death = await n.events.wait_for(WorkerDied, worker="victim", count=incarnation)
                assert (death.pid, death.incarnation) == (killed, incarnation)
                assert (death.reason, death.signal) == (DeathReason.SIGNALLED, "SIGKILL")
                assert death.exitcode == -signal.SIGKILL
                assert victim.last_failure == death
                ready = await n.events.wait_for(
                    WorkerReady, worker="victim", incarnation=incarnation + 1
                )
                assert victim.status is WorkerStatus.READY
                assert victim.pid == ready.pid
                assert victim.pid not in pids
                pids.add(victim.pid)
            assert (victim.incarnation, victim.restarts) == (4, 3)
            await n.ticks(3)

    run(scenario())


def _by_itself(handle: WorkerHandle) -> None:
    """Its first tick does it."""


ENDS: dict[str, tuple[Callable[[WorkerHandle], None], DeathReason, int]] = {
    "exit-0": (lambda handle: faults.exit_in_hook(handle, 0), DeathReason.EXITED, 0),
    "exit-3": (lambda handle: faults.exit_in_hook(handle, 3), DeathReason.EXITED, 3),
    "uncaught": (_by_itself, DeathReason.EXITED, 1),
    "os-exit": (lambda handle: faults.exit_at_once(handle, 4), DeathReason.EXITED, 4),
    "segfault": (faults.crash, DeathReason.SIGNALLED, -signal.SIGSEGV),
}


@pytest.mark.alone
@row(2, "forkserver", "spawn")
def test_the_restart_type_and_the_way_of_ending_decide_whether_a_worker_comes_back(
    tmp_path: Path, launcher: str
) -> None:
    run(_matrix(tmp_path, launcher))


async def _matrix(tmp_path: Path, launcher: str) -> None:
    pairs = list(itertools.product(RestartType, ENDS))
    if launcher == "spawn":  # each of both once, because every process is an interpreter to start
        pairs = list(zip(itertools.cycle(RestartType), ENDS, strict=False))
    async with Neighbourhood(tmp_path, launcher=launcher) as n:
        handles: dict[str, WorkerHandle] = {}
        for kind, end in pairs:
            policy = Supervision(restart=kind, stop_grace=2.0, backoff=QUICK)
            name = f"{kind.value} {end}"
            victim = DiesInTick if end == "uncaught" else Scribe
            handles[name] = await n.add(
                victim(tmp_path / name), ready=False, name=name, supervision=policy
            )
        for name in handles:
            await n.events.wait_for(WorkerReady, worker=name, timeout=60.0)
        for name, handle in handles.items():
            ENDS[name.split()[1]][0](handle)
        for name, handle in handles.items():
            kind, end = name.split()
            _, reason, exitcode = ENDS[end]
            death = await n.events.wait_for(WorkerDied, worker=name, timeout=60.0)
            assert (death.reason, death.exitcode) == (reason, exitcode), name
            if kind == "permanent" or (kind == "transient" and exitcode != 0):
                await n.events.wait_for(WorkerReady, worker=name, incarnation=2, timeout=60.0)
            else:
                await n.events.wait_for(WorkerStopped, worker=name)
                assert handle.pid is None
            if end == "uncaught":
                assert "Uncaught: nobody catches this" in (death.error or "")
            if end == "segfault":
                assert "in _crash" in (death.stacks or "")
        await n.run_for(0.5)
        for name, handle in handles.items():
            came_back = handle.status is WorkerStatus.READY
            assert came_back or handle.status is WorkerStatus.STOPPED
            assert len(n.events.of(WorkerDied, worker=name)) == 1
            assert len(n.events.of(WorkerStarting, worker=name)) == 1 + came_back


@row(3, "forkserver", "spawn")
@pytest.mark.parametrize(
    ("target", "error"),
    [
        (
            "tests.no_such_module:Nothing",
            "ModuleNotFoundError: No module named 'tests.no_such_module'",
        ),
        ("tests.system.victims:CannotBeMade", "LookupError: no such exchange"),
    ],
    ids=["import", "constructor"],
)
def test_a_processor_that_cannot_be_made_says_why_once_a_try_and_is_quarantined(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    launcher: str,
    target: str,
    error: str,
) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario() -> None:
        policy = Supervision(backoff=QUICK, budget=RestartBudget(max_restarts=2))
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=policy) as n:
            victim = await n.add(ProcessorSpec(target=target), ready=False, name="victim")
            await n.events.wait_for(WorkerQuarantined, worker="victim", timeout=30.0)
            assert victim.status is WorkerStatus.QUARANTINED
            await n.run_for(1.0)
            deaths = n.events.of(WorkerDied, worker="victim")
            assert [death.incarnation for death in deaths] == [1, 2, 3]
            assert len(n.events.of(WorkerStarting, worker="victim")) == 3
            for death in deaths:
                assert (death.reason, death.exitcode) == (DeathReason.START_FAILED, 1)
                assert str(death).count(error) == 1
                assert str(death).count("Traceback (most recent call last)") == 1
            assert not n.events.of(ProcessorFailed, worker="victim")

    run(scenario())
    told = [record for record in caplog.records if error in record.getMessage()]
    assert len(told) == 3


@pytest.mark.parametrize("launcher", ["forkserver", "spawn", "inline"])
def test_a_payload_that_no_worker_can_load_is_told_of_once_and_not_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, launcher: str
) -> None:
    async def scenario() -> None:
        policy = Supervision(backoff=QUICK, budget=RestartBudget(max_restarts=5))
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=policy) as n:
            victim = await n.add(CannotBeLoaded(), ready=False, name="victim")
            if launcher == "inline":  # it begins with the object itself
                await victim.wait_ready()
                with pytest.raises(WorkerError):
                    await victim.restart()
            quarantined = await n.events.wait_for(WorkerQuarantined, worker="victim")
            assert quarantined.detail is not None
            (death,) = n.events.of(WorkerDied, worker="victim")
            assert death.reason is DeathReason.START_FAILED
            assert str(death).count("LookupError: no such venue") == 1
            assert "in __setstate__" in str(death)
            with pytest.raises(WorkerError):
                await victim.wait_ready()
            first = death.incarnation
            await n.run_for(0.5)
            assert victim.status is WorkerStatus.QUARANTINED
            with pytest.raises(WorkerError):
                await victim.restart()
            await n.events.wait_for(WorkerQuarantined, worker="victim", count=2)
            deaths = n.events.of(WorkerDied, worker="victim")
            assert [death.incarnation for death in deaths] == [first, first + 1]

    run(scenario())
    assert "it cannot load its processor" in caplog.text


@row(4, "forkserver", "spawn")
def test_what_a_worker_reports_just_before_it_exits_is_not_lost(
    tmp_path: Path, launcher: str
) -> None:
    async def scenario() -> None:
        settings = {"launcher": launcher, "supervision": SHORT, "max_retries": 0}
        async with Neighbourhood(tmp_path, **settings) as n:
            await n.add(LastWords(tmp_path / "victim"), ready=False, name="victim")
            await n.add(DiesInTick(tmp_path / "fatal"), ready=False, name="fatal")
            for incarnation in range(1, 9):
                death = await n.events.wait_for(
                    WorkerDied, worker="victim", incarnation=incarnation
                )
                assert (death.reason, death.exitcode) == (DeathReason.EXITED, 3)
                (failure,) = n.events.of(ProcessorFailed, worker="victim", incarnation=incarnation)
                assert failure.message == f"last words of {death.pid}"
                assert n.events.events.index(failure) < n.events.events.index(death)
            fatal = await n.events.wait_for(WorkerDied, worker="fatal")
            assert "Uncaught: nobody catches this" in (fatal.error or "")

    run(scenario())
