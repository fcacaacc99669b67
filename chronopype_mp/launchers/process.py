"""Workers as processes of `multiprocess`, by forkserver or spawn.

The child must never run the main module again: scripts without an ``if __name__ == "__main__"``
guard and notebooks work because the new process is not told of it. (The main module itself is left
alone: other threads go on using it, to pickle for one.) The processor travels as a dill payload,
which carries what it needs from the main module.

All starts of a process happen in one permanent thread: PR_SET_PDEATHSIG fires when the thread
that started a child ends, and a start may block.

A new process waits to be told which worker it is. The forkserver's launcher has one wait there for
the next start, most often a restart, which then does not take the time of a fork.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import importlib
import logging
import os
import select
import signal
import tempfile
import termios
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import IO, Any

import msgspec
import multiprocess
import multiprocess.forkserver
import multiprocess.process
import multiprocess.reduction
import multiprocess.spawn
import psutil

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.launchers.base import STACKS_SIGNAL, Gap
from chronopype_mp.launchers.leftovers import Leftovers
from chronopype_mp.processors import TickProcessor
from chronopype_mp.transport.base import Hub
from chronopype_mp.transport.zeromq import ZmqHub

__all__ = ["ForkserverLauncher", "SpawnLauncher"]

logger = logging.getLogger("chronopype_mp.launchers")

ENTRY = "chronopype_mp.worker.entry"
PRELOAD = "chronopype_mp.launchers.preload"

STANDBY_AFTER = 0.2
"""Seconds without a start after which a process is made for the next one: not while many workers
are started, and not while a new one needs the cores."""

START_WORK = 0.015
"""Seconds of a core that a forked worker's start is taken to need. 4 ms were measured with a
process in reserve, some 11 ms without (docs/performance.md, Isolation); the rest is for slower
machines. A tick that comes in between may have to wait for it."""

SPARE_FDS = 32
"""File descriptors that must be free before a start: about twice what one takes. multiprocess
leaks some, and takes its forkserver down, when it runs out of them halfway."""

STUCK_AFTER = 1.0
"""Seconds after which it is looked into why the forkserver has not started a process, or not told
the exit status of one that has ended."""

_starting = threading.Lock()


def _run(boot: Connection, stdout: Connection, stderr: Connection) -> None:
    """Run the worker's entry; in the child."""
    importlib.import_module(ENTRY).main(boot, stdout, stderr)


@contextlib.contextmanager
def _main_module_out_of_sight() -> Iterator[None]:
    """Leave the main module out of what this thread's next process is told to prepare."""
    with _starting:
        prepare, thread = multiprocess.spawn.get_preparation_data, threading.get_ident()

        def without_main(name: str) -> dict[str, Any]:
            data: dict[str, Any] = prepare(name)
            if threading.get_ident() == thread:
                data.pop("init_main_from_name", None)
                data.pop("init_main_from_path", None)
                # Python passes over what is no text; multiprocess would not.
                data["sys_path"] = [entry for entry in data["sys_path"] if isinstance(entry, str)]
            return data

        multiprocess.spawn.get_preparation_data = without_main
        try:
            yield
        finally:
            multiprocess.spawn.get_preparation_data = prepare


