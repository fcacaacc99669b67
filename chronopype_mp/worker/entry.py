"""The first code of a worker process. The forkserver preloads this module."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import importlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

import msgspec
import multiprocess.connection
import multiprocess.forkserver
import multiprocess.process

from chronopype_mp.core.boot import WORKER_MARK, WorkerBoot
from chronopype_mp.launchers.base import STOP_SIGNAL
from chronopype_mp.timing import sleep
from chronopype_mp.transport.zeromq import ZmqLink
from chronopype_mp.worker.children import Plumbing, no_effect, status_of
from chronopype_mp.worker.guard import Guard, end_with_children
from chronopype_mp.worker.host import EXIT_FAILED, EXIT_OK, EXIT_STUCK, WorkerHost
from chronopype_mp.worker.logs import LogForwarder, set_levels
from chronopype_mp.worker.payload import load
from chronopype_mp.worker.process_limits import Usage, apply_resources
from chronopype_mp.worker.shared_memory import (
    remove_own_shared_memory,
    track_only_own_shared_memory,
)
from chronopype_mp.worker.watchdog import Watchdog

__all__ = ["main"]

LINGER = 0.5
"""Seconds that the last reports have to leave the process."""

LAST_TASKS = 0.2
"""Seconds that tasks have to be cancelled when one of them is known not to be."""

LEAVE_WITHIN = 0.75
"""Seconds from the end of the work to that of the process; more than `LINGER`."""

ORPHAN_LEAVES_WITHIN = 0.4
"""The same in seconds when the coordinator has died: together with `ORPHAN_GRACE` less than the
alarm under spawn."""

PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)
_boots = msgspec.msgpack.Decoder(WorkerBoot)


def main(told: Connection, stdout: Connection, stderr: Connection) -> None:
    """Wait to be told which worker this is, run that to its end, then exit.

    Args:
        told: where the descriptor of a file comes from that has a `WorkerBoot` in msgpack.
        stdout: where file descriptor 1 shall go.
        stderr: where file descriptor 2 shall go.
    """
    _become_leader()
    _let_go_of_the_forkserver()
    _redirect(stdout, stderr)
    boot = _wait_for_boot(told)
    _become_ordinary(boot)
    _take_surroundings(boot)
    watchdog = Watchdog(boot.stacks)
    apply_resources(boot)
    plumbing = Plumbing()
    runner = asyncio.Runner(loop_factory=_loop_factory(boot.event_loop))
    code = EXIT_FAILED
    end = _End()
    try:
        code = runner.run(_work(boot, watchdog, plumbing, end))
    except BaseException as error:
        plumbing.end_child(error)
        if isinstance(error, SystemExit):
            code = status_of(error)
        raise
    finally:
        end.come(code)
        runner.close()
        _run_exit_handlers()
        _flush()
        _reap_zombies()
        if end.is_orphan:
            end_with_children()
    sys.exit(code)


class _End:
    """The end of this process.

    Attributes:
        is_orphan: the coordinator has died, so that nobody else ends the worker's children.
        has_come: whether `come` was called.
    """

    def __init__(self) -> None:
        self.is_orphan = False
        self.has_come = False

    def come(self, code: int) -> None:
        """Let the process end soon even if tasks, threads or exit handlers hold that up."""
        self.has_come = True
        thread = threading.Thread(
            target=self._wait, args=(code,), name="chronopype_mp exit", daemon=True
        )
        with contextlib.suppress(RuntimeError):  # no thread can be started: end without it
            thread.start()

    def _wait(self, code: int) -> None:
        if self.is_orphan:
            sleep(ORPHAN_LEAVES_WITHIN)
            end_with_children()
        sleep(LEAVE_WITHIN)
        os._exit(code)


def _run_exit_handlers() -> None:
    """Do what Python does at the end of a program, but multiprocess skips in a forked process."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    remove_own_shared_memory()


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the event loop; None is asyncio's own."""
    if name == "asyncio":
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(name).new_event_loop
    return factory


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def _reap_zombies() -> None:
    """Reap children that have ended; who adopts them would not know whose they were."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _become_leader() -> None:
    """Lead a session of our own, so that Ctrl-C passes by and a kill takes our children along."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    # What reaches every process of the owner's unit is meant for the owner, which asks to stop.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, no_effect)
    if sys.platform == "linux":
        # A second line behind the guard: under spawn it tells of the coordinator's end, under the
        # forkserver of the forkserver's.
        forked = multiprocess.process.parent_process().pid != os.getppid()
        if not forked:
            # alarm(2) itself is the handler: it is called with the signal's number, 3, and the
            # process ends 3 s later, orderly or not, even if it cannot run Python any more.
            _libc.signal(signal.SIGQUIT, ctypes.cast(_libc.alarm, ctypes.c_void_p))
        # The forkserver waits for orderly ends before it exits itself.
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL if forked else signal.SIGQUIT)


