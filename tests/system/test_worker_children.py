"""A worker's own children are ordinary children: they inherit no plumbing, and end with it."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import multiprocessing.resource_tracker
import multiprocessing.shared_memory
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import multiprocess
import multiprocess.shared_memory
import psutil
import pytest

from chronopype_mp import ClockConfig, ClockMode, RealtimeClock, RestartType, Supervision
from chronopype_mp.events import WorkerDied, WorkerReady
from chronopype_mp.testing import faults
from tests.system.clocks import Watched, eventually, run
from tests.system.processors import Scribe
from tests.system.scripts import Scripts, wait_until
from tests.system.victims import FOR_EVER
from tests.waiting import running

FORKS = 20

EXITS = ("stopped", "hanging", "orphaned")
"""What happens to the worker, or its exit handler."""

ONCE = Supervision(restart=RestartType.TEMPORARY, loop_stall_timeout=5.0)

every_process_launcher = pytest.mark.parametrize("launcher", ["forkserver", "spawn"])

# The event loop and a stall, which ends in a kill, are the same with each launcher.
every_loop = pytest.mark.parametrize(
    ("launcher", "event_loop"),
    [("forkserver", "asyncio"), ("forkserver", "uvloop"), ("spawn", "asyncio")],
)
every_end = pytest.mark.parametrize(
    ("launcher", "way"),
    [
        ("forkserver", "stop"),
        ("forkserver", "kill"),
        ("forkserver", "stall"),
        ("spawn", "stop"),
        ("spawn", "kill"),
    ],
)


@pytest.fixture(scope="module", autouse=True)
def for_the_whole_module() -> None:
    """Make what outlives the single tests."""
    multiprocessing.resource_tracker.ensure_running()


class Does(Scribe):
    """Calls a function in its first tick and notes what that returns; ticks on after that.

    Args:
        path: where to note it, in JSON.
        work: what to do.
    """

    def __init__(self, path: Path, work: Callable[[], Any]) -> None:
        super().__init__(path)
        self.work: Callable[[], Any] | None = work

    def tick(self, timestamp: float) -> None:
        work, self.work = self.work, None
        if work is not None:
            self.note(json.dumps(work()))
        else:
            self.note("tick")


async def lines_of(path: Path, count: int = 1) -> list[Any]:
    """Wait for a number of notes, and for the tick after them; return them."""

    def written() -> list[str]:
        return path.read_text().splitlines() if path.exists() else []

    await eventually(lambda: written()[-1:] == ["tick"], 15.0)
    lines = [json.loads(line) for line in written() if line != "tick"]
    assert len(lines) == count
    return lines


async def outcome(launcher: str, path: Path, work: Callable[[], Any], **arguments: Any) -> Any:
    """Return what a function returns in a worker; the worker has run on, in the same process."""
    watched = Watched(launcher=launcher, **arguments)
    async with watched.clock as clock, running(clock):
        handle = clock.add_processor(Does(path, work), name="a")
        (line,) = await lines_of(path)
        await watched.ticks(5)
        assert handle.restarts == 0
    (ready,) = watched.events.of(WorkerReady)
    assert ready.incarnation == 1
    return line


def forked(child: Callable[[], None]) -> int:
    """Fork; the child leaves by ``os._exit``, if it is let."""
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(0)
    return pid


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_thread(function: Callable[[], Any]) -> Any:
    """Return what a function returns in another thread."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def sleep_for_ever() -> None:
    time.sleep(FOR_EVER)


def terminated_at_once() -> list[int]:
    """Return how children end that are sent SIGTERM while they are still being forked."""
    statuses = []
    for _ in range(FORKS):
        pid = forked(sleep_for_ever)
        os.kill(pid, signal.SIGTERM)
        statuses.append(status_of(pid))
    return statuses


def terminated() -> list[int]:
    """Return how children of all kinds end that are sent SIGTERM."""
    statuses = [*terminated_at_once(), *in_thread(terminated_at_once)]
    for module in (multiprocessing, multiprocess):
        process = module.get_context("fork").Process(target=sleep_for_ever)
        process.start()
        process.terminate()
        process.join()
        statuses.append(process.exitcode)
        with module.get_context("fork").Pool(2) as pool:
            assert pool.map(abs, [-1]) == [1]
    return statuses


@every_loop
def test_a_child_that_is_sent_sigterm_dies_of_it_and_the_worker_does_not_stop(
    launcher: str, event_loop: str, tmp_path: Path
) -> None:
    pytest.importorskip(event_loop)
    path = tmp_path / "a"
    statuses = run(outcome(launcher, path, terminated, event_loop=event_loop))
    assert set(statuses) == {-signal.SIGTERM}
    assert len(statuses) == 2 * FORKS + 2


