"""Runs a command and watches it. Its end is the loss of the connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import PIPE, Process

import msgspec

from chronopype_mp import NetworkStatus, PermanentFailure
from workers._base import Options, ReadyMade, Seconds, Secret, check_options, optional, positive
from workers._payloads import Form
from workers._streams import Framing, read_message

__all__ = ["ProcessOptions", "ProcessProcessor"]

KILL_TIMEOUT = 2.0
"""Seconds for the end of a killed process, in addition to ``stop_timeout``."""

LAST_WORDS = 0.5
"""Seconds for what a command has written to standard error, which a child of it may hold."""


class ProcessOptions(Options, frozen=True, kw_only=True):
    """What to run, and what is emitted.

    Args:
        command: the program and its arguments. There is no shell.
        directory: to run it in; None: that of the worker.
        env: variables in addition to those of the worker.
        stdin: what it reads on standard input, which is then closed.
        stop_timeout: the time between SIGTERM and SIGKILL at a stop, seconds.
        stale_after: a command that prints nothing for longer is restarted, seconds; None: never.
        permanent_statuses: exit statuses after which it is not run again.
        framing: what a message on standard output is: a line, or whatever has come.
        max_bytes: a longer line ends the command, and chunks are no larger.
        topic: what messages are emitted with; None emits none.
        payload: as what messages are emitted.
    """

    command: tuple[str, ...]
    directory: str | None = None
    env: dict[str, Secret] = msgspec.field(default_factory=dict)
    stdin: Secret = Secret()
    stop_timeout: Seconds = 5.0
    stale_after: Seconds | None = None
    permanent_statuses: tuple[int, ...] = ()
    framing: Framing = "lines"
    max_bytes: int = 65536
    topic: str | None = None
    payload: Form = "text"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(
            self,
            command=lambda command: None if command else "must name a program",
            stop_timeout=positive,
            stale_after=optional(positive),
            max_bytes=positive,
        )


class ProcessProcessor(ReadyMade):
    """Runs the command in a process group of its own, which is killed with it.

    Args:
        options: what to run.
    """

    options: ProcessOptions
    _process: Process | None = None
    _last_error = ""
    _reading_errors: asyncio.Task[None]

    def __init__(self, options: ProcessOptions) -> None:
        super().__init__(options)
        self.stale_after = options.stale_after
        self.stop_network_timeout = options.stop_timeout + 2 * KILL_TIMEOUT

    async def start_network(self) -> None:
        options = self.options
        self._last_error = ""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *options.command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                cwd=options.directory,
                env={**os.environ, **{name: text.reveal() for name, text in options.env.items()}},
                start_new_session=True,  # so that its children can be killed with it
                limit=options.max_bytes,
            )
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise PermanentFailure(f"cannot run {options.command[0]!r}: {error}") from error
        self._reading_errors = self.spawn(self._read_errors(self._process), name="stderr")
        self.spawn(self._write(self._process), name="stdin")

    async def check_network(self) -> NetworkStatus:
        if self._process is None:
            return NetworkStatus.NOT_CONNECTED
        if self._process.returncode is not None:  # but a child of it holds its standard output
            raise await self._loss(self._process.returncode)
        return NetworkStatus.CONNECTED

    async def run_network(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        options = self.options
        while True:
            message = await read_message(self._process.stdout, options.framing, options.max_bytes)
            if message is None:
                break
            self.received_bytes(message, options.payload, options.topic)
            await self.drain_outputs()
        raise await self._loss(await self._process.wait())

    async def stop_network(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if process.returncode is None:
                _signal_group(process, signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.options.stop_timeout):
                        await process.wait()
        finally:
            _signal_group(process, signal.SIGKILL)  # its children, too
        with contextlib.suppress(TimeoutError):  # one in another session may hold the pipes
            async with asyncio.timeout(KILL_TIMEOUT):
                await process.wait()

    async def _loss(self, status: int) -> Exception:
        """Return what the end of the command means."""
        await asyncio.wait({self._reading_errors}, timeout=LAST_WORDS)
        how = f"exited with status {status}"
        if status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
        text = f"{self.options.command[0]} {how}"
        if self._last_error:
            text += f"; it last wrote: {self._last_error}"
        failed = status in self.options.permanent_statuses
        return PermanentFailure(text) if failed else ConnectionError(text)

    async def _read_errors(self, process: Process) -> None:
        """Log what the command writes to standard error."""
        assert process.stderr is not None
        while True:
            line = await read_message(process.stderr, "lines", self.options.max_bytes)
            if line is None:
                return
            self._last_error = self.without_secrets(line.decode(errors="replace"))
            self.logger().warning("%s: %s", self.options.command[0], self._last_error)

    async def _write(self, process: Process) -> None:
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):  # a command need not read
            process.stdin.write(self.options.stdin.reveal().encode())
            await process.stdin.drain()
        process.stdin.close()


def _signal_group(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
