"""What is meant for the owner does not end or mislead its helper processes and workers."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import site
import sys
from pathlib import Path

import psutil
import pytest

import chronopype_mp
from chronopype_mp.transport.private_directory import sweep
from chronopype_mp.transport.zeromq import ZmqHub
from tests.system.scripts import TOKEN, Scripts, processes_of, wait_until
from tests.system.surroundings import LINKS, PROGRAM

BOTH = pytest.mark.parametrize("launcher", ["forkserver", "spawn"])


@pytest.mark.parametrize(
    ("reach", "number", "launcher"),
    [
        *itertools.product(
            ("group", "unit", "helpers"), ("SIGTERM", "SIGHUP", "SIGINT"), ("forkserver",)
        ),
        # Each reach and each signal once: under spawn, every process is an interpreter to start.
        ("group", "SIGHUP", "spawn"),
        ("unit", "SIGTERM", "spawn"),
        ("helpers", "SIGINT", "spawn"),
    ],
)
def test_a_signal_to_the_whole_group_or_unit_is_the_owners(
    scripts: Scripts, tmp_path: Path, launcher: str, number: str, reach: str
) -> None:
    script = scripts.start(LINKS, launcher, number, reach)
    assert script.report() == {"deaths": 0}
    assert len((tmp_path / "stopped").read_text()) == 2


SIGCHLD = (
    PROGRAM
    + """
def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

if sys.argv[2] == "ignored":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
elif sys.argv[2] == "reaped":
    signal.signal(signal.SIGCHLD, reap)
else:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})

async def main():
    async with make_clock() as clock:
        events = EventRecorder(clock.events)
        handle = clock.add_processor(TickProcessor(), name="w")
        await handle.wait_ready()
        for _ in range(2):
            await restarted(events, handle, lambda: os.kill(handle.pid, signal.SIGKILL))
        if sys.argv[1] == "forkserver":
            server = psutil.Process(handle.pid).parent()
            assert "forkserver" in " ".join(server.cmdline())
            await restarted(events, handle, server.kill)
        died = len(events.of(WorkerDied))
    report(died=died, stop=len(events.of(WorkerDied)) - died, mask=sorted(
        number.name for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    ))

asyncio.run(main())
"""
)


@BOTH
@pytest.mark.parametrize("how", ["ignored", "reaped", "blocked"])
def test_an_owner_that_does_not_reap_its_children_sees_them_die(
    scripts: Scripts, launcher: str, how: str
) -> None:
    script = scripts.start(SIGCHLD, launcher, how)
    mask = ["SIGCHLD", "SIGTERM"] if how == "blocked" else []
    assert script.report() == {
        "died": 3 if launcher == "forkserver" else 2,
        "stop": 0,
        "mask": mask,
    }


FORKS = (
    PROGRAM
    + """
import concurrent.futures, multiprocessing, time

def fork(child):
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(1)
    return pid

async def main():
    async with make_clock() as clock:
        events = EventRecorder(clock.events)
        handles = [clock.add_processor(Link()) for _ in range(2)]
        for handle in handles:
            await handle.wait_ready()
        run = asyncio.create_task(clock.run())

        def leave_child(event=None):
            with open("forked", "w") as file:
                file.write(str(fork(lambda: time.sleep(1000))))

        if sys.argv[2] == "at a death":
            clock.events.subscribe(leave_child, WorkerDied)
            await restarted(events, handles[0], lambda: os.kill(handles[0].pid, signal.SIGKILL))
            connected = {"incarnation": 2, "after": NetworkStatus.CONNECTED}
            await events.wait_for(NetworkChanged, worker=handles[0].name, **connected)
        else:
            leave_child()
        print("forked", flush=True)
        await run

asyncio.run(main())
"""
)


@BOTH
@pytest.mark.parametrize("when", ["while all run", "at a death"])
def test_a_forked_child_of_the_owner_does_not_keep_workers_alive(
    scripts: Scripts, tmp_path: Path, short_path: Path, launcher: str, when: str
) -> None:
    script = scripts.start(FORKS, launcher, when)
    script.wait_for("forked")
    child = int((tmp_path / "forked").read_text())
    os.kill(script.process.pid, signal.SIGKILL)
    script.wait()

    def left() -> list[str]:
        # multiprocess shares its resource tracker with forked processes.
        found = []
        for process in processes_of(os.environ[TOKEN]):
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                line = " ".join(process.cmdline())
                if process.pid != child and "resource_tracker" not in line:
                    found.append(line)
        return found

    try:
        wait_until(lambda: not left(), 10.0, lambda: f"left: {left()}")
        assert not list(short_path.iterdir())
        assert len((tmp_path / "stopped").read_text()) == 2
    finally:
        os.kill(child, signal.SIGKILL)


FORKS_DURING_A_START = (
    PROGRAM
    + """
from multiprocess.connection import Connection

unraisable, statuses = [], []
sys.unraisablehook = unraisable.append

def fork(done):
    child = os.fork()
    if child == 0:
        os._exit(len(unraisable))
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    done.set()

