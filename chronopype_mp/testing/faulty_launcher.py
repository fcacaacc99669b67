"""FaultyLauncher, a launcher whose calls fail at random."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import enum
import errno
import os
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.core.checks import at_least
from chronopype_mp.exceptions import ConfigError
from chronopype_mp.launchers import Gap, Launcher, Look, ProcessEnd, WorkerProcess
from chronopype_mp.processors import TickProcessor
from chronopype_mp.transport.base import Hub

__all__ = ["FaultyLauncher"]

T = TypeVar("T")


class _Fault(enum.Enum):
    RAISES = "raises"
    HANGS = "hangs"
    ANSWERS_LATE = "answers late"


class FaultyLauncher:
    """Wraps a launcher and makes a share of its calls fail.

    It shows that supervision survives a launcher that cannot be relied on::

        launcher = FaultyLauncher(ForkserverLauncher(), seed=1, share=0.2)
        async with RealtimeClock(config, launcher=launcher) as clock: ...

    A call of `start`, or of a method of a process, fails in one of three ways:

    - It raises an OSError, a RuntimeError or a CancelledError.
    - It hangs. A coroutine does not return until it is cancelled. `kill` and `terminate` must not
      block, so they return without having done anything.
    - It answers late, by up to ``slowest`` seconds.

    Coroutines fail before or after the wrapped launcher has done the work. `clean_up` is called
    only once, so it always does its work and then raises. `exception` only raises. `open_hub` and
    `close` never fail, because they concern the clock and not a worker.

    The seed fixes the sequence of faults. Which call meets which fault depends on the order of the
    calls, and so on timing.

    Args:
        inner: the launcher that does the work.
        seed: for the random choice of faults.
        share: the share of calls that fail, 0 to 1.
        slowest: the longest delay of a late call, in seconds.

    Attributes:
        share: the same; it may be changed at any time.
        injected: the number of faults so far, by method and kind, such as ``"wait() hangs"``.

    Raises:
        ConfigError: ``share`` or ``slowest`` is out of range.
    """

    def __init__(
        self, inner: Launcher, seed: int = 0, share: float = 0.1, slowest: float = 1.0
    ) -> None:
        at_least("FaultyLauncher", "share", share, 0.0)
        if share > 1.0:
            raise ConfigError("FaultyLauncher", "share", share, "must be at most 1")
        at_least("FaultyLauncher", "slowest", slowest, 0.0)
        self._inner = inner
        self._random = random.Random(seed)
        self._slowest = slowest
        self.share = share
        self.injected: collections.Counter[str] = collections.Counter()

    def open_hub(self, queued: int) -> Hub:
        """Return the wrapped launcher's hub."""
        return self._inner.open_hub(queued)

    async def start(
        self, boot: WorkerBoot, hub: Hub, original: TickProcessor | None, gap: Gap
    ) -> WorkerProcess:
        """Start a process whose methods fail at random. The start itself may fail, too."""

        async def work() -> WorkerProcess:
            return await self._inner.start(boot, hub, original, gap)

        return _FaultyProcess(self, await self._answer("start", work, _end))

    def close(self) -> None:
        """Close the wrapped launcher."""
        self._inner.close()

    async def _answer(
        self,
        method: str,
        work: Callable[[], Awaitable[T]],
        undo: Callable[[T], Awaitable[None]] | None = None,
    ) -> T:
        """Do the work of a coroutine, possibly with a fault before or after it.

        Args:
            method: its name.
            work: does the work.
            undo: called with the result of the work if a fault after it raises.
        """
        fault = self._draw(method, *_Fault)
        if fault is None:
            return await work()
        if self._random.random() < 0.5:
            await self._delay(fault)
            return await work()
        result = await work()
        try:
            await self._delay(fault)
        except BaseException:
            if undo is not None:
                await undo(result)
            raise
        return result

    def _act(self, method: str, work: Callable[[], None]) -> None:
        """Do the work of a method that must not block, possibly with a fault in place of it."""
        match self._draw(method, *_Fault):
            case None:
                work()
            case _Fault.RAISES:
                raise self._error()
            case _Fault.ANSWERS_LATE:
                delay = self._random.uniform(0.0, self._slowest)
                asyncio.get_running_loop().call_later(delay, work)

    def _fail_at_random(self, method: str) -> None:
        """Raise if this call fails."""
        if self._draw(method, _Fault.RAISES) is not None:
            raise self._error()

    def _draw(self, method: str, *kinds: _Fault) -> _Fault | None:
        if self._random.random() >= self.share:
            return None
        fault = self._random.choice(kinds)
        self.injected[f"{method}() {fault.value}"] += 1
        return fault

    async def _delay(self, fault: _Fault) -> None:
        if fault is _Fault.HANGS:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(self._random.uniform(0.0, self._slowest))
        if fault is _Fault.RAISES:
            raise self._error()

    def _error(self) -> BaseException:
        return self._random.choice(
            [
                OSError(errno.EIO, "injected by FaultyLauncher"),
                RuntimeError("injected by FaultyLauncher"),
                asyncio.CancelledError("injected by FaultyLauncher"),
            ]
        )


class _FaultyProcess:
    """A process whose methods fail at random; the protocol's docstrings apply."""

    def __init__(self, launcher: FaultyLauncher, inner: WorkerProcess) -> None:
        self._launcher = launcher
        self._inner = inner
        self.pid = inner.pid
        self.pipes = inner.pipes

    @property
    def inline(self) -> bool:
        return self._inner.inline

    async def wait(self) -> ProcessEnd:
        return await self._launcher._answer("wait", self._inner.wait)

    async def look(self) -> Look:
        return await self._launcher._answer("look", self._inner.look)

    def kill(self, stacks_within: float = 0.0) -> None:
        self._launcher._act("kill", lambda: self._inner.kill(stacks_within))

    def terminate(self) -> None:
        self._launcher._act("terminate", self._inner.terminate)

    def clean_up(self) -> None:
        self._inner.clean_up()
        self._launcher._fail_at_random("clean_up")

    def exception(self, serial: int) -> BaseException | None:
        self._launcher._fail_at_random("exception")
        return self._inner.exception(serial)


async def _end(process: WorkerProcess) -> None:
    """End a process that nobody was told of."""
    process.kill()
    for fd in process.pipes or ():
        with contextlib.suppress(OSError):
            os.close(fd)
    await process.wait()
    process.clean_up()