def _become_ordinary(boot: WorkerBoot) -> None:
    """Be a process that may have children, and that shares no files with the coordinator."""
    current = multiprocess.process.current_process()
    current.name = boot.worker
    # The coordinator still treats the process as daemonic and ends it when it exits itself.
    current.daemon = False
    # A forkserver removes the directory of its socket when it ends. One that is started here would
    # remove that of the coordinator's.
    current._config.pop("tempdir", None)
    track_only_own_shared_memory()


def _let_go_of_the_forkserver() -> None:
    """Close our copy of the pipe by which the forkserver sees the end of the coordinator.

    Every forked process gets one; a worker that is stuck would keep the forkserver waiting.
    """
    server = multiprocess.forkserver._forkserver
    fd, server._forkserver_alive_fd = server._forkserver_alive_fd, None
    if fd is not None:
        os.close(fd)


def _redirect(stdout: Connection, stderr: Connection) -> None:
    for connection, fd in ((stdout, 1), (stderr, 2)):
        os.dup2(connection.fileno(), fd)
        connection.close()
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115 – open for the process' life
    sys.stderr = open(  # noqa: SIM115 – open for the process' life
        2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )


def _wait_for_boot(told: Connection) -> WorkerBoot:
    """Return what this process is told; exit if it is not needed, or the coordinator dies."""
    coordinator = multiprocess.process.parent_process().sentinel
    if told in multiprocess.connection.wait([told, coordinator]):
        with told, socket.socket(fileno=os.dup(told.fileno())) as connection:
            _, fds, _, _ = socket.recv_fds(connection, 1, 1)
        for fd in fds:  # none if the coordinator has closed its end
            with os.fdopen(fd, "rb") as file:
                file.seek(0)
                return _boots.decode(file.read())
    os._exit(EXIT_OK)


def _take_surroundings(boot: WorkerBoot) -> None:
    sys.path[:] = map(os.fsdecode, boot.path)
    with contextlib.suppress(OSError):
        os.chdir(boot.directory)
    # Mostly what the forkserver has: to set it again would cost each worker pages of its own.
    outer = boot.environment.get(WORKER_MARK, b"")  # of a worker that runs the clock
    wanted = {**boot.environment, WORKER_MARK: (outer + b" %d" % os.getpid()).strip()}
    for name in set(os.environb) - set(wanted):
        del os.environb[name]
    for name, value in wanted.items():
        if os.environb.get(name) != value:
            os.environb[name] = value
    set_levels(boot.log_levels)


async def _work(boot: WorkerBoot, watchdog: Watchdog, plumbing: Plumbing, end: _End) -> int:
    loop = asyncio.get_running_loop()
    messages = boot.messages_in, boot.messages_out
    link = ZmqLink(boot.down, boot.up, boot.data_up, messages, boot.worker)
    host = WorkerHost(
        boot,
        link,
        os.getpid(),
        lambda: load(boot.payload),
        on_turn=watchdog.loop_turns,
        usage=Usage(),
    )
    logs = LogForwarder(boot, host.outbox, loop)
    logging.getLogger().addHandler(logs)
    loop.add_signal_handler(STOP_SIGNAL, host.stop)
    addresses = boot.down, boot.up, boot.data_up, *messages
    plumbing.add(link, addresses, loop, STOP_SIGNAL, logs.prepare_fork)
    guard = Guard(
        boot,
        multiprocess.process.parent_process().sentinel,
        link.guard_sender,
        watchdog,
        lambda: host.turned_at,
        lambda: _call(loop, host.beat),
        lambda: _call(loop, host.stop),
        lambda error: _call(loop, lambda: host.fail("guard", error)),
    )
    guard.start()
    try:
        code = await host.run()
    except asyncio.CancelledError as error:
        plumbing.end_child(error)
        if end.has_come:
            raise  # the runner cancels what is left
        problem = "the worker's main task was cancelled, by a hook or by SIGINT"
        host.fail("the worker", RuntimeError(problem))
        code = EXIT_FAILED
    except BaseException as error:
        plumbing.end_child(error)
        raise
    finally:
        # A stop that nobody heard confirmed is asked for again and again: not to cut this short.
        loop.remove_signal_handler(STOP_SIGNAL)
        signal.signal(STOP_SIGNAL, no_effect)
        logging.getLogger().removeHandler(logs)
        logs.end()
        host.outbox.flush()
        guard.close()
        link.close(0 if guard.orphaned else LINGER)
        end.is_orphan = guard.orphaned
        if guard.orphaned:
            link.clean_up()
    if code == EXIT_STUCK:
        await _cancel_others()
        # asyncio.run would wait for a task that swallows its cancellation.
        _flush()
        if end.is_orphan:
            end_with_children()
        os._exit(code)
    return code


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=LAST_TASKS)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(function)
