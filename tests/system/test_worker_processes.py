"""What launchers promise of a worker's process, without a coordinator."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import dill
import multiprocess.forkserver
import psutil
import pytest

from chronopype_mp import ProcessorSpec, TickProcessor
from chronopype_mp.core.boot import TickRules, WorkerBoot
from chronopype_mp.launchers import (
    ForkserverLauncher,
    InlineLauncher,
    Launcher,
    Look,
    SpawnLauncher,
    WorkerProcess,
)
from chronopype_mp.launchers import process as process_module
from chronopype_mp.transport.base import Hub
from chronopype_mp.transport.zeromq import ZmqHub
from tests.system.clocks import eventually, run
from tests.system.test_standby import forked

FOR_EVER = 9999.0
"""Seconds."""

ODD_NAME = "../a b/\N{SNOWMAN}"
"""A worker's name that must not become a file's."""


class HoldsTheGil(TickProcessor):
    """Holds the GIL from the moment it is made.

    Args:
        path: a file that is made just before.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        path.touch()
        ctypes.PyDLL(None).usleep(2_000_000_000)  # which a signal interrupts
        ctypes.PyDLL(None).usleep(2_000_000_000)


class OverTcp(ForkserverLauncher):
    """Its workers share no directory with the coordinator."""

    def make_hub(self, queued: int) -> ZmqHub:
        any_port = "tcp://127.0.0.1:*"
        return ZmqHub((any_port, any_port, any_port, any_port, any_port), queued=queued)


class Bench:
    """A launcher in use; each process that it starts is a worker of its own.

    Attributes:
        gaps: how long to put work off, seconds, until there are no more of them.
    """

    def __init__(self, launcher: Launcher, hub: Hub) -> None:
        self.launcher = launcher
        self.hub = hub
        self.pipes: list[int] = []
        self.gaps: list[float] = []

    async def start(
        self, target: type[TickProcessor] = TickProcessor, **options: object
    ) -> WorkerProcess:
        """Start a process; its output is not read."""
        boot = WorkerBoot(
            worker=ODD_NAME,
            incarnation=1,
            token=1,
            payload=dill.dumps(ProcessorSpec(target=target, options=options)),
            down=self.hub.down,
            up=self.hub.up,
            data_up=self.hub.data_up,
            messages_in=self.hub.messages_in,
            messages_out=self.hub.messages_out,
            rules=TickRules(processor_timeout=5.0, max_retries=0, stats_window_size=10),
            beat_interval=0.1,
            stop_grace=1.0,
            guard_interval=0.1,
            path=[os.fsencode(entry) for entry in sys.path],
            directory=os.getcwdb(),
            environment=dict(os.environb),
        )
        process = await self.launcher.start(boot, self.hub, None, self._gap)
        self.pipes += process.pipes or ()
        return process

    def _gap(self, work: float) -> float:
        return self.gaps.pop(0) if self.gaps else 0.0


@contextlib.asynccontextmanager
async def bench(launcher: Launcher) -> AsyncIterator[Bench]:
    b = Bench(launcher, launcher.open_hub(1000))
    try:
        yield b
    finally:
        for fd in b.pipes:
            os.close(fd)
        b.hub.close_publisher()
        b.hub.close()
        launcher.close()


async def seen(process: WorkerProcess, condition: Callable[[Look], bool]) -> Look:
    """Look at a process again and again until a condition holds."""
    async with asyncio.timeout(20.0):
        while not condition(look := await process.look()):  # noqa: ASYNC110 – nothing tells
            await asyncio.sleep(0.02)
    return look


def is_silent(look: Look) -> bool:
    return look.silent_for is not None and look.silent_for > 0.5


every_process_launcher = pytest.mark.parametrize("kind", [ForkserverLauncher, SpawnLauncher])


@every_process_launcher
def test_a_look_tells_whether_a_process_runs_is_stopped_or_gone(
    kind: Callable[[], Launcher],
) -> None:
    async def scenario() -> None:
        async with bench(kind()) as b:
            process = await b.start()
            assert not process.inline
            await seen(process, lambda look: look.silent_for is not None and look.silent_for < 0.5)
            os.kill(process.pid, signal.SIGSTOP)
            look = await seen(process, lambda look: look.stopped and is_silent(look))
            assert not look.gone
            process.kill()
            assert await seen(process, lambda look: look.gone) == Look(gone=True)
            end = await process.wait()
            assert (end.exitcode, end.stacks) == (-signal.SIGKILL, None)
            assert await process.look() == Look(gone=True)

    run(scenario())


