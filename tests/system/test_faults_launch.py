"""Rows 17, 21, 28 and 29 of the table of faults: processes that do not start, or do not end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from chronopype_mp import ProcessorSpec, TickProcessor, WorkerHandle, WorkerStatus
from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.events import (
    DeathReason,
    WorkerDied,
    WorkerReady,
    WorkerStarting,
    WorkerStopped,
    WorkerUnkillable,
)
from chronopype_mp.launchers import ForkserverLauncher, Gap, WorkerProcess
from chronopype_mp.testing import faults
from chronopype_mp.transport.base import Hub
from tests.system.clocks import Watched, eventually, run
from tests.system.neighbours import SHORT, Neighbourhood, row
from tests.system.processors import Scribe
from tests.system.scripts import Scripts
from tests.system.victims import FOR_EVER, SlowToMake

ROOT = Path(__file__).parents[2]


class StartsForEver(TickProcessor):
    """Does not come back from `start`."""

    def start(self, timestamp: float) -> None:
        time.sleep(FOR_EVER)  # the fault under test


@row(21)
@pytest.mark.parametrize("when", ["at once", "in the constructor", "in start"])
def test_a_shutdown_while_workers_start_leaves_no_orphan_and_does_not_hang(
    tmp_path: Path, launcher: str, when: str
) -> None:
    async def scenario() -> None:
        async with Neighbourhood(tmp_path, launcher=launcher, supervision=SHORT) as n:
            await n.ticks(3)
            target = StartsForEver if when == "in start" else SlowToMake
            victims = [
                await n.add(ProcessorSpec(target=target), name=f"victim-{i}", ready=False)
                for i in range(5)
            ]
            if when != "at once":
                await eventually(lambda: all(is_asleep(victim) for victim in victims))
            assert all(victim.status is WorkerStatus.STARTING for victim in victims)
            processes = [psutil.Process(v.pid) for v in victims if v.pid is not None]
            assert len(processes) == (0 if when == "at once" else 5)
            began = time.monotonic()
            await n.leave()
            assert time.monotonic() - began < SHORT.stop_grace
            for victim in victims:
                assert victim.status is WorkerStatus.STOPPED
                assert len(n.events.of(WorkerStarting, worker=victim.name)) == 1
                assert len(n.events.of(WorkerStopped, worker=victim.name)) == 1
                assert not n.events.of(WorkerDied, worker=victim.name)
            assert not any(process.is_running() for process in processes)

    run(scenario())


def is_asleep(victim: WorkerHandle) -> bool:
    """Whether a worker's process is there and waits for time to pass, in `time.sleep`."""
    if victim.pid is None:
        return False
    try:
        return "nanosleep" in Path(f"/proc/{victim.pid}/wchan").read_text()
    except OSError:
        return False


IN_A_SCRIPT = """
import asyncio, ctypes, json, os, resource, signal, sys
from pathlib import Path

import multiprocess.forkserver
import psutil

from chronopype_mp import RestartBudget, WorkerStatus
from chronopype_mp.events import WorkerDied, WorkerReady
from chronopype_mp.testing import faults
from tests.system.clocks import Watched, closes, eventually
from tests.system.neighbours import SHORT, Neighbourhood
from tests.system.processors import Scribe, ran, ticks_in

def server():
    return multiprocess.forkserver._forkserver._forkserver_pid

def lives(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

directory = Path.cwd()
"""