class _ProcessWorker:
    """A worker that is a process, once it has been told which.

    Args:
        process: of `multiprocess`.
        boot: by which it is told.
        pipes: the readable ends of its stdout and stderr.
        leftovers: searches for what it leaves behind.
    """

    def __init__(
        self, process: Any, boot: Connection, pipes: tuple[int, int], leftovers: Leftovers
    ) -> None:
        self._process = process
        self._boot = boot
        self._leftovers = leftovers
        self.pid: int = process.pid
        self.pipes: tuple[int, int] | None = pipes
        self._reaped = False
        self._pidfd: int | None = None
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(ProcessLookupError):  # it has ended, and was reaped, already
                self._pidfd = os.pidfd_open(self.pid)

    def tell(self, boot: WorkerBoot) -> None:
        """Tell the process which worker it is; never blocks, even if it does not listen.

        Raises:
            OSError: it has ended, or there is no memory.
        """
        with self._boot, _open_file() as file:
            file.write(msgspec.msgpack.encode(boot))
            file.flush()
            multiprocess.reduction.send_handle(self._boot, file.fileno(), self.pid)

    def discard(self) -> None:
        """End a process that was told nothing."""
        self._boot.close()  # at which it exits
        self._process.join(STUCK_AFTER)
        if self._process.exitcode is None:
            self.kill()
            self._process.join(STUCK_AFTER)
        self._process.close()
        for fd in (self._pidfd, *(self.pipes or ())):
            if fd is not None:
                os.close(fd)

    async def wait(self) -> int | None:
        """Wait for the end through file descriptors; nothing polls."""
        # Under spawn the sentinel is a pipe that a grandchild may hold open; under the forkserver
        # it tells the exit status, but also ends with the forkserver. A pidfd tells the truth.
        forked = self._process._start_method == "forkserver"
        try:
            if self._pidfd is None:
                await _readable(self._process.sentinel)
            elif forked:
                await _readable(self._process.sentinel, self._pidfd)
                await self._exit_status_told()
            unknown = forked and not _has_bytes(self._process.sentinel)
            if self._pidfd is not None:
                if forked and not _is_readable(self._pidfd):
                    self.kill()  # an orphan: it was the forkserver that ended
                await _readable(self._pidfd)
        finally:
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None
        self._reaped = True
        self._process.join()
        code: int | None = self._process.exitcode
        self._process.close()
        return None if unknown else code

    async def _exit_status_told(self) -> None:
        """Wait until the forkserver has told the exit status, or has ended."""
        sentinel = self._process.sentinel
        while not _is_readable(sentinel):
            try:
                async with asyncio.timeout(STUCK_AFTER):
                    await _readable(sentinel)
            except TimeoutError:
                _continue_forkserver()

    def kill(self) -> None:
        """Kill the process and all its descendants, those in sessions of their own included."""
        if self._reaped:
            return
        try:
            # Looked for first: once their parent is dead, they are somebody else's children.
            descendants = psutil.Process(self.pid).children(recursive=True)
        except psutil.Error:
            descendants = []
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._kill_group()
        for descendant in descendants:
            with contextlib.suppress(psutil.Error):
                descendant.kill()

    def clean_up(self) -> None:
        """Kill what is left of the process group, then what has left that."""
        self._kill_group()
        self._leftovers.of(self.pid)

    def _kill_group(self) -> None:
        # The child leads its group from its first code on.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM, which stops the worker in order."""
        self._signal(signal.SIGTERM)

    def ask_for_stacks(self) -> None:
        """Send the signal at which faulthandler writes all stacks."""
        self._signal(STACKS_SIGNAL)

    def _signal(self, number: int) -> None:
        if not self._reaped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def exception(self, serial: int) -> BaseException | None:
        """Return None: exceptions stay in the worker."""
        return None


