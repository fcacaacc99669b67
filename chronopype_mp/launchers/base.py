"""What a launcher offers, whichever it is."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Protocol

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.processors import TickProcessor
from chronopype_mp.transport.base import Hub

__all__ = ["STACKS_SIGNAL", "Gap", "Launcher", "WorkerProcess"]

STACKS_SIGNAL: int = getattr(signal, "SIGRTMAX", signal.SIGUSR2)
"""Makes a worker write its stacks; one that hardly anybody else has a use for."""


Gap = Callable[[float], float]
"""Gets how long some work will keep a core busy, seconds; returns in how many seconds it is best
begun, so that the clock's ticks do not have to wait for it."""


class WorkerProcess(Protocol):
    """One incarnation of a worker.

    Attributes:
        pid: of the process.
        pipes: the readable ends of its stdout and stderr; whoever reads them closes them.
    """

    pid: int
    pipes: tuple[int, int] | None

    async def wait(self) -> int | None:
        """Wait for the end; return the exit status, negative for a signal, None if unknown.

        Cancelling this leaves the process alone.
        """
        ...

    def kill(self) -> None:
        """Kill it and its descendants. What is gone already is no error."""
        ...

    def terminate(self) -> None:
        """Ask it to stop in order, by another way than the transport."""
        ...

    def ask_for_stacks(self) -> None:
        """Have it write the stacks of all its threads, even if it cannot run Python any more."""
        ...

    def clean_up(self) -> None:
        """Kill the children that it left behind; called once after its end."""
        ...

    def exception(self, serial: int) -> BaseException | None:
        """Return the exception of failure ``serial``, where it never left this process."""
        ...


class Launcher(Protocol):
    """Starts workers."""

    def open_hub(self, queued: int) -> Hub:
        """Return the coordinator's end of the transport that its workers use.

        Each call is followed by one of `close`.

        Args:
            queued: frames to queue for one worker before any are dropped.
        """
        ...

    async def start(
        self, boot: WorkerBoot, hub: Hub, original: TickProcessor | None, gap: Gap
    ) -> WorkerProcess:
        """Start a process for one incarnation.

        Args:
            boot: what it is told.
            hub: what `open_hub` returned.
            original: the object that ``boot.payload`` was made from, for the first incarnation.
            gap: when it disturbs no tick; a launcher may heed that.

        Raises:
            OSError: the system has no more processes, memory or file descriptors.
        """
        ...

    def close(self) -> None:
        """Give back what an `open_hub` took; all workers started with that hub have ended."""
        ...