@every_process_launcher
def test_a_wait_that_is_cancelled_leaves_the_process_alone_and_can_be_repeated(
    kind: Callable[[], Launcher],
) -> None:
    async def scenario() -> None:
        async with bench(kind()) as b:
            process = await b.start()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await process.wait()
            assert not (await process.look()).gone
            process.kill()
            end = await process.wait()
            assert end.exitcode == -signal.SIGKILL
            assert await process.wait() == end

    run(scenario())


@every_process_launcher
def test_a_process_that_cannot_run_python_writes_its_stacks_before_it_is_killed(
    kind: Callable[[], Launcher], tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with bench(kind()) as b:
            process = await b.start(HoldsTheGil, path=tmp_path / "made")
            await eventually((tmp_path / "made").exists)
            await seen(process, is_silent)
            process.kill(stacks_within=FOR_EVER)
            process.kill(stacks_within=FOR_EVER)  # asks no second time
            end = await process.wait()
            assert end.exitcode == -signal.SIGKILL
            assert end.stacks is not None
            assert end.stacks.count("Current thread") == 1
            assert "in __init__" in end.stacks
            assert isinstance(b.hub, ZmqHub)
            assert set(os.listdir(b.hub.directory)) == {"data", "down", "pub", "sub", "up"}

    run(scenario())


def test_a_process_that_writes_no_stacks_is_killed_at_the_deadline() -> None:
    async def scenario() -> None:
        async with bench(ForkserverLauncher()) as b:
            process = await b.start()
            await seen(process, lambda look: look.silent_for is not None)
            os.kill(process.pid, signal.SIGSTOP)
            await seen(process, lambda look: look.stopped)
            process.kill(stacks_within=0.2)
            assert not (await process.look()).gone
            end = await process.wait()
            assert (end.exitcode, end.stacks) == (-signal.SIGKILL, None)

    run(scenario())


def test_a_kill_does_not_wait_for_the_stacks_that_an_earlier_one_asked_for() -> None:
    async def scenario() -> None:
        async with bench(ForkserverLauncher()) as b:
            process = await b.start()
            await seen(process, lambda look: look.silent_for is not None)
            os.kill(process.pid, signal.SIGSTOP)
            await seen(process, lambda look: look.stopped)
            process.kill(stacks_within=FOR_EVER)
            process.kill()
            assert (await process.wait()).exitcode == -signal.SIGKILL

    run(scenario())


def test_a_process_without_a_stacks_file_is_killed_at_once() -> None:
    async def scenario() -> None:
        async with bench(OverTcp()) as b:
            process = await b.start()
            assert not b.hub.file("any")
            await eventually(lambda: bool(b.hub.receive(100)))  # it has said hello
            assert (await process.look()).silent_for is None
            process.kill(stacks_within=FOR_EVER)
            end = await process.wait()
            assert (end.exitcode, end.stacks) == (-signal.SIGKILL, None)

    run(scenario())


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is nobody's worker."""
    with subprocess.Popen(["sleep", "9999"]) as stranger:
        yield stranger
        stranger.kill()


def test_a_signal_for_a_process_that_has_ended_does_not_reach_another_with_its_id(
    stranger: subprocess.Popen[bytes],
) -> None:
    async def scenario() -> None:
        async with bench(ForkserverLauncher()) as b:
            process = await b.start()
            pid = process.pid
            os.kill(pid, signal.SIGKILL)
            await seen(process, lambda look: look.gone)
            process.pid = stranger.pid  # as if the system had reused the id
            process.terminate()
            process.kill()
            process.kill(stacks_within=FOR_EVER)
            process.pid = pid
            await process.wait()
            process.pid = stranger.pid
            process.terminate()
            process.kill()
            with pytest.raises(subprocess.TimeoutExpired):  # a signal would have ended it by then
                await asyncio.to_thread(stranger.wait, 0.3)

    run(scenario())


class Held(ForkserverLauncher):
    """Holds up a start in the launcher's thread.

    Args:
        after: whether to do that after the process was started, or before.
    """

    def __init__(self, after: bool) -> None:
        super().__init__()
        self.after = after
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self.pids: list[int] = []

    def _start(self, boot: WorkerBoot) -> WorkerProcess:
        process = super()._start(boot) if self.after else None
        self.reached.set()
        self.go_on.wait()
        process = process or super()._start(boot)
        self.pids.append(process.pid)
        return process


@pytest.mark.parametrize("after", [False, True])
def test_a_start_that_is_cancelled_leaves_no_process(after: bool) -> None:
    async def scenario() -> None:
        launcher = Held(after)
        async with bench(launcher) as b:
            first = asyncio.create_task(b.start())
            await asyncio.to_thread(launcher.reached.wait)
            queued = asyncio.create_task(b.start())
            await asyncio.sleep(0)  # it begins
            for task in (first, queued):
                task.cancel()
            await asyncio.wait({first, queued})
            assert first.cancelled()
            assert queued.cancelled()
            launcher.go_on.set()
        (pid,) = launcher.pids  # of the first alone
        assert not psutil.pid_exists(pid)

    run(scenario())


def test_a_start_that_is_cancelled_before_its_time_has_a_spare_process_made_all_the_same() -> None:
    async def scenario() -> None:
        async with bench(ForkserverLauncher()) as b:
            b.gaps = [FOR_EVER]
            start = asyncio.create_task(b.start())
            await asyncio.sleep(0)  # it begins
            assert not b.gaps
            start.cancel()
            await eventually(lambda: len(forked()) == 1)

    run(scenario())


class Fails(ForkserverLauncher):
    """Its first process cannot be made."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts = 0

    def _make_process(self) -> WorkerProcess:
        self.attempts += 1
        if self.attempts == 1:
            raise ZeroDivisionError("in the thread")
        return super()._make_process()


def test_what_a_start_raises_in_the_launchers_thread_reaches_whoever_waits() -> None:
    async def scenario() -> None:
        async with bench(Fails()) as b:
            with pytest.raises(ZeroDivisionError, match="in the thread"):
                await b.start()
            process = await b.start()
            process.kill()
            await process.wait()

    run(scenario())


def test_what_the_making_of_the_spare_process_raises_is_logged_and_harms_no_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        launcher = Fails()
        launcher.attempts = -1
        async with bench(launcher) as b:
            process = await b.start()
            await eventually(lambda: "the launcher's thread has failed" in caplog.messages)
            process.kill()
            await process.wait()
            process = await b.start()
            process.kill()
            await process.wait()

    run(scenario())
    assert "ZeroDivisionError: in the thread" in caplog.text


def test_a_start_that_hangs_does_not_hold_up_closing_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process_module, "CLOSE_WITHIN", 0.1)

    async def scenario() -> None:
        launcher = Held(after=False)
        async with bench(launcher) as b:
            start = asyncio.create_task(b.start())
            await asyncio.to_thread(launcher.reached.wait)
            start.cancel()
            await asyncio.wait({start})
        assert "a process start hangs; its thread is left behind" in caplog.messages
        launcher.go_on.set()
        # What was left behind goes by itself.
        await eventually(
            lambda: "chronopype_mp launcher" not in {t.name for t in threading.enumerate()}
        )
        (pid,) = launcher.pids
        assert not psutil.pid_exists(pid)

    with caplog.at_level(logging.ERROR):
        run(scenario())


def test_clients_of_the_forkserver_that_disconnect_early_do_it_no_harm() -> None:
    async def scenario() -> None:
        async with bench(ForkserverLauncher()) as b:
            first = await b.start()
            server = multiprocess.forkserver._forkserver
            pid = server._forkserver_pid
            for words in (b"", b"x", b"x" * 100):
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(server._forkserver_address)
                    client.sendall(words)
                    if sys.version_info >= (3, 14):
                        # A challenge comes, and leaving it unread resets the connection.
                        await asyncio.to_thread(select.select, [client], [], [])
            second = await b.start()
            assert server._forkserver_pid == pid
            for process in (first, second):
                assert not (await process.look()).gone
                process.kill()
                await process.wait()

    run(scenario())


def test_an_inline_worker_is_this_process() -> None:
    async def scenario() -> None:
        async with bench(InlineLauncher()) as b:
            worker = await b.start()
            assert worker.inline
            assert worker.pid == os.getpid()
            assert worker.pipes is None
            assert await worker.look() == Look()
            worker.kill(stacks_within=FOR_EVER)
            end = await worker.wait()
            assert (end.exitcode, end.stacks) == (-signal.SIGKILL, None)

    run(scenario())