def _open_file() -> IO[bytes]:
    """Open a file without a name."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("chronopype_mp boot"), "w+b")
    return tempfile.TemporaryFile()


def _continue_forkserver() -> None:
    """Have the forkserver go on if it was stopped (SIGSTOP): nobody else can do its work."""
    pid = multiprocess.forkserver._forkserver._forkserver_pid
    with contextlib.suppress(psutil.Error, ProcessLookupError):
        if pid is not None and psutil.Process(pid).status() == psutil.STATUS_STOPPED:
            os.kill(pid, signal.SIGCONT)


async def _readable(*fds: int) -> None:
    """Wait until one of them is readable."""
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


def _check_spare_fds() -> None:
    """Raise OSError if a start could run out of file descriptors."""
    spare: list[int] = []
    try:
        for _ in range(SPARE_FDS):
            spare.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for fd in spare:
            os.close(fd)


class _ProcessLauncher:
    """What both start methods share."""

    method: str

    def __init__(self) -> None:
        self._context: Any = multiprocess.get_context(self.method)
        self._thread: ThreadPoolExecutor | None = None
        self._leftovers: Leftovers | None = None
        self._standby: _ProcessWorker | None = None
        self._users = 0

    def open_hub(self, queued: int) -> ZmqHub:
        """Return a hub on ipc sockets in a private directory."""
        hub = ZmqHub(queued=queued)
        self._users += 1
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="chronopype_mp launcher")
            self._leftovers = Leftovers()
        return hub

    async def start(
        self, boot: WorkerBoot, hub: Hub, original: TickProcessor | None, gap: Gap
    ) -> _ProcessWorker:
        """Start a process in the launcher's thread."""
        loop = asyncio.get_running_loop()
        start = loop.run_in_executor(self._thread, self._start, boot)
        while not start.done():
            # A cancelled wait leaves the start alone.
            await asyncio.wait({start}, timeout=STUCK_AFTER)
            if not start.done():
                self._get_unstuck()
        return start.result()

    def _get_unstuck(self) -> None:
        """Do what can be done for a start that takes long."""

    def _start(self, boot: WorkerBoot) -> _ProcessWorker:
        standby, self._standby = self._standby, None
        if standby is not None:
            with contextlib.suppress(OSError):  # somebody has killed it, or the forkserver
                return self._told(standby, boot)
        return self._told(self._make_process(), boot)

    @staticmethod
    def _told(process: _ProcessWorker, boot: WorkerBoot) -> _ProcessWorker:
        try:
            process.tell(boot)
        except BaseException:
            process.discard()
            raise
        return process

    def _make_process(self) -> _ProcessWorker:
        """Start a process that waits to be told which worker it is."""
        _check_spare_fds()
        ours, theirs = [], []
        try:
            for duplex in (True, False, False):  # by which it is told, its stdout, its stderr
                mine, its = self._context.Pipe(duplex)
                ours.append(mine)
                theirs.append(its)
            process = self._context.Process(target=_run, args=theirs, daemon=True)
            with _main_module_out_of_sight():
                process.start()
            # Or the next start, in this thread, looks whether it has ended while `wait` does so in
            # the loop's: the exit status can be read only once.
            multiprocess.process._children.discard(process)
            assert self._leftovers is not None
            out, err = (os.dup(pipe.fileno()) for pipe in ours[1:])
            return _ProcessWorker(process, ours.pop(0), (out, err), self._leftovers)
        finally:
            for end in (*ours, *theirs):
                end.close()

    def close(self) -> None:
        """End the launcher's threads, when the last clock that uses it has been left."""
        self._users -= 1
        if self._users == 0 and self._thread is not None and self._leftovers is not None:
            self._thread.shutdown(wait=True)
            if self._standby is not None:
                self._standby.discard()
            self._leftovers.close()
            self._thread = self._leftovers = self._standby = None


class ForkserverLauncher(_ProcessLauncher):
    """Forks workers from a server process that has the package loaded already."""

    method = "forkserver"

    def __init__(self) -> None:
        super().__init__()
        self._starts = 0

    async def start(
        self, boot: WorkerBoot, hub: Hub, original: TickProcessor | None, gap: Gap
    ) -> _ProcessWorker:
        """Start a process between two ticks, and have one ready for the next start."""
        self._starts += 1
        if wait := gap(START_WORK):
            await asyncio.sleep(wait)
        process = await super().start(boot, hub, original, gap)
        starts, loop = self._starts, asyncio.get_running_loop()
        loop.call_later(
            STANDBY_AFTER,
            lambda: loop.call_later(gap(START_WORK), self._prepare_next, starts),
        )
        return process

    def _prepare_next(self, starts: int) -> None:
        if self._starts == starts and self._thread is not None:
            self._thread.submit(self._make_standby)

    def _make_standby(self) -> None:
        """Make the process for the next start; in the launcher's thread."""
        if self._standby is None:
            try:
                self._standby = self._make_process()
            except OSError as error:
                logger.debug("no process can be made in advance: %s", error)

    def _make_process(self) -> _ProcessWorker:
        self._context.set_forkserver_preload([PRELOAD])
        try:
            return super()._make_process()
        except EOFError as error:
            raise OSError("the forkserver could not fork, or has died") from error

    def close(self) -> None:
        """End the launcher's threads and the process in reserve, after the last clock."""
        _continue_forkserver()  # or it would hold that up
        super().close()

    def _get_unstuck(self) -> None:
        """Have the forkserver go on if it was stopped."""
        _continue_forkserver()


class SpawnLauncher(_ProcessLauncher):
    """Starts every worker as a fresh interpreter: slower, but nothing is inherited."""

    method = "spawn"