NO_MORE_PROCESSES = (
    IN_A_SCRIPT
    + """
# Root, and who has one of these two capabilities, may have any number of processes. What is
# executed from here on, such as the forkserver, is neither; its files are root's still.
PR_CAPBSET_DROP, CAP_SYS_ADMIN, CAP_SYS_RESOURCE = 24, 21, 24
for capability in (CAP_SYS_ADMIN, CAP_SYS_RESOURCE):
    assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0
os.setresuid(65534, 0, 0)
resource.setrlimit(resource.RLIMIT_NPROC, (200, 200))

# Takes all that are left, and those that become free.
HOG = '''
import threading, time
for_ever, full = threading.Event(), False
while True:
    try:
        threading.Thread(target=for_ever.wait, daemon=True).start()
    except RuntimeError:
        if not full:
            print("full", flush=True)
        full = True
        time.sleep(0.0002)
'''

async def main():
    async with Neighbourhood(directory, launcher=sys.argv[1], supervision=SHORT) as n:
        victim = await n.add(Scribe(directory / "victim"), name="victim")
        all_there = lambda: len(psutil.Process(server()).children()) == len(n.neighbours) + 2
        await eventually(all_there)  # the process in reserve, too
        before = server(), psutil.Process(server()).num_fds()
        hog = await asyncio.create_subprocess_exec(
            sys.executable, "-c", HOG, stdout=asyncio.subprocess.PIPE
        )
        await hog.stdout.readline()
        faults.kill(victim)
        deaths = lambda: n.events.of(WorkerDied, worker="victim")
        await eventually(deaths)
        for _ in range(15):
            died = len(deaths())
            await eventually(lambda: len(deaths()) > died or victim.status is WorkerStatus.READY)
            if any("could not fork" in (death.error or "") for death in deaths()):
                break
            if len(deaths()) == died:
                faults.kill(victim)  # its start was faster than the hog
                await eventually(lambda: len(deaths()) > died)
        await n.ticks(3)
        hog.kill()
        await hog.wait()
        await eventually(lambda: victim.status is WorkerStatus.READY)
        await n.ticks(5)
        await eventually(all_there)
        deaths = n.events.of(WorkerDied, worker="victim")
        print("report " + json.dumps({
            "reasons": [death.reason.value for death in deaths],
            "errors": [death.error or "" for death in deaths],
            "same server": (server(), psutil.Process(server()).num_fds()) == before,
        }), flush=True)

asyncio.run(main())
"""
)


def report_of(scripts: Scripts, source: str, launcher: str) -> dict[str, object]:
    script = scripts.start(source, launcher, PYTHONPATH=str(ROOT))
    return script.report()