async def main():
    loop, close = asyncio.get_running_loop(), Connection._close

    def close_and_fork(connection):
        close(connection)
        if threading.current_thread().name == "chronopype_mp launcher":
            done = threading.Event()
            loop.call_soon_threadsafe(fork, done)
            done.wait()

    async with make_clock() as clock:
        Connection._close = close_and_fork
        handle = clock.add_processor(TickProcessor(), name="w")
        await handle.wait_ready()
        Connection._close = close
    report(forks=len(statuses) > 0, failures=sum(statuses))

asyncio.run(main())
"""
)


@BOTH
def test_a_process_forked_in_the_middle_of_a_start_leaves_the_workers_to_the_owner(
    scripts: Scripts, launcher: str
) -> None:
    assert scripts.start(FORKS_DURING_A_START, launcher).report() == {"forks": True, "failures": 0}


CHILD_LEAVES = (
    PROGRAM
    + """
async def main():
    async with make_clock() as clock:
        events = EventRecorder(clock.events)
        handle = clock.add_processor(TickProcessor(), name="w")
        await handle.wait_ready()
        child = os.fork()
        if child == 0:
            await clock.__aexit__(None, None, None)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for _ in range(2):
            await restarted(events, handle, lambda: os.kill(handle.pid, signal.SIGKILL))
        report(status=status, died=len(events.of(WorkerDied)))

asyncio.run(main())
"""
)


@BOTH
def test_a_forked_child_that_leaves_the_clock_does_not_touch_the_workers(
    scripts: Scripts, launcher: str
) -> None:
    assert scripts.start(CHILD_LEAVES, launcher).report() == {"status": 0, "died": 2}


CLOCK_IN_CHILD = (
    PROGRAM
    + """
async def use():
    async with make_clock() as clock:
        events = EventRecorder(clock.events)
        handle = clock.add_processor(TickProcessor(), name="w")
        await handle.wait_ready()
        await restarted(events, handle, lambda: os.kill(handle.pid, signal.SIGKILL))

asyncio.run(use())
statuses = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            asyncio.run(use())
            status = 0
        finally:
            os._exit(status)
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
asyncio.run(use())
report(statuses=statuses)
"""
)


@BOTH
def test_a_forked_child_may_use_a_clock_of_its_own(scripts: Scripts, launcher: str) -> None:
    assert scripts.start(CLOCK_IN_CHILD, launcher).report() == {"statuses": [0, 0]}


CLEANED = (
    PROGRAM
    + """
async def main():
    async with make_clock() as clock:
        events = EventRecorder(clock.events)
        handle = clock.add_processor(TickProcessor(), name="w")
        other = clock.add_processor(TickProcessor(), name="other")
        for h in (handle, other):
            await h.wait_ready()
        run = asyncio.create_task(clock.run())
        for _ in range(2):
            for path in glob.glob(os.path.join(tempfile.gettempdir(), "*")):
                if sys.argv[2] == "directories":
                    shutil.rmtree(path)
                else:
                    for name in os.listdir(path):
                        os.unlink(os.path.join(path, name))
            for _ in range(2):
                await restarted(events, handle, lambda: os.kill(handle.pid, signal.SIGKILL))
        modes = {os.stat(p).st_mode & 0o777 for p in glob.glob(tempfile.gettempdir() + "/*")}
        report(others=len(events.of(WorkerDied, worker="other")), modes=sorted(modes))

asyncio.run(main())
"""
)


@BOTH
@pytest.mark.parametrize("what", ["directories", "files"])
def test_workers_are_restarted_after_temporary_files_were_removed(
    scripts: Scripts, launcher: str, what: str
) -> None:
    assert scripts.start(CLEANED, launcher, what).report() == {"others": 0, "modes": [0o700]}


REPLACED = (
    PROGRAM
    + """
async def main():
    async with make_clock() as clock:
        events = EventRecorder(clock.events)
        handles = [clock.add_processor(TickProcessor()) for _ in range(2)]
        for handle in handles:
            await handle.wait_ready()
        first = psutil.Process(handles[0].pid).parent()
        for path in glob.glob(os.path.join(tempfile.gettempdir(), "*")):
            shutil.rmtree(path)

        async def restart_all():
            for handle in handles:
                await restarted(events, handle, lambda: os.kill(handle.pid, signal.SIGKILL))

        for _ in range(3):  # the spare process may still be the first one's
            await restart_all()
        second = psutil.Process(handles[0].pid).parent()
        await asyncio.to_thread(first.wait, 10.0)
        await restart_all()
        last = psutil.Process(handles[0].pid).parent()
        report(is_replaced=second != first, is_kept=last == second)

asyncio.run(main())
"""
)


def test_a_forkserver_whose_socket_was_removed_ends_when_nobody_needs_it(scripts: Scripts) -> None:
    assert scripts.start(REPLACED, "forkserver").report() == {"is_replaced": True, "is_kept": True}


PLAIN = (
    PROGRAM
    + """
async def main():
    async with make_clock() as clock:
        handle = clock.add_processor(TickProcessor(), name="w")
        await handle.wait_ready()
        server = psutil.Process(handle.pid).parent()
        maps = open(f"/proc/{server.pid}/maps").read()
        report(preloaded="zmq" in maps)

