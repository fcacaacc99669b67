"""Launchers that start processes of `multiprocess`, by forkserver or spawn.

The child must never run the main module again. Scripts without an ``if __name__ == "__main__"``
guard and notebooks work because the new process is not told where the main module is (see
`helpers`). The main
module itself stays as it is, because other threads go on using it, for example to pickle. The
payload of the processor carries what it needs of the main module.

All processes are started in one permanent thread: a start may block, and PR_SET_PDEATHSIG fires
when the thread that started a child ends.

A new process waits to be told which worker it is. The forkserver's launcher keeps a spare one for
the next start, so that most restarts do not take the time of a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import os
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import multiprocess
import multiprocess.process

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.exceptions import ConfigError
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.launchers.base import Gap
from chronopype_mp.launchers.child import (
    STUCK_AFTER,
    ChildProcess,
    continue_forkserver,
    disown_all,
)
from chronopype_mp.launchers.frozen import check_frozen, check_not_spawned
from chronopype_mp.launchers.helpers import (
    close_retired_forkservers,
    ensure_forkserver,
    forget_if_ended,
    starting,
    watch_forks,
)
from chronopype_mp.launchers.leftovers import Leftovers
from chronopype_mp.launchers.serial_thread import SerialThread
from chronopype_mp.processors import TickProcessor
from chronopype_mp.transport.base import Hub
from chronopype_mp.transport.descriptors import check_spare
from chronopype_mp.transport.zeromq import ZmqHub

__all__ = ["ForkserverLauncher", "SpawnLauncher"]

logger = GuardedLogger("chronopype_mp.launchers")

ENTRY = "chronopype_mp.worker.entry"
PRELOAD = "chronopype_mp.launchers.preload"

STANDBY_AFTER = 0.2
"""Seconds without a start after which a spare process is made: not while many workers are started,
and not while a new one needs the cores."""

START_WORK = 0.015
"""Seconds that the start of a forked worker is assumed to keep a core busy. 4 ms were measured with
a spare process, some 11 ms without (docs/performance.md, Isolation); the rest is for slower
machines. A tick that comes in between may have to wait for it."""

SPARE_FDS = 32
"""File descriptors that must be free before a start: about twice what one takes. multiprocess
leaks some, and takes its forkserver down, when it runs out of them halfway."""

CLOSE_WITHIN = 5.0
"""Seconds to wait for each of the launcher's threads when it is closed."""

_launchers: weakref.WeakSet[_ProcessLauncher] = weakref.WeakSet()


def _run(boot: Connection, stdout: Connection, stderr: Connection) -> None:
    """Run the worker's entry; in the child."""
    importlib.import_module(ENTRY).main(boot, stdout, stderr)


def _log_failure(future: Future[None]) -> None:
    """Log the exception of a call in the launcher's thread that nobody waits for."""
    if not future.cancelled() and (error := future.exception()) is not None:
        logger.error("the launcher's thread has failed", exc_info=error)


class _ProcessLauncher:
    """What both start methods share."""

    method: str

    def __init__(self) -> None:
        self._context: Any = multiprocess.get_context(self.method)
        self._thread = SerialThread("chronopype_mp launcher")
        self._leftovers = Leftovers()
        self._standby: ChildProcess | None = None
        self._numbers = itertools.count(1)
        self._users = 0
        _launchers.add(self)
        watch_forks(_leave_to_parent)

    def make_hub(self, queued: int) -> ZmqHub:
        """Return a hub on ipc sockets in a private directory.

        A subclass may override this to use other addresses. That is meant for tests over tcp
        loopback: tcp sockets accept connections from anybody who reaches them.

        Args:
            queued: as for `open_hub`.
        """
        return ZmqHub(queued=queued)

    def open_hub(self, queued: int) -> ZmqHub:
        """Return the hub of `make_hub`.

        Raises:
            ConfigError: this is a frozen program that has not called `freeze_support`.
            RuntimeError: multiprocessing runs the main module again in this process.
        """
        check_frozen()
        check_not_spawned()
        hub = self.make_hub(queued)
        if self._users == 0:
            self._leftovers = Leftovers()
        self._users += 1
        return hub

    async def start(
        self, boot: WorkerBoot, hub: Hub, original: TickProcessor | None, gap: Gap
    ) -> ChildProcess:
        """Start a process in the launcher's thread."""
        assert isinstance(hub, ZmqHub)
        hub.restore()
        # A number and not the worker's name, which need not be a valid file name.
        stacks = hub.file(f"{next(self._numbers)}.stacks")
        boot = msgspec.structs.replace(boot, stacks=stacks)
        start = self._thread.submit(self._start, boot)
        started = asyncio.wrap_future(start)
        try:
            # Cancelling asyncio.wait leaves the start alone.
            while not (await asyncio.wait({started}, timeout=STUCK_AFTER))[0]:
                self._unblock()
        except BaseException:
            started.add_done_callback(lambda _: started.cancelled() or started.exception())
            if not start.cancel():
                start.add_done_callback(self._abandon)
            raise
        return started.result()

    def _unblock(self) -> None:
        """Do what can be done about a start that takes long."""

    def _in_thread(self, call: Callable[..., None], *arguments: Any) -> None:
        """Run a call in the launcher's thread that nobody waits for."""
        self._thread.submit(call, *arguments).add_done_callback(_log_failure)

    @staticmethod
    def _abandon(start: Future[ChildProcess]) -> None:
        """End the process of a start that was cancelled; in the launcher's thread."""
        if start.exception() is None:
            process = start.result()
            process.discard()
            process.clean_up()

    def _start(self, boot: WorkerBoot) -> ChildProcess:
        standby, self._standby = self._standby, None
        if standby is not None:
            with contextlib.suppress(OSError):  # it or the forkserver was killed
                return self._told(standby, boot)
        return self._told(self._make_process(), boot)

    @staticmethod
    def _told(process: ChildProcess, boot: WorkerBoot) -> ChildProcess:
        try:
            process.tell(boot)
        except BaseException:
            process.discard()
            raise
        return process

    def _make_process(self) -> ChildProcess:
        """Start a process that waits to be told which worker it is."""
        check_spare(SPARE_FDS)
        connections: list[Connection] = []
        output: list[int] = []
        process = None
        try:
            theirs = []
            for duplex in (True, False, False):  # to be told, for its stdout, for its stderr
                ours, its = self._context.Pipe(duplex)
                connections += (ours, its)
                theirs.append(its)
            boot, *readers = connections[::2]
            output += (os.dup(reader.fileno()) for reader in readers)
            process = self._context.Process(target=_run, args=theirs, daemon=True)
            with starting():
                process.start()
            # Otherwise the next start, in this thread, could read the exit status, which can be
            # read only once, while `wait` is about to do so in the event loop's thread.
            multiprocess.process._children.discard(process)
            child = ChildProcess(process, boot, (output[0], output[1]), self._leftovers)
            connections.remove(boot)
            return child
        except BaseException:
            for fd in output:
                os.close(fd)
            if process is not None and process.pid is not None:
                process.kill()
                process.join(STUCK_AFTER)
            raise
        finally:
            for connection in connections:
                connection.close()

    def _discard_standby(self) -> None:
        standby, self._standby = self._standby, None
        if standby is not None:
            standby.discard()

    def close(self) -> None:
        """End the launcher's threads and the spare process, once the last clock has been left."""
        self._users -= 1
        if self._users > 0:
            return
        self._unblock()
        if self._thread.is_open:
            self._in_thread(self._discard_standby)
            if not any(launcher._users > 0 for launcher in _launchers):
                self._in_thread(close_retired_forkservers)
        if not self._thread.close(CLOSE_WITHIN):
            logger.error("a process start hangs; its thread is left behind")
        if not self._leftovers.close(CLOSE_WITHIN):
            logger.error("the search for what workers left behind hangs; its thread is left behind")

    def disown(self) -> None:
        """Forget, in a forked process, what belongs to its parent."""
        self._thread = SerialThread("chronopype_mp launcher")
        self._leftovers = Leftovers()
        self._standby = None
        self._users = 0