@row(17)
def test_a_fork_that_fails_in_the_forkserver_is_tried_again_and_kills_nobody(
    scripts: Scripts, launcher: str
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    report = report_of(scripts, NO_MORE_PROCESSES, launcher)
    reasons = report["reasons"]
    assert isinstance(reasons, list)
    assert reasons[0] == DeathReason.SIGNALLED.value
    assert set(reasons) == {DeathReason.SIGNALLED.value, DeathReason.START_FAILED.value}
    assert "could not fork" in str(report["errors"])
    assert report["same server"]


SERVER_KILLED = (
    IN_A_SCRIPT
    + """
async def main():
    watched = Watched(tick_size=0.1, launcher=sys.argv[1], supervision=SHORT)
    async with watched.clock as clock:
        handles = [clock.add_processor(Scribe(directory / f"w{i}"), name=f"w{i}") for i in range(5)]
        for handle in handles:
            await handle.wait_ready()
        running = asyncio.create_task(clock.run())
        await watched.ticks(5)
        old = server(), {handle.pid for handle in handles}
        os.kill(old[0], signal.SIGKILL)
        for handle in handles:
            await watched.events.wait_for(WorkerDied, worker=handle.name)
        await eventually(lambda: all(
            h.restarts and h.status is WorkerStatus.READY for h in handles
        ), 20.0)
        await eventually(lambda: not any(lives(pid) for pid in old[1]))
        await watched.ticks(10)
        print("report " + json.dumps({
            "new server": server() != old[0],
            "new pids": not old[1] & {handle.pid for handle in handles},
            "deaths": [[death.reason.value, death.pid] for death in watched.events.of(WorkerDied)],
            "skipped": clock.position.skipped,
        }), flush=True)
        running.cancel()
    assert all(closes(handle) for handle in handles)
    for handle in handles:
        last = [at for at in ticks_in(directory / handle.name) if at >= watched.published[-10]]
        assert ran(last, watched.published[-10:])

asyncio.run(main())
"""
)


@row(28)
def test_when_the_forkserver_is_killed_it_is_started_anew_and_so_are_the_workers(
    scripts: Scripts, launcher: str
) -> None:
    report = report_of(scripts, SERVER_KILLED, launcher)
    assert report["new server"]
    assert report["new pids"]
    assert report["skipped"] == 0
    deaths = report["deaths"]
    assert isinstance(deaths, list)
    ended = [reason for reason, pid in deaths if pid is not None]
    assert len(ended) == 5
    assert set(ended) <= {DeathReason.SIGNALLED.value, DeathReason.EXITED.value}


SERVER_STOPPED = (
    IN_A_SCRIPT
    + """
async def main():
    watched = Watched(tick_size=0.1, launcher=sys.argv[1], supervision=SHORT)
    async with watched.clock as clock:
        first = clock.add_processor(Scribe(directory / "first"), name="first")
        await first.wait_ready()
        old = server(), first.pid
        os.kill(old[0], signal.SIGSTOP)
        second = clock.add_processor(Scribe(directory / "second"), name="second")
        await second.wait_ready()
        report = {"same": (server(), first.pid) == old}
        os.kill(old[0], signal.SIGSTOP)
        os.kill(second.pid, signal.SIGKILL)
        await watched.events.wait_for(WorkerReady, worker="second", incarnation=2)
        os.kill(old[0], signal.SIGSTOP)
        third = clock.add_processor(Scribe(directory / "third"), name="third")
    report["statuses"] = [handle.status.name for handle in (first, second, third)]
    report["deaths"] = len(watched.events.of(WorkerDied))
    print("report " + json.dumps(report), flush=True)

asyncio.run(main())
"""
)


@row(28)
def test_when_the_forkserver_was_stopped_it_is_made_to_go_on(
    scripts: Scripts, launcher: str
) -> None:
    assert report_of(scripts, SERVER_STOPPED, launcher) == {
        "same": True,
        "statuses": ["STOPPED"] * 3,
        "deaths": 1,
    }


class HangsInTheKernel(ForkserverLauncher):
    """A process of the worker "victim" cannot be killed before `release` was called."""

    def __init__(self) -> None:
        super().__init__()
        self.process: WorkerProcess | None = None

    async def start(
        self, boot: WorkerBoot, hub: Hub, original: TickProcessor | None, gap: Gap
    ) -> WorkerProcess:
        process = await super().start(boot, hub, original, gap)
        if boot.worker == "victim" and self.process is None:
            self.process = process
            process.kill = lambda stacks_within=0.0: None  # type: ignore[method-assign]
            process.terminate = lambda: None  # type: ignore[method-assign]
        return process

    def release(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)


@row(29)
def test_an_unkillable_process_is_told_of_once_and_waited_for_while_the_rest_goes_on(
    tmp_path: Path, launcher: str
) -> None:
    async def scenario() -> None:
        hangs = HangsInTheKernel()
        async with Neighbourhood(tmp_path, launcher=hangs, supervision=SHORT) as n:
            victim = await n.add(Scribe(tmp_path / "victim"), name="victim")
            pid = victim.pid
            faults.stop(victim)
            told = await n.events.wait_for(WorkerUnkillable, worker="victim")
            assert (told.incarnation, told.pid) == (1, pid)
            other = await n.add(Scribe(tmp_path / "other"), name="other")
            faults.kill(other)
            await n.events.wait_for(WorkerReady, worker="other", incarnation=2)
            await n.run_for(2.0)
            assert victim.pid == pid
            assert not n.events.of(WorkerDied, worker="victim")
            hangs.release()
            death = await n.events.wait_for(WorkerDied, worker="victim")
            assert (death.reason, death.signal) == (DeathReason.STOPPED, "SIGKILL")
            await n.events.wait_for(WorkerReady, worker="victim", incarnation=2)
            assert len(n.events.of(WorkerUnkillable)) == 1

    run(scenario())


@row(29)
def test_an_unkillable_process_bounds_the_exit_of_its_clock_and_is_named(
    tmp_path: Path, launcher: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        hangs = HangsInTheKernel()
        watched = Watched(launcher=hangs, supervision=SHORT)
        neighbours = [
            watched.clock.add_processor(Scribe(tmp_path / name), name=name) for name in ("a", "b")
        ]
        victim = watched.clock.add_processor(Scribe(tmp_path / "victim"), name="victim")
        async with watched.clock:
            for handle in (*neighbours, victim):
                await handle.wait_ready()
            await watched.run_for(0.5)
            faults.stop(victim)
            began = time.monotonic()
        took = time.monotonic() - began
        try:
            # stop_grace, the kill that does nothing, and REAP_GRACE beside it.
            assert took < SHORT.stop_grace + 5.0 + 1.0
            assert all(handle.restarts == 0 for handle in neighbours)
            assert [handle.status for handle in neighbours] == [WorkerStatus.STOPPED] * 2
        finally:
            hangs.release()
            with contextlib.suppress(psutil.NoSuchProcess):
                await asyncio.to_thread(psutil.Process(hangs.process.pid).wait, 5.0)

    with caplog.at_level(logging.ERROR, logger="chronopype_mp.coordinator"):
        run(scenario())
    gc.collect()  # closes the pipe to what was left behind
    assert "worker 'victim' cannot be killed; it is left behind" in caplog.messages
