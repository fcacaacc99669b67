"""What every launcher offers."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Protocol

import msgspec

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.processors import TickProcessor
from chronopype_mp.transport.base import Hub

__all__ = ["STACKS_SIGNAL", "STOP_SIGNAL", "Gap", "Launcher", "Look", "ProcessEnd", "WorkerProcess"]

STACKS_SIGNAL: int = getattr(signal, "SIGRTMAX", signal.SIGUSR2)
"""The signal at which a worker writes its stacks; hardly any other code uses it."""

STOP_SIGNAL: int = STACKS_SIGNAL - 1 if hasattr(signal, "SIGRTMAX") else signal.SIGTERM
"""The signal at which a worker stops gracefully. SIGTERM may be meant for the owner: a unit or
container that is stopped sends it to every process."""

Gap = Callable[[float], float]
"""Takes how long some work will keep a core busy, in seconds. Returns in how many seconds to begin
it so that it does not delay a tick."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What can be seen of a process from outside.

    Attributes:
        gone: the process has ended, whatever `WorkerProcess.wait` says.
        stopped: it was stopped by SIGSTOP or a debugger.
        silent_for: seconds since Python code last ran in it; None if unknown.
        stacks_written: it has written its stacks because its event loop stands still.
    """

    gone: bool = False
    stopped: bool = False
    silent_for: float | None = None
    stacks_written: bool = False


class ProcessEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a process ended.

    Attributes:
        exitcode: its exit status, negative for a signal, None if unknown.
        stacks: the stacks that it wrote before its end.
    """

    exitcode: int | None
    stacks: str | None = None


class WorkerProcess(Protocol):
    """The process of one incarnation.

    Attributes:
        pid: its process id.
        pipes: the readable ends of its stdout and stderr; whoever reads them closes them.
    """

    pid: int
    pipes: tuple[int, int] | None

    @property
    def inline(self) -> bool:
        """Whether it runs in the owner's process and event loop; False once it has ended there."""
        ...

    async def wait(self) -> ProcessEnd:
        """Wait for the end of the process. Cancelling this leaves the process alone."""
        ...

    async def look(self) -> Look:
        """Return what can be seen of the process now, without blocking the event loop."""
        ...

    def kill(self, stacks_within: float = 0.0) -> None:
        """Kill the process and its descendants, without blocking.

        A process that has ended already is no error.

        Args:
            stacks_within: 0 kills at once, even if an earlier call still waits for stacks. With
                more, the process is asked by a signal to write its stacks, and killed once they
                are written, at the latest after this many seconds.
        """
        ...

    def terminate(self) -> None:
        """Ask the process to stop gracefully, by another way than the transport."""
        ...

    def clean_up(self) -> None:
        """Kill the children that the process left behind; called once, after its end."""
        ...

    def exception(self, serial: int) -> BaseException | None:
        """Return the exception of failure ``serial`` if it never left this process."""
        ...


class Launcher(Protocol):
    """Starts workers."""

    def open_hub(self, queued: int) -> Hub:
        """Return the coordinator's end of the transport that its workers use.

        Each call is followed by one call of `close`.

        Args:
            queued: how many frames to queue for one worker before any is dropped.
        """
        ...

    async def start(
        self, boot: WorkerBoot, hub: Hub, original: TickProcessor | None, gap: Gap
    ) -> WorkerProcess:
        """Start the process of one incarnation.

        When this is cancelled, the launcher kills and reaps the process that was started or is
        about to be. `close` waits for that.

        Args:
            boot: what the process is told. The launcher itself chooses ``boot.stacks``.
            hub: what `open_hub` returned.
            original: the object that ``boot.payload`` was made from, for the first incarnation.
            gap: tells when a start delays no tick; a launcher may ignore it.

        Raises:
            OSError: the system has no more processes, memory or file descriptors.
        """
        ...

    def close(self) -> None:
        """Release what one `open_hub` acquired, after the workers of that hub have ended.

        Returns within some seconds even if the system misbehaves.
        """
        ...