def _leave_to_parent() -> None:
    """Leave all workers to the process that this one was forked from."""
    disown_all()
    for launcher in list(_launchers):
        launcher.disown()


class ForkserverLauncher(_ProcessLauncher):
    """Forks workers from a server process that has already loaded the package.

    If that process ends before it has forked one, for example because it cannot import what it
    should preload, workers are started by spawn from then on.

    Args:
        preload: names of modules for that process to import, so that no worker takes the time and
            memory for it. They must start no threads.

    Raises:
        ConfigError: a name is not that of a module.
    """

    method = "forkserver"

    def __init__(self, preload: Sequence[str] = ()) -> None:
        super().__init__()
        names = [preload] if isinstance(preload, str) else list(preload)
        for name in names:
            if not isinstance(name, str) or not all(map(str.isidentifier, name.split("."))):
                problem = 'must be names of modules, such as ["aiohttp"]'
                raise ConfigError(type(self).__name__, "preload", name, problem)
        self._preload = [*names, PRELOAD]  # it freezes what is loaded by then
        self._starts = 0
        self._proven: int | None = None
        self._spawns = False

    async def start(
        self, boot: WorkerBoot, hub: Hub, original: TickProcessor | None, gap: Gap
    ) -> ChildProcess:
        """Start a process between two ticks, and make a spare one for the next start."""
        self._starts += 1
        try:
            if wait := gap(START_WORK):
                await asyncio.sleep(wait)
            return await super().start(boot, hub, original, gap)
        finally:
            self._prepare_later(gap)

    def _prepare_later(self, gap: Gap) -> None:
        starts, loop = self._starts, asyncio.get_running_loop()
        loop.call_later(
            STANDBY_AFTER,
            lambda: loop.call_later(gap(START_WORK), self._prepare_next, starts),
        )

    def _prepare_next(self, starts: int) -> None:
        if self._starts == starts and self._users > 0:
            self._in_thread(self._make_standby)

    def _make_standby(self) -> None:
        """Make the process for the next start; in the launcher's thread."""
        if self._standby is None:
            try:
                self._standby = self._make_process()
            except OSError as error:
                logger.debug("no spare process can be made: %s", error)

    def _make_process(self) -> ChildProcess:
        if self._spawns:
            return super()._make_process()
        server = ensure_forkserver(self._preload)
        try:
            process = super()._make_process()
        except (EOFError, ConnectionError) as error:
            if server == self._proven or not forget_if_ended(server):
                raise OSError("the forkserver could not fork, or has died") from error
            logger.warning(
                "the forkserver ended before it had started a process (stderr may say why); "
                "workers are started by spawn, which takes longer"
            )
            self._spawns = True
            self._context = multiprocess.get_context(SpawnLauncher.method)
            return super()._make_process()
        self._proven = server
        return process

    def _unblock(self) -> None:
        """Continue the forkserver if it was stopped."""
        continue_forkserver()


class SpawnLauncher(_ProcessLauncher):
    """Starts every worker as a fresh interpreter: slower, but nothing is inherited."""

    method = "spawn"