def signals_in(status: str) -> dict[str, list[int]]:
    """Return which signals a process blocks, ignores and catches, from its ``/proc`` status."""
    masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Sig"))
    return {
        name: [n for n in signal.valid_signals() if int(masks[name], 16) >> (n - 1) & 1]
        for name in ("SigBlk", "SigIgn", "SigCgt")
    }


def signals_of_children() -> list[dict[str, list[int]]]:
    """Return the signals of a forked child and of a program that was started."""
    read, write = os.pipe()
    pid = forked(lambda: (os.write(write, Path("/proc/self/status").read_bytes()), None)[1])
    assert status_of(pid) == 0
    status = os.read(read, 65536).decode()
    program = subprocess.run(["cat", "/proc/self/status"], stdout=subprocess.PIPE, check=True)
    return [signals_in(status), signals_in(program.stdout.decode())]


@every_process_launcher
def test_children_have_the_signal_dispositions_of_children_of_an_ordinary_program(
    launcher: str, tmp_path: Path
) -> None:
    child, program = run(outcome(launcher, tmp_path / "a", signals_of_children))
    # What Python does in every process.
    assert child == {
        "SigBlk": [],
        "SigIgn": [signal.SIGPIPE, signal.SIGXFSZ],
        "SigCgt": [signal.SIGINT],
    }
    assert program == {"SigBlk": [], "SigIgn": [], "SigCgt": []}


def peers() -> list[str]:
    """Return to what the Unix sockets of this process are connected."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            candidate = socket.socket(fileno=int(name))
        except OSError:
            continue  # no socket, or the one of this listing
        try:
            found.append(str(candidate.getpeername()))
        except OSError:
            pass  # not connected
        finally:
            candidate.detach()
    return [peer for peer in found if peer]


def peers_of_child() -> list[list[str]]:
    read, write = os.pipe()
    pid = forked(lambda: (os.write(write, json.dumps(peers()).encode()), None)[1])
    assert status_of(pid) == 0
    return [peers(), json.loads(os.read(read, 65536))]


@every_process_launcher
def test_a_child_holds_no_connection_to_the_coordinator(launcher: str, tmp_path: Path) -> None:
    worker, child = run(outcome(launcher, tmp_path / "a", peers_of_child))
    assert {os.path.basename(peer) for peer in worker} == {"down", "up"}
    assert child == []


def returns() -> None:
    """Return into the tick."""


def raises() -> None:
    raise ValueError("in a child")


def exits() -> None:
    sys.exit(3)


class ForksInTick(Scribe):
    """Forks in its first three ticks; the children leave the tick in different ways."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.ways = [returns, raises, exits]

    def tick(self, timestamp: float) -> None:
        if not self.ways:
            self.note("tick")
            return
        way = self.ways.pop(0)
        pid = os.fork()
        if pid == 0:
            way()
            return
        self.note(json.dumps(status_of(pid)))


@every_loop
def test_a_child_that_comes_back_to_the_workers_loop_ends_there(
    launcher: str, event_loop: str, tmp_path: Path
) -> None:
    pytest.importorskip(event_loop)

    async def scenario() -> None:
        watched = Watched(launcher=launcher, event_loop=event_loop)
        async with watched.clock as clock, running(clock):
            handle = clock.add_processor(ForksInTick(tmp_path / "a"), name="a")
            assert await lines_of(tmp_path / "a", 3) == [1, 1, 3]
            await watched.ticks(5)
            assert handle.restarts == 0

    run(scenario())


ADOPTS = """
    import asyncio, ctypes, json, os, signal, subprocess, sys, time
    import psutil
    from chronopype_mp import ClockConfig, ClockMode, RealtimeClock, Supervision, TickProcessor

    launcher, way = sys.argv[1:]
    if os.getpid() != 1:
        PR_SET_CHILD_SUBREAPER = 36
        assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0

    class HasChildren(TickProcessor):
        def start(self, timestamp):
            super().start(timestamp)
            self.programs = [subprocess.Popen(["sleep", "9999"])]
            self.programs.append(subprocess.Popen(["sleep", "9999"], start_new_session=True))
            self.programs.append(subprocess.Popen(["true"], start_new_session=True))
            if os.fork() == 0:
                time.sleep(9999)

    def zombies():
        return [p.name() for p in psutil.Process().children() if p.status() == "zombie"]

    async def end(handle, way):
        pid = handle.pid
        if way == "killed":
            os.kill(pid, signal.SIGKILL)
        elif way == "stopped":
            os.kill(pid, signal.SIGSTOP)
        while handle.pid in (pid, None) or handle.status.name != "READY":
            await asyncio.sleep(0.02)

    async def main():
        own = subprocess.Popen(["sh", "-c", "exit 7"])
        in_session = subprocess.Popen(["sh", "-c", "exit 8"], start_new_session=True)
        config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.05)
        supervision = Supervision(loop_stall_timeout=0.5)
        async with RealtimeClock(config, launcher=launcher, supervision=supervision) as clock:
            handle = clock.add_processor(HasChildren(), name="a")
            await handle.wait_ready()
            for _ in range(2):
                await end(handle, way)
        left = [p.name() for p in psutil.Process().children(recursive=True)]
        statuses = [own.wait(), in_session.wait()]
        print("report", json.dumps({"statuses": statuses, "sleeps": left.count("sleep"),
                                    "zombies": zombies()}))

    asyncio.run(main())
"""


