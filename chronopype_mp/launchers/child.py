"""A worker process as its owner sees it: told what it is, watched, killed, reaped."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import select
import signal
import socket
import tempfile
import termios
import weakref
from multiprocessing.connection import Connection
from typing import IO, Any

import msgspec
import multiprocess.forkserver
import multiprocess.util
import psutil

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.launchers.base import STACKS_SIGNAL, STOP_SIGNAL, Look, ProcessEnd
from chronopype_mp.launchers.leftovers import Leftovers
from chronopype_mp.launchers.stacks import StacksFile
from chronopype_mp.timing import loop_time

__all__ = ["STUCK_AFTER", "ChildProcess", "continue_forkserver", "disown_all"]

logger = GuardedLogger("chronopype_mp.launchers")

STUCK_AFTER = 1.0
"""Seconds to wait for the forkserver before checking whether it was stopped."""

UNKNOWN_STATUS = 255
"""What multiprocess takes for the exit status of a process if there is no way to know it."""

_all: weakref.WeakSet[ChildProcess] = weakref.WeakSet()

STACKS_POLL = 0.05
"""Seconds between two looks at the size of the stacks. They are complete once it stays the same."""


class ChildProcess:
    """A process of `multiprocess` that waits to be told which worker it is.

    Signals go through a pidfd where the system has them: unlike a process id, it never names
    another process that has got the same id since.

    Args:
        process: of `multiprocess`.
        boot: the connection by which the process is told.
        pipes: the readable ends of its stdout and stderr.
        leftovers: searches for what it leaves behind.

    Raises:
        OSError: there are no more file descriptors.
    """

    inline = False

    def __init__(
        self, process: Any, boot: Connection, pipes: tuple[int, int], leftovers: Leftovers
    ) -> None:
        self._process = process
        self._boot = boot
        self._leftovers = leftovers
        self._stacks = StacksFile("")
        self._stacks_asked_at = 0
        self._kill_later: asyncio.TimerHandle | None = None
        self._end: ProcessEnd | None = None
        self._has_been_reaped = False
        self._killed: set[int] = set()
        self._is_disowned = False
        self._pidfd: int | None = None
        self.pid: int = process.pid
        self.pipes: tuple[int, int] | None = pipes
        if hasattr(os, "pidfd_open"):
            try:
                self._pidfd = os.pidfd_open(self.pid)
            except ProcessLookupError:
                self._has_been_reaped = True  # by the forkserver
            else:
                self._close_pidfd = weakref.finalize(self, os.close, self._pidfd)
        _all.add(self)

    # Its start

    def tell(self, boot: WorkerBoot) -> None:
        """Tell the process which worker it is; never blocks, even if it does not listen.

        Raises:
            OSError: it has ended, or there is no memory.
        """
        self._stacks = StacksFile(boot.stacks)
        with self._boot, _open_file() as file:
            file.write(msgspec.msgpack.encode(boot))
            file.flush()
            # Not by multiprocess: since Python 3.14 it waits until the descriptor was received.
            with socket.socket(fileno=os.dup(self._boot.fileno())) as connection:
                socket.send_fds(connection, [b"\0"], [file.fileno()])

    def discard(self) -> None:
        """Kill and reap a process that nobody waits for; blocks for some seconds at most."""
        self._boot.close()
        for fd in self.pipes or ():
            os.close(fd)
        self.pipes = None
        self._kill_now()
        self._join_for(STUCK_AFTER)
        if self._process.exitcode is None:
            continue_forkserver()
            self._join_for(STUCK_AFTER)
        if self._process.exitcode is None:
            logger.error("process %d cannot be killed; it is left behind", self.pid)
        else:
            self._release()

    def _join_for(self, seconds: float) -> None:
        self._process.join(seconds)
        if self._process.exitcode is None and self._has_ended():
            self._collect()

    def disown(self) -> None:
        """Leave the process to the one that this one was forked from.

        The worker learns of its owner's death when the last copy of a pipe is closed, and the
        forked process must not hold one.
        """
        self._is_disowned = self._has_been_reaped = True
        # OSError: another thread was closing it at the moment of the fork.
        with contextlib.suppress(OSError):
            self._boot.close()
        popen = self._process._popen  # None once it has been reaped
        if popen is not None and popen.finalizer is not None:
            with contextlib.suppress(OSError):
                multiprocess.util.close_fds(*popen.finalizer._args)

    # Its end

    async def wait(self) -> ProcessEnd:
        """Wait for the end on file descriptors; nothing polls."""
        if self._end is None:
            knows_status = await self._wait_for_end()
            knows_status &= self._collect()
            code: int | None = self._process.exitcode
            self._release()
            self._end = ProcessEnd(
                exitcode=code if knows_status else None,
                stacks=self._stacks.take(self._stacks_asked_at),
            )
        return self._end

    async def _wait_for_end(self) -> bool:
        """Wait for the end; return whether the exit status is known."""
        # Under spawn the sentinel is a pipe that a grandchild may hold open. Under the forkserver
        # it carries the exit status, but also closes when the forkserver ends. A pidfd is reliable.
        sentinel = self._process.sentinel
        forked = self._process._start_method == "forkserver"
        if self._pidfd is None:
            await _readable(sentinel)
        elif forked:
            await _readable(sentinel, self._pidfd)
            await self._wait_for_status()
        knows_status = not forked or _has_bytes(sentinel)
        if not knows_status and not self._has_ended():
            self.kill()  # an orphan: the forkserver has ended
        if self._pidfd is not None:
            await _readable(self._pidfd)
        return knows_status

    async def _wait_for_status(self) -> None:
        """Wait until the forkserver has sent the exit status, or has ended."""
        sentinel = self._process.sentinel
        while not _is_readable(sentinel):
            try:
                async with asyncio.timeout(STUCK_AFTER):
                    await _readable(sentinel)
            except TimeoutError:
                continue_forkserver()

    def _collect(self) -> bool:
        """Reap a process that has ended; return whether its exit status was still there.

        It is not if the owner ignores SIGCHLD or reaps all its children.
        """
        popen = self._process._popen
        if popen.method == "spawn" and popen.returncode is None:
            # By the pidfd: another child of the owner may have got the process id since.
            kind, number = (
                (os.P_PID, self.pid) if self._pidfd is None else (os.P_PIDFD, self._pidfd)
            )
            end = None
            with contextlib.suppress(ChildProcessError):
                end = os.waitid(kind, number, os.WEXITED)
            if end is None:
                popen.returncode = UNKNOWN_STATUS
                return False
            killed = end.si_code != os.CLD_EXITED
            popen.returncode = -end.si_status if killed else end.si_status
        self._process.join()
        return True

    def _release(self) -> None:
        """Close what was open for a process that has been reaped."""
        self._has_been_reaped = True
        self._cancel_kill()
        self._process.close()
        if self._pidfd is not None:
            self._pidfd = None
            self._close_pidfd()

    async def look(self) -> Look:
        """Look at the process' state and at its stacks file."""
        if self._has_ended():
            return Look(gone=True)
        try:
            status = psutil.Process(self.pid).status()
        except psutil.NoSuchProcess:
            return Look(gone=True)
        if status == psutil.STATUS_ZOMBIE and self._pidfd is None:
            # A pidfd knows better: the state is that of the main thread alone.
            return Look(gone=True)
        return Look(
            stopped=status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP),
            silent_for=self._stacks.silent_for(),
            stacks_written=self._stacks.size() > 0,
        )

    def _has_ended(self) -> bool:
        return self._has_been_reaped or (self._pidfd is not None and _is_readable(self._pidfd))

    # Signals

    def kill(self, stacks_within: float = 0.0) -> None:
        """Kill the process and all its descendants, including those in sessions of their own."""
        # Before its watchdog runs, the process would die of the signal.
        can_ask = stacks_within > 0 and self._stacks.silent_for() is not None
        if not can_ask or self._has_ended():
            self._kill_now()
        elif self._kill_later is None:
            self._stacks_asked_at = self._stacks.size()
            self._signal(STACKS_SIGNAL)
            self._kill_with_stacks(self._stacks_asked_at, loop_time() + stacks_within)

    def _kill_with_stacks(self, before: int, deadline: float) -> None:
        """Kill once the stacks have been written or the deadline has passed; else look again."""
        size = self._stacks.size()
        remaining = deadline - loop_time()
        if self._stacks_asked_at < size == before or remaining <= 0:
            self._kill_now()
        else:
            wait = min(STACKS_POLL, remaining)
            loop = asyncio.get_running_loop()
            self._kill_later = loop.call_later(wait, self._kill_with_stacks, size, deadline)

    def _cancel_kill(self) -> None:
        if self._kill_later is not None:
            self._kill_later.cancel()
            self._kill_later = None

    def _kill_now(self) -> None:
        self._cancel_kill()
        if self._has_been_reaped:
            return
        descendants = []
        if not self._has_ended():
            # Before the kill: once their parent is dead, they are somebody else's children.
            # OSError: for example, no file descriptor is left to look with.
            with contextlib.suppress(psutil.Error, OSError):
                descendants = psutil.Process(self.pid).children(recursive=True)
        self._signal(signal.SIGKILL)
        self._kill_group()
        for descendant in descendants:
            with contextlib.suppress(psutil.Error, OSError):
                descendant.kill()
        self._killed.update(descendant.pid for descendant in descendants)

    def terminate(self) -> None:
        """Send the signal at which the worker stops gracefully."""
        self._signal(STOP_SIGNAL)

    def _signal(self, number: int) -> None:
        if self._has_been_reaped:
            return
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                os.kill(self.pid, number)

    def clean_up(self) -> None:
        """Kill what is left of the process group, then what has left the group."""
        if not self._is_disowned:
            self._kill_group()
            self._leftovers.of(self.pid, self._killed)

    def _kill_group(self) -> None:
        # The child leads its group from its first code on.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def exception(self, serial: int) -> BaseException | None:
        """Return None: exceptions stay in the worker."""
        return None


def disown_all() -> None:
    """Leave all processes to the one that this one was forked from."""
    for process in list(_all):
        process.disown()
    _all.clear()


def continue_forkserver() -> None:
    """Continue the forkserver if it was stopped by SIGSTOP: nobody else can do its work."""
    pid = multiprocess.forkserver._forkserver._forkserver_pid
    with contextlib.suppress(psutil.Error, OSError):
        if pid is not None and psutil.Process(pid).status() == psutil.STATUS_STOPPED:
            os.kill(pid, signal.SIGCONT)


def _open_file() -> IO[bytes]:
    """Open a file without a name."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("chronopype_mp boot"), "w+b")
    return tempfile.TemporaryFile()


async def _readable(*fds: int) -> None:
    """Wait until one of the descriptors is readable."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def on_readable() -> None:
        if not ready.done():
            ready.set_result(None)

    for fd in fds:
        loop.add_reader(fd, on_readable)
    try:
        await ready
    finally:
        for fd in fds:
            loop.remove_reader(fd)


def _has_bytes(fd: int) -> bool:
    """Whether a readable pipe has bytes, and not just its end."""
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return bool(count[0])


def _is_readable(fd: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))