asyncio.run(main())
"""
)


@BOTH
def test_files_in_the_working_directory_do_not_shadow_the_standard_library(
    scripts: Scripts, tmp_path: Path, launcher: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("random", "signal", "enum", "selectors", "multiprocess"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('shadowed')")
    program = tmp_path / "elsewhere" / "program.py"
    program.write_text(PLAIN)
    script = scripts.run([sys.executable, str(program), launcher])
    assert script.report() == {"preloaded": True}


@BOTH
def test_a_package_that_only_the_script_finds_is_preloaded(
    scripts: Scripts, tmp_path: Path, launcher: str
) -> None:
    paths = [str(Path(chronopype_mp.__file__).parents[1]), *site.getsitepackages()]
    program = tmp_path / "program.py"
    program.write_text(f"import sys; sys.path[1:1] = {paths!r}\n" + PLAIN)
    # -S: no site-packages, as with an interpreter that does not have the package.
    script = scripts.run([sys.executable, "-S", str(program), launcher], PYTHONPATH="")
    assert script.report() == {"preloaded": True}


KILLED_UNDER_SPAWN = (
    PROGRAM
    + """
async def main():
    async with make_clock() as clock:
        events = EventRecorder(clock.events)
        handle = clock.add_processor(Link(), name="w")
        await handle.wait_ready()
        for _ in range(2):
            await restarted(events, handle, lambda: os.kill(handle.pid, signal.SIGKILL))
        report(is_child=psutil.Process(handle.pid).ppid() == os.getpid(),
               died=len(events.of(WorkerDied)))
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
)

BLOCKS_PRELOAD = """
import os, sys
from importlib.abc import MetaPathFinder

class Blocks(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "chronopype_mp.launchers.preload":
            {what}

sys.meta_path.insert(0, Blocks())
"""


@pytest.mark.parametrize(
    "what", ["raise ImportError('blocked')", "raise RuntimeError('blocked')", "os._exit(0)"]
)
def test_a_forkserver_that_cannot_import_the_package_is_replaced_by_spawn(
    scripts: Scripts, tmp_path: Path, what: str
) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "sitecustomize.py").write_text(BLOCKS_PRELOAD.format(what=what))
    script = scripts.start(KILLED_UNDER_SPAWN, "forkserver", PYTHONPATH=str(tmp_path / "first"))
    assert script.wait() == -signal.SIGKILL
    assert 'report {"is_child": true, "died": 2}' in script.output
    assert script.output.count("workers are started by spawn") == 1
    assert "raise" not in what or "blocked" in script.output
    # The promises hold: the worker stops gracefully, and no process is left.
    wait_until((tmp_path / "stopped").exists, 10.0)
    token = os.environ[TOKEN]
    wait_until(lambda: not processes_of(token), 5.0, lambda: f"left: {processes_of(token)}")
    sweep()


FROZEN = """#!{python}
import sys
sys.frozen, sys.executable = True, __file__
with open("started", "a") as file:
    file.write("x")
import chronopype_mp
{call}
"""


@BOTH
@pytest.mark.parametrize("is_called", [True, False])
def test_a_frozen_program_works_with_freeze_support_and_is_refused_without(
    scripts: Scripts, tmp_path: Path, launcher: str, is_called: bool
) -> None:
    call = "chronopype_mp.freeze_support()" if is_called else ""
    program = tmp_path / "program"
    program.write_text(FROZEN.format(python=sys.executable, call=call) + PLAIN)
    program.chmod(0o700)
    script = scripts.run([str(program), launcher])
    if is_called:
        assert script.report() == {"preloaded": True}
    else:
        assert script.wait() == 1
        assert "ConfigError" in script.output
        assert "freeze_support" in script.output
        assert (tmp_path / "started").read_text() == "x"


KILLED_EARLY = (
    PROGRAM
    + """
async def main():
    async with make_clock() as clock:
        if sys.argv[2] == "with a worker":
            await clock.add_processor(TickProcessor(), name="w").wait_ready()
        print("entered", flush=True)
        await clock.run()

asyncio.run(main())
"""
)


@BOTH
@pytest.mark.parametrize("when", ["with a worker", "without"])
def test_a_clock_removes_the_directories_of_owners_that_were_killed(
    scripts: Scripts, short_path: Path, launcher: str, when: str
) -> None:
    script = scripts.start(KILLED_EARLY, launcher, when)
    script.wait_for("entered")
    os.kill(script.process.pid, signal.SIGKILL)
    script.wait()
    token = os.environ[TOKEN]
    wait_until(lambda: not processes_of(token), 5.0, lambda: f"left: {processes_of(token)}")
    if when == "without":
        assert list(short_path.iterdir())  # there was nobody to remove it
    living = ZmqHub()
    assert [str(path) for path in short_path.iterdir()] == [living.directory]
    sweep()
    assert [str(path) for path in short_path.iterdir()] == [living.directory]
    living.close_publisher()
    living.close()
