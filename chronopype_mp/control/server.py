"""The coordinator's end of the control socket: reads requests, runs commands, sends answers.

Each request runs in a task of its own, so that none waits for another. All tasks belong to the
server, which ends them when it is closed. Nothing that a client does holds up the ticks: reading is
bounded for each turn of the event loop, requests in progress are bounded, and an answer for which a
client has no room is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from chronopype_mp.clocks.base import BaseClock
from chronopype_mp.control.commands import Command, FleetCommands, kind_of
from chronopype_mp.control.event_buffer import EventBuffer
from chronopype_mp.control.messages import PROTOCOL, Answer, ErrorKind, Problem, Request
from chronopype_mp.exceptions import ControlError
from chronopype_mp.fleet.files import FleetFiles
from chronopype_mp.fleet.reading import nearest
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.transport.control_sockets import ControlListener
from chronopype_mp.version import CODE_VERSION

__all__ = ["ControlServer", "serving"]

logger = GuardedLogger("chronopype_mp.control")

READ_AT_ONCE = 20
"""Requests read in one turn of the event loop."""

MOST_REQUESTS = 2000
"""In progress, of all clients."""

MOST_OF_CLIENT = 50

ANSWERS_KEPT = 2000
BYTES_KEPT = 4_000_000
"""Of answers, for requests that are repeated."""

_encode = msgspec.msgpack.Encoder(enc_hook=repr).encode
_decode = msgspec.msgpack.Decoder(Request).decode


class ControlServer:
    """Answers requests until it is closed.

    Args:
        listener: the socket. The server closes it.
        commands: what it understands, by name.

    Attributes:
        garbage: messages that were no requests. They are dropped.
        dropped: answers that were dropped, because the client does not read or is gone.
    """

    def __init__(self, listener: ControlListener, commands: Mapping[str, Command]) -> None:
        self._listener = listener
        self._commands = commands
        self._running: dict[str, tuple[asyncio.Task[None], set[bytes]]] = {}
        self._of_client: Counter[bytes] = Counter()
        self._answers: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._garbage = 0
        self.dropped = 0
        self._loop = asyncio.get_running_loop()
        listener.watch_threads(self._door_failed)
        listener.attach(self._loop, self._read)

    @property
    def garbage(self) -> int:
        """Messages that were no requests."""
        return self._garbage + self._listener.garbage

    async def close(self) -> None:
        """End all commands in progress, and close the socket."""
        self._listener.detach()
        tasks = [task for task, _ in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()

    def _door_failed(self, error: BaseException) -> None:
        logger.error("the control socket is not guarded any more: %r", error)

    def _read(self) -> None:
        for client, message in self._listener.receive(READ_AT_ONCE):
            try:
                request = _decode(message)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self._garbage += 1
                continue
            self._take(client, request)

    def _take(self, client: bytes, request: Request) -> None:
        answer = self._answers.get(request.id)
        if answer is not None:
            self._send(client, answer)
            return
        if request.id in self._running:
            self._running[request.id][1].add(client)
            return
        problem = self._refusal(client, request)
        if problem is not None:
            self._send(client, _failure(request.id, problem))
            return
        self._of_client[client] += 1
        task = self._loop.create_task(self._run(client, request))
        self._running[request.id] = task, {client}

    def _refusal(self, client: bytes, request: Request) -> Problem | None:
        if request.protocol != PROTOCOL:
            message = (
                f"the fleet runs chronopype_mp {CODE_VERSION} with version {PROTOCOL} of the "
                f"control protocol, and the client speaks version {request.protocol}; use the "
                "fleet's version of chronopype_mp"
            )
            return Problem(kind=ErrorKind.VERSION.value, message=message)
        if request.command not in self._commands:
            message = f'"{request.command}": {nearest(request.command, self._commands, "command")}'
            return Problem(kind=ErrorKind.NOT_SUPPORTED.value, message=message)
        is_full = len(self._running) >= MOST_REQUESTS
        if is_full or self._of_client[client] >= MOST_OF_CLIENT:
            message = "too many requests are in progress; repeat this one later"
            return Problem(kind=ErrorKind.BUSY.value, message=message)
        return None

    async def _run(self, client: bytes, request: Request) -> None:
        command = self._commands[request.command]
        try:
            answer = await self._answer(request, command)
        finally:
            clients = self._running.pop(request.id)[1]
            self._of_client[client] -= 1
            if not self._of_client[client]:
                del self._of_client[client]
        if command.changes:
            self._keep(request.id, answer)
        for each in clients:
            self._send(each, answer)

    async def _answer(self, request: Request, command: Command) -> bytes:
        try:
            arguments = msgspec.msgpack.decode(request.arguments, type=command.arguments)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            message = f'"{request.command}": {error}'
            return _failure(
                request.id, Problem(kind=ErrorKind.BAD_ARGUMENTS.value, message=message)
            )
        try:
            return _success(request.id, await command.run(arguments))
        except ControlError as error:
            return _failure(request.id, Problem(kind=error.kind, message=error.problem))
        except Exception as error:
            kind = kind_of(error)
            if kind is ErrorKind.FAILED:
                logger.warning("%r failed: %s", request.command, error)
            message = str(error) or type(error).__name__
            return _failure(request.id, Problem(kind=kind.value, message=message))

    def _keep(self, number: str, answer: bytes) -> None:
        self._answers[number] = answer
        self._bytes += len(answer)
        while len(self._answers) > ANSWERS_KEPT or self._bytes > BYTES_KEPT:
            self._bytes -= len(self._answers.popitem(last=False)[1])

    def _send(self, client: bytes, answer: bytes) -> None:
        if not self._listener.send(client, answer):
            self.dropped += 1


@contextlib.asynccontextmanager
async def serving(
    path: str,
    name: str,
    clock: BaseClock,
    stop: asyncio.Event,
    files: FleetFiles | None = None,
) -> AsyncIterator[ControlServer]:
    """Serve the control socket of a fleet while the context is entered.

    Args:
        path: of the socket's file.
        name: the fleet's.
        clock: runs its workers; need not be entered yet.
        stop: set to stop the fleet.
        files: those of the fleet; None if it has none.

    Raises:
        TransportError: the path cannot be bound.
    """
    events = EventBuffer()
    commands = FleetCommands(name, clock, stop, events, files)
    server = ControlServer(ControlListener(path), commands.table)
    unsubscribe = clock.events.subscribe(events.put)
    try:
        yield server
    finally:
        unsubscribe()
        await server.close()


def _success(number: str, result: Any) -> bytes:
    return _encode(Answer(protocol=PROTOCOL, id=number, result=msgspec.Raw(_encode(result))))


def _failure(number: str, problem: Problem) -> bytes:
    text = problem.message.encode("utf-8", "backslashreplace").decode()
    return _encode(
        Answer(protocol=PROTOCOL, id=number, error=Problem(kind=problem.kind, message=text))
    )
