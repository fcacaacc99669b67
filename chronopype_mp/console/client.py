"""FleetClient: operates a running fleet from another program on the same machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, cast

import msgspec

from chronopype_mp.control.messages import (
    PROTOCOL,
    Acted,
    Add,
    Answer,
    Call,
    ErrorKind,
    Events,
    EventsRead,
    FleetStatus,
    Named,
    Nothing,
    Reload,
    Remove,
    Request,
    RestartAll,
    Started,
)
from chronopype_mp.exceptions import ControlError
from chronopype_mp.fleet.changes import Changes
from chronopype_mp.fleet.directory import KnownFleet, known_fleets
from chronopype_mp.fleet.reading import nearest
from chronopype_mp.transport.control_sockets import ControlConnection
from chronopype_mp.version import CODE_VERSION

__all__ = ["FleetClient", "find_fleet"]

T = TypeVar("T")

ANSWER_TIMEOUT = 10.0
"""Seconds for an answer, in addition to the time that the command itself may take."""

REPEAT_AFTER = 2.0
"""Seconds without an answer after which a request is repeated."""

EVENTS_WAIT = 20.0
"""Seconds for which one read of events waits."""

READ_AT_ONCE = 100

LOOK_PAUSE = 0.05
"""Seconds between two looks whether a fleet has ended."""

Wait = Literal["ready", "connected"]

ANYTHING = cast("type[object]", Any)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Answer).decode


def find_fleet(name: str | None = None) -> KnownFleet:
    """Return the fleet of a name that runs on this machine; without a name, the only one.

    Raises:
        ControlError: it does not run, or without a name there is not exactly one.
    """
    known = known_fleets()
    running = {fleet.name: fleet for fleet in known if fleet.is_alive}
    if name is None and len(running) == 1:
        return next(iter(running.values()))
    if name is None:
        problem = "no fleet runs; start one with `chronopype-mp run FILE`"
        if running:
            names = ", ".join(running)
            problem = f"{len(running)} fleets run; name one of them (--fleet): {names}"
        raise ControlError(ErrorKind.NOT_RUNNING.value, problem)
    if name in running:
        return running[name]
    problem = f'the fleet "{name}" does not run'
    if running:
        problem = f'"{name}": {nearest(name, running, "fleet")}'
    dead = next((fleet for fleet in known if fleet.name == name), None)
    if dead is not None:
        problem = f'the fleet "{name}" has died (it was process {dead.pid}); run it again'
    raise ControlError(ErrorKind.NOT_RUNNING.value, problem)


class FleetClient:
    """Operates a running fleet: ``async with FleetClient("name") as fleet: ...``.

    Workers are named by their names or by globs such as ``"feed-*"``. All methods may be used side
    by side. Every method raises a `ControlError` if the fleet cannot do what it is asked; its
    ``kind`` says why. A timeout does not take back what was asked for. Cancelling a method does not
    either. A request that gets no answer is repeated, and the fleet carries it out once.

    Args:
        name: the fleet's name; None for the only one that runs.
        answer_timeout: seconds for an answer, in addition to a command's own ``timeout``.

    Attributes:
        fleet: the fleet, once this is entered.
    """

    fleet: KnownFleet

    def __init__(self, name: str | None = None, *, answer_timeout: float = ANSWER_TIMEOUT) -> None:
        self._name = name
        self._answer_timeout = answer_timeout
        self._connection: ControlConnection | None = None
        self._awaited: dict[str, asyncio.Future[Answer]] = {}

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            ControlError: no such fleet runs (``"not-running"``), it does not answer
                (``"no-answer"``), or it has another version of the protocol (``"version"``).
        """
        self.fleet = find_fleet(self._name)
        self._connection = ControlConnection(str(self.fleet.socket))
        self._connection.attach(asyncio.get_running_loop(), self._read)
        try:
            await self.request("is-ready", Started(), dict[str, bool])
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect. Methods that wait for an answer raise ``"not-running"``."""
        self._close()

    # Reading

    async def status(self, *workers: str) -> FleetStatus:
        """Return how the fleet and its workers are; only these workers, if any are named."""
        return await self.request("status", Named(workers=workers), FleetStatus)

    async def is_ready(self, *workers: str, connected: bool = False) -> bool:
        """Whether all workers, or all of these, are READY.

        Args:
            workers: names or globs.
            connected: whether they must be CONNECTED as well.
        """
        wanted = Started(workers=workers, wait="connected" if connected else None)
        return all((await self.request("is-ready", wanted, dict[str, bool])).values())

    async def failures(self, *workers: str) -> list[dict[str, Any]]:
        """Return the last 20 dossiers of each worker since the fleet's start, oldest first.

        They have the fields of `WorkerDied`, and a readable ``report``.
        """
        return await self.request("failures", Named(workers=workers), list[dict[str, Any]])

    async def events(
        self, *, since_start: bool = False, follow: bool = True
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the events of the fleet, each with the name of its class as ``event``.

        The fleet keeps the last 5,000 events for its clients. Those that were not read in time are
        missed. Then ``{"event": "EventsMissed", "count": …}`` stands for them.

        Args:
            since_start: whether to begin with the events that the fleet has kept.
            follow: whether to wait for further events. Without it, the generator ends.

        Raises:
            ControlError: the fleet has ended (``"not-running"``), or does not answer.
        """
        last = 0
        if not since_start:
            last = (await self.request("events", Events(), EventsRead)).last
        while True:
            wanted = Events(after=last, wait=EVENTS_WAIT if follow else 0.0)
            read = await self.request("events", wanted, EventsRead, EVENTS_WAIT)
            if read.missed:
                yield {"event": "EventsMissed", "count": read.missed}
            for event in read.events:
                yield event
            if not (follow or read.events):
                return
            last = read.last

    # Acting

    async def start(
        self, *workers: str, wait: Wait | None = None, timeout: float = 60.0
    ) -> list[Acted]:
        """Start workers that are stopped or quarantined. One that runs already is a success.

        Args:
            workers: names or globs; at least one.
            wait: wait until all of them are READY, or CONNECTED.
            timeout: seconds to wait for all of them.
        """
        return await self._act("start", workers, wait, timeout)

    async def stop(self, *workers: str, wait: bool = False, timeout: float = 60.0) -> list[Acted]:
        """Stop workers gracefully, until `start`. One that is stopped already is a success.

        Args:
            workers: names or globs; at least one.
            wait: wait until all of them have stopped.
            timeout: seconds to wait for all of them.
        """
        return await self._act("stop", workers, "stopped" if wait else None, timeout)

    async def restart(
        self, *workers: str, wait: Wait | None = None, timeout: float = 60.0
    ) -> list[Acted]:
        """Restart workers side by side, with the fleet's present settings.

        A worker that is stopped is an error (``"wrong-state"``); then none is restarted.

        Args:
            workers: names or globs; at least one.
            wait: wait until the new processes are READY, or CONNECTED.
            timeout: seconds to wait for all of them.
        """
        return await self._act("restart", workers, wait, timeout)

    async def restart_all(self, *, rolling: bool = True, timeout: float = 60.0) -> list[Acted]:
        """Restart all workers that are not stopped, and wait until they are back.

        Args:
            rolling: one at a time; each must be READY, and CONNECTED if it has a network, before
                the next one is restarted.
            timeout: seconds; with ``rolling``, for each worker.
        """
        wanted = RestartAll(rolling=rolling, timeout=timeout)
        return await self.request("restart-all", wanted, list[Acted], None if rolling else timeout)

    async def pause(self, *workers: str) -> list[Acted]:
        """Hold back the ticks of workers until `resume`. Their connections stay."""
        return await self._act("pause", workers)

    async def resume(self, *workers: str) -> list[Acted]:
        """Undo `pause`."""
        return await self._act("resume", workers)

    async def reconnect(
        self, *workers: str, wait: Literal["connected"] | None = None, timeout: float = 60.0
    ) -> list[Acted]:
        """Have workers connect anew, now.

        Args:
            workers: names or globs; at least one.
            wait: wait until all of them have connected again.
            timeout: seconds to wait for all of them.
        """
        return await self._act("reconnect", workers, wait, timeout)

    async def reload(
        self, *, dry_run: bool = False, wait: Wait | None = None, timeout: float = 60.0
    ) -> Changes:
        """Have the fleet read its files again, and change only what differs; see docs/fleet.md.

        What `add` and `remove` did without saving it is undone. A file with a mistake changes
        nothing (``"bad-file"``).

        Args:
            dry_run: only return what would be done.
            wait: wait until the workers that were started or restarted are READY, or CONNECTED.
            timeout: seconds to wait.

        Returns:
            The workers that were stopped, started and restarted, and those whose supervision was
            changed.
        """
        wanted = Reload(dry_run=dry_run, wait=wait, timeout=timeout)
        return await self.request("reload", wanted, Changes, timeout)

    async def add(
        self,
        file: str | os.PathLike[str],
        *,
        save: bool = False,
        wait: Wait | None = None,
        timeout: float = 60.0,
    ) -> Changes:
        """Start the workers of a file, with the settings with which the fleet runs.

        Args:
            file: its path. It may have ``[[processor]]`` only. The fleet reads it, with its own
                environment variables and modules.
            save: append it to the fleet's last file. Otherwise the workers go with the next reload.
            wait: wait until they are READY, or CONNECTED.
            timeout: seconds to wait.
        """
        wanted = Add(file=_absolute(file), save=save, wait=wait, timeout=timeout)
        return await self.request("add", wanted, Changes, timeout)

    async def remove(self, *workers: str, save: bool = False, timeout: float = 60.0) -> Changes:
        """Stop workers gracefully, and forget them.

        Args:
            workers: names or globs; at least one.
            save: delete them from the fleet's files, too. Otherwise the next reload starts them.
            timeout: seconds to wait until they have stopped.
        """
        _check_named("remove", workers)
        wanted = Remove(workers=workers, save=save, timeout=timeout)
        return await self.request("remove", wanted, Changes, timeout)

    async def call(
        self,
        worker: str,
        method: str,
        /,
        *args: Any,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float = 5.0,
    ) -> Any:
        """Call a method that a processor marks with ``@remote``; see `WorkerHandle.call`.

        Args:
            worker: its name, or a glob that only one worker matches.
            method: the method's name.
            args: positional arguments, which msgspec must be able to encode.
            kwargs: keyword arguments.
            timeout: seconds for the method.

        Returns:
            What the method returned, as plain values.
        """
        try:
            wanted = Call(
                worker=worker, method=method, args=args, kwargs=dict(kwargs or {}), timeout=timeout
            )
            _encode(wanted)
        except (TypeError, ValueError, OverflowError) as error:
            problem = f"the arguments of {method!r} cannot be sent: {error}"
            raise ControlError(ErrorKind.BAD_ARGUMENTS.value, problem) from error
        return await self.request("call", wanted, ANYTHING, timeout)

    async def shutdown(self, *, wait: bool = False, timeout: float = 60.0) -> None:
        """Stop the fleet gracefully.

        Args:
            wait: wait until its process has given up its directory, just before it ends.
            timeout: seconds to wait.
        """
        await self.request("shutdown", Nothing(), str)
        if wait:
            try:
                async with asyncio.timeout(timeout):
                    # A lock that is released sends no event.
                    while self._is_alive():  # noqa: ASYNC110
                        await asyncio.sleep(LOOK_PAUSE)
            except TimeoutError:
                problem = f'the fleet "{self.fleet.name}" has not stopped within {timeout:g} s'
                raise ControlError(ErrorKind.TIMEOUT.value, problem) from None

    # The conversation

    async def _act(
        self,
        command: str,
        workers: Sequence[str],
        wait: Literal["ready", "connected", "stopped"] | None = None,
        timeout: float = 60.0,
    ) -> list[Acted]:
        _check_named(command, workers)
        wanted: Named = Named(workers=tuple(workers))
        if command not in ("pause", "resume"):
            wanted = Started(workers=tuple(workers), wait=wait, timeout=timeout)
        return await self.request(command, wanted, list[Acted], timeout if wait else 0.0)

    async def request(
        self,
        command: str,
        arguments: msgspec.Struct,
        result: type[T],
        takes: float | None = 0.0,
    ) -> T:
        """Send a request, and repeat it until there is an answer; the other methods use this.

        Args:
            command: its name.
            arguments: its arguments.
            result: the type of its result.
            takes: seconds that it may take before it is answered; None for no limit.
        """
        request = Request(
            protocol=PROTOCOL,
            id=uuid.uuid4().hex,
            command=command,
            arguments=msgspec.Raw(_encode(arguments)),
        )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._awaited[request.id] = future
        limit = None if takes is None else takes + self._answer_timeout
        try:
            async with asyncio.timeout(limit):
                answer = await self._answered(_encode(request), future)
        except TimeoutError:
            name, pid = self.fleet.name, self.fleet.pid
            problem = f'the fleet "{name}" (process {pid}) has not answered within {limit:g} s'
            raise ControlError(ErrorKind.NO_ANSWER.value, problem) from None
        finally:
            self._awaited.pop(request.id, None)
        if answer.error is not None:
            raise ControlError(answer.error.kind, answer.error.message)
        try:
            return msgspec.msgpack.decode(answer.result, type=result)
        except msgspec.ValidationError as error:
            problem = (
                f"the answer to {command!r} is not as this version of chronopype_mp "
                f"({CODE_VERSION}) expects it: {error}"
            )
            raise ControlError(ErrorKind.VERSION.value, problem) from error

    async def _answered(self, request: bytes, future: asyncio.Future[Answer]) -> Answer:
        while True:
            if self._connection is None:
                raise ControlError(ErrorKind.NOT_RUNNING.value, "the client is not connected")
            self._connection.send(request)
            await asyncio.wait([future], timeout=REPEAT_AFTER)
            if future.done():
                return future.result()
            if not self._is_alive():
                problem = f'the fleet "{self.fleet.name}" (process {self.fleet.pid}) has ended'
                raise ControlError(ErrorKind.NOT_RUNNING.value, problem)

    def _is_alive(self) -> bool:
        with contextlib.suppress(ControlError):
            return find_fleet(self.fleet.name).pid == self.fleet.pid
        return False

    def _read(self) -> None:
        if self._connection is None:
            return
        for message in self._connection.receive(READ_AT_ONCE):
            try:
                answer = _decode(message)
            except msgspec.DecodeError:
                continue  # the request is repeated, and then has no answer
            future = self._awaited.get(answer.id)
            if future is not None and not future.done():
                future.set_result(answer)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        for future in self._awaited.values():
            if not future.done():
                problem = ControlError(ErrorKind.NOT_RUNNING.value, "the client was closed")
                future.set_exception(problem)


def _absolute(file: str | os.PathLike[str]) -> str:
    return os.path.abspath(file)


def _check_named(command: str, workers: Sequence[str]) -> None:
    if not workers:
        problem = f'{command}: name at least one worker; "*" means all'
        raise ControlError(ErrorKind.BAD_ARGUMENTS.value, problem)