@every_process_launcher
@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_an_owner_that_adopts_orphans_reaps_those_of_its_workers_and_nothing_else(
    launcher: str, way: str, scripts: Scripts
) -> None:
    report = scripts.start(ADOPTS, launcher, way).report()
    # What had ended in a session of its own before its worker was killed from outside looks like a
    # child of the owner.
    left = [name for name in report.pop("zombies") if (name, way) != ("true", "killed")]
    assert (report, left) == ({"statuses": [7, 8], "sleeps": 0}, [])


@every_process_launcher
def test_an_owner_that_is_process_1_reaps_what_its_workers_leave(
    launcher: str, scripts: Scripts
) -> None:
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("PID namespaces are not allowed here")
    path = scripts.directory / "adopts.py"
    path.write_text(textwrap.dedent(ADOPTS))
    report = scripts.run([*unshare, sys.executable, str(path), launcher, "killed"]).report()
    assert report["statuses"] == [7, 8]
    assert (report["sleeps"], set(report["zombies"]) - {"true"}) == (0, set())


class HasProgram(Scribe):
    """Starts a program in a session of its own; notes all that there is."""

    def tick(self, timestamp: float) -> None:
        program = subprocess.Popen(["sleep", "9999"], start_new_session=True)
        self.note(json.dumps([os.getpid(), os.getppid(), program.pid]))
        self.tick = lambda timestamp: self.note("tick")  # type: ignore[method-assign]


class HasClock(Scribe):
    """Runs a clock with a worker of its own.

    Args:
        path: for that worker.
        launcher: of that worker.
        directory: for its temporary files, which nobody removes after a kill.
    """

    def __init__(self, path: Path, launcher: str, directory: Path) -> None:
        super().__init__(path)
        self.launcher = launcher
        self.directory = directory
        self.task: asyncio.Task[None] | None = None

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        tempfile.tempdir = str(self.directory)
        self.task = asyncio.get_running_loop().create_task(self.run())

    def tick(self, timestamp: float) -> None:
        """The worker within ticks."""

    async def run(self) -> None:
        config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.05)
        async with RealtimeClock(config, launcher=self.launcher) as clock:
            clock.add_processor(HasProgram(self.path), name="inner")
            await clock.run()


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@every_end
def test_a_clock_in_a_worker_ends_with_it_and_leaves_the_outer_clock_as_it_was(
    launcher: str, way: str, tmp_path: Path, short_path: Path
) -> None:
    async def scenario() -> list[int]:
        watched = Watched(launcher=launcher, supervision=ONCE)
        async with watched.clock as clock, running(clock):
            outer = clock.add_processor(HasClock(tmp_path / "a", launcher, inner), name="outer")
            (pids,) = await lines_of(tmp_path / "a")
            if way == "kill":
                os.kill(outer.pid or 0, signal.SIGKILL)
            elif way == "stall":
                os.kill(outer.pid or 0, signal.SIGSTOP)
            if way != "stop":
                await watched.events.wait_for(WorkerDied, worker="outer")
                await eventually(lambda: all(map(has_ended, pids)))
            # Starts need the files of the outer clock's start method.
            for name in ("b", "c"):
                other = clock.add_processor(Does(tmp_path / name, os.getpid), name=name)
                await other.wait_ready()
                await lines_of(tmp_path / name)
        return [*pids]

    inner = short_path / "inner"
    inner.mkdir()
    try:
        pids = run(scenario())
    finally:
        shutil.rmtree(inner)
    run(eventually(lambda: all(map(has_ended, pids))))


def children_of_all_kinds() -> list[int]:
    """Start children that end by themselves in no case; return their process ids."""
    pids = [forked(sleep_for_ever)]
    pids.append(in_thread(lambda: forked(sleep_for_ever)))
    for module in (multiprocessing, multiprocess):
        for method, daemon in (("fork", True), ("fork", False), ("spawn", True)):
            process = module.get_context(method).Process(target=time.sleep, args=(FOR_EVER,))
            process.daemon = daemon
            process.start()
            pids.append(process.pid)
    return pids


@every_end
def test_children_of_all_kinds_end_with_their_worker(
    launcher: str, way: str, tmp_path: Path
) -> None:
    async def scenario() -> list[int]:
        watched = Watched(launcher=launcher, supervision=ONCE, processor_timeout=60.0)
        async with watched.clock as clock, running(clock):
            handle = clock.add_processor(Does(tmp_path / "a", children_of_all_kinds), name="a")
            (pids,) = await lines_of(tmp_path / "a")
            assert not any(map(has_ended, pids))
            if way == "kill":
                faults.kill(handle)
            elif way == "stall":
                os.kill(handle.pid or 0, signal.SIGSTOP)
            if way != "stop":
                await watched.events.wait_for(WorkerDied, worker="a")
        return [*pids]

    pids = run(scenario())
    assert len(pids) == 8
    wait_until(lambda: all(map(has_ended, pids)), 10.0)


HAS_EXIT_HANDLER = """
    import asyncio, atexit, os, signal, sys, time
    from chronopype_mp import ClockConfig, ClockMode, RealtimeClock, TickProcessor

    launcher, way = sys.argv[1:]

    def write_note():
        with open("note", "a") as file:
            file.write("ran\\n")
        if way == "hanging":
            time.sleep(9999)

    class HasExitHandler(TickProcessor):
        def start(self, timestamp):
            super().start(timestamp)
            atexit.register(write_note)

    async def main():
        config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.05)
        async with RealtimeClock(config, launcher=launcher) as clock:
            handle = clock.add_processor(HasExitHandler(), name="a")
            await handle.wait_ready()
            if way == "orphaned":
                os.kill(os.getpid(), signal.SIGKILL)
        print("END", handle.status.name, handle.last_failure, flush=True)

    asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("launcher", "way"),
    [
        ("inline", "stopped"),
        *((launcher, way) for launcher in ("forkserver", "spawn") for way in EXITS),
    ],
)
def test_exit_handlers_run_once_at_an_orderly_stop(
    launcher: str, way: str, scripts: Scripts
) -> None:
    script = scripts.start(HAS_EXIT_HANDLER, launcher, way)
    status = script.wait()
    note = scripts.directory / "note"
    wait_until(note.exists, 10.0)
    assert note.read_text() == "ran\n"
    if way == "orphaned":
        assert status == -signal.SIGKILL
    else:
        assert script.output == "END STOPPED None\n"


SHARED_MEMORY = (multiprocessing.shared_memory, multiprocess.shared_memory)


def shared_memory_used(*names: str) -> list[str]:
    """Attach to shared memory; create some of one's own, and return its names.

    The last is removed right away, by a handle that has attached to it.
    """
    for module, name in zip(SHARED_MEMORY, names, strict=True):
        module.SharedMemory(name).close()
    left, removed = (multiprocessing.shared_memory.SharedMemory(create=True, size=9) for _ in "ab")
    again = multiprocessing.shared_memory.SharedMemory(removed.name)
    again.unlink()
    return [left.name, removed.name]


@every_process_launcher
def test_shared_memory_stays_its_owners_when_a_worker_ends(launcher: str, tmp_path: Path) -> None:
    memories = [module.SharedMemory(create=True, size=9) for module in SHARED_MEMORY]
    names = [memory.name for memory in memories]
    try:
        path = tmp_path / "a"
        of_worker = run(outcome(launcher, path, partial(shared_memory_used, *names)))
        # The worker has waited for its resource tracker.
        there = os.listdir("/dev/shm")
        assert set(names) <= set(there)
        assert not set(of_worker) & set(there)
    finally:
        for memory in memories:
            memory.close()
            memory.unlink()


LOGGER = "tests.children"


def log_once() -> None:
    logging.getLogger(LOGGER).info("from a child")


def children_that_log() -> list[int | None]:
    statuses: list[int | None] = [status_of(forked(log_once))]
    statuses.append(in_thread(lambda: status_of(forked(log_once))))
    for module in (multiprocessing, multiprocess):
        process = module.get_context("fork").Process(target=log_once)
        process.start()
        process.join()
        statuses.append(process.exitcode)
    return statuses


@every_process_launcher
def test_log_records_of_forked_children_reach_the_coordinators_loggers(
    launcher: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, LOGGER):
        assert run(outcome(launcher, tmp_path / "a", children_that_log)) == [0, 0, 0, 0]
    records = [record for record in caplog.records if record.name == LOGGER]
    assert [record.getMessage() for record in records] == ["from a child"] * 4
