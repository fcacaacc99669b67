"""What a fleet's control socket can be asked to do.

Every command is idempotent: what is done already is a success, and the answer says so.
"""

from __future__ import annotations

import asyncio
import fnmatch
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from chronopype_mp.clocks.base import BaseClock
from chronopype_mp.control.event_buffer import EventBuffer
from chronopype_mp.control.messages import (
    Acted,
    Add,
    Arguments,
    Call,
    ErrorKind,
    Events,
    EventsRead,
    FleetStatus,
    Named,
    Nothing,
    Reload,
    Remove,
    RestartAll,
    Started,
    WorkerRow,
)
from chronopype_mp.coordinator.handle import WorkerHandle
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.worker_events import WorkerStatus
from chronopype_mp.exceptions import (
    CallTimeoutError,
    CallValueError,
    ControlError,
    FleetError,
    NotRemoteError,
    RemoteError,
    WorkerError,
    WorkerUnavailableError,
)
from chronopype_mp.fleet.changes import Changes
from chronopype_mp.fleet.files import FleetFiles
from chronopype_mp.fleet.reading import nearest
from chronopype_mp.timing import monotonic, wall
from chronopype_mp.version import CODE_VERSION

__all__ = ["Command", "FleetCommands", "kind_of", "matching"]

DOWN = (WorkerStatus.STOPPED, WorkerStatus.STOPPING)

WAIT_PAUSE = 0.02
"""Seconds between two looks at workers. Not every change of one is an event of its clock."""

STATUS_LASTS = 0.05
"""Seconds for which the rows of all workers serve other clients, too, if no event comes."""


class Command(NamedTuple):
    """A command.

    Attributes:
        arguments: their class.
        run: carries it out. It may take long; it is cancelled when the fleet ends.
        changes: whether it changes something. A repeated request of one that does gets the first
            answer, however late it comes.
    """

    arguments: type[Arguments]
    run: Callable[[Any], Awaitable[Any]]
    changes: bool = True


def kind_of(error: Exception) -> ErrorKind:
    """Return the kind of a control error that stands for an exception."""
    if isinstance(error, ControlError):
        return ErrorKind(error.kind)
    if isinstance(error, RemoteError):
        return ErrorKind.FAILED  # before the others, because it may also be a TimeoutError
    kinds: tuple[tuple[type[Exception], ErrorKind], ...] = (
        (NotRemoteError, ErrorKind.NOT_SUPPORTED),
        (CallValueError, ErrorKind.BAD_ARGUMENTS),
        (FleetError, ErrorKind.BAD_FILE),
        (CallTimeoutError, ErrorKind.TIMEOUT),
        (WorkerUnavailableError, ErrorKind.WRONG_STATE),
        (WorkerError, ErrorKind.WRONG_STATE),
    )
    return next((kind for kinds_of, kind in kinds if isinstance(error, kinds_of)), ErrorKind.FAILED)


def matching(patterns: Iterable[str], names: Sequence[str]) -> list[str]:
    """Return the names that match, in their own order.

    Args:
        patterns: names, which match literally, or globs such as ``"feed-*"``.
        names: all that there are.

    Raises:
        ControlError: a pattern matches none.
    """
    found: set[str] = set()
    for pattern in patterns:
        matches = {pattern} if pattern in names else set(fnmatch.filter(names, pattern))
        if not matches:
            problem = f'"{pattern}": {nearest(pattern, names, "worker")}'
            raise ControlError(ErrorKind.UNKNOWN_WORKER.value, problem)
        found |= matches
    return [name for name in names if name in found]


class FleetCommands:
    """Carries out commands on the clock of a fleet.

    Args:
        name: the fleet's.
        clock: runs its workers. It need not be entered yet.
        stop: set to stop the fleet.
        events: the events of the clock.
        files: the files of the fleet; None if it has none.
    """

    def __init__(
        self,
        name: str,
        clock: BaseClock,
        stop: asyncio.Event,
        events: EventBuffer,
        files: FleetFiles | None = None,
    ) -> None:
        self._files = files
        self._name = name
        self._clock = clock
        self._stop = stop
        self._events = events
        self._rows: dict[str, WorkerRow] = {}
        self._rows_of = (0.0, -1)  # when they were made, and after which event

    @property
    def table(self) -> Mapping[str, Command]:
        """All commands by name."""
        return {
            "status": Command(Named, self._status, changes=False),
            "events": Command(Events, self._read_events, changes=False),
            "failures": Command(Named, self._failures, changes=False),
            "is-ready": Command(Started, self._is_ready, changes=False),
            "start": Command(Started, self._start),
            "stop": Command(Started, self._stop_workers),
            "restart": Command(Started, self._restart),
            "restart-all": Command(RestartAll, self._restart_all),
            "pause": Command(Named, self._pause),
            "resume": Command(Named, self._resume),
            "reconnect": Command(Started, self._reconnect),
            "reload": Command(Reload, self._reload),
            "add": Command(Add, self._add),
            "remove": Command(Remove, self._remove),
            "call": Command(Call, self._call),
            "shutdown": Command(Nothing, self._shutdown),
        }

    # Reading

    async def _status(self, wanted: Named) -> FleetStatus:
        now, events = monotonic(), self._events.last
        if now - self._rows_of[0] > STATUS_LASTS or self._rows_of[1] != events:
            self._rows = {handle.name: _row(handle) for handle in self._clock.workers}
            self._rows_of = now, events
        names = list(self._rows)
        chosen = matching(wanted.workers, names) if wanted.workers else names
        return FleetStatus(
            fleet=self._name,
            pid=os.getpid(),
            version=CODE_VERSION,
            ticks=self._clock.tick_counter,
            tick_size=self._clock.tick_size,
            is_stopping=self._stop.is_set(),
            workers=tuple(self._rows[name] for name in chosen),
        )

    async def _read_events(self, wanted: Events) -> EventsRead:
        after = self._events.last if wanted.after is None else wanted.after
        if wanted.wait and self._events.last <= after:
            try:
                async with asyncio.timeout(wanted.wait):
                    await self._events.next()
            except TimeoutError:
                pass
        return self._events.after(after)

    async def _failures(self, wanted: Named) -> list[dict[str, Any]]:
        names = [handle.name for handle in self._clock.workers]
        names += [name for name in self._events.died if name not in names]
        chosen = matching(wanted.workers, names) if wanted.workers else names
        dossiers = [each for name in chosen for each in self._events.dossiers(name)]
        return sorted(dossiers, key=lambda dossier: float(dossier["at"]))

    async def _is_ready(self, wanted: Started) -> dict[str, bool]:
        is_in_state = _is_connected if wanted.wait == "connected" else _is_ready
        return {handle.name: is_in_state(handle) for handle in self._chosen(wanted.workers)}

    # Acting

    async def _start(self, wanted: Started) -> list[Acted]:
        def start(handle: WorkerHandle) -> str:
            status = handle.status
            handle.start()
            if status in (*DOWN, WorkerStatus.QUARANTINED):
                return "starting"
            return f"was {status.value} already"

        handles = self._chosen(wanted.workers)
        done = _each(handles, start)
        await _wait(handles, wanted)
        return done

    async def _stop_workers(self, wanted: Started) -> list[Acted]:
        def stop(handle: WorkerHandle) -> str:
            status = handle.status
            handle.stop()
            return f"was {status.value} already" if status in DOWN else "stopping"

        handles = self._chosen(wanted.workers)
        done = _each(handles, stop)
        await _wait(handles, wanted)
        return done

    async def _restart(self, wanted: Started) -> list[Acted]:
        handles = self._chosen(wanted.workers)
        for handle in handles:
            if handle.status in DOWN:
                problem = f"is {handle.status.value}; start it instead"
                raise ControlError(ErrorKind.WRONG_STATE.value, f"worker {handle.name!r} {problem}")
        restarts = [asyncio.ensure_future(handle.restart()) for handle in handles]
        try:
            await asyncio.sleep(0)  # all of them have been asked for
            if wanted.wait is not None:
                await _bounded(asyncio.gather(*restarts), handles, wanted)
                await _wait(handles, wanted)
            for restart in restarts:
                if restart.done():
                    restart.result()
        finally:
            for restart in restarts:
                restart.cancel()  # takes nothing back
            await asyncio.gather(*restarts, return_exceptions=True)
        did = "restarting" if wanted.wait is None else "restarted"
        return [Acted(worker=handle.name, did=did) for handle in handles]

    async def _restart_all(self, wanted: RestartAll) -> list[Acted]:
        names = [handle.name for handle in self._clock.workers if handle.status not in DOWN]
        if not wanted.rolling:
            if not names:
                return []
            started = Started(workers=tuple(names), wait="ready", timeout=wanted.timeout)
            return await self._restart(started)
        await self._clock.restart_all(timeout=wanted.timeout)
        return [Acted(worker=name, did="restarted") for name in names]

    async def _pause(self, wanted: Named) -> list[Acted]:
        return _each(self._chosen(wanted.workers), lambda handle: _done(handle.pause, "paused"))

    async def _resume(self, wanted: Named) -> list[Acted]:
        return _each(self._chosen(wanted.workers), lambda handle: _done(handle.resume, "resumed"))

    async def _reconnect(self, wanted: Started) -> list[Acted]:
        handles = self._chosen(wanted.workers)
        connects = {handle.name: handle.statistics().connects for handle in handles}
        done = _each(handles, lambda handle: _done(handle.reconnect, "reconnecting"))
        if wanted.wait is not None:
            # The status is that of before until the worker has obeyed.
            await _until(
                handles,
                lambda h: _is_connected(h) and h.statistics().connects > connects[h.name],
                "connected again",
                wanted.timeout,
            )
        return done

    async def _reload(self, wanted: Reload) -> Changes:
        files = self._fleet_files()
        if wanted.dry_run:
            return await files.preview()
        return await self._changed(files.reload(), wanted)

    async def _add(self, wanted: Add) -> Changes:
        return await self._changed(self._fleet_files().add(wanted.file, wanted.save), wanted)

    async def _remove(self, wanted: Remove) -> Changes:
        names = [handle.name for handle in self._chosen(wanted.workers)]
        return await self._changed(self._fleet_files().remove(names, wanted.save), wanted)

    def _fleet_files(self) -> FleetFiles:
        if self._files is None:
            raise ControlError(ErrorKind.NOT_SUPPORTED.value, "this fleet was not read from files")
        return self._files

    async def _changed(self, change: asyncio.Task[Changes], wanted: Started) -> Changes:
        """Wait for a change of the fleet, and for its new processes if that is wanted."""
        deadline = monotonic() + wanted.timeout
        done, _ = await asyncio.wait({change}, timeout=wanted.timeout)
        if not done:
            problem = f"not done within {wanted.timeout:g} s; the fleet goes on with it"
            raise ControlError(ErrorKind.TIMEOUT.value, problem)
        changes = change.result()
        started = (*changes.start, *changes.restart)
        if wanted.wait is not None and started:
            left = max(0.0, deadline - monotonic())
            await _wait(self._chosen(started), msgspec.structs.replace(wanted, timeout=left))
        return changes

    async def _call(self, wanted: Call) -> Any:
        (handle,) = self._chosen((wanted.worker,), most=1)
        return await handle.call(
            wanted.method, *wanted.args, timeout=wanted.timeout, **wanted.kwargs
        )

    async def _shutdown(self, wanted: Nothing) -> str:
        did = "was stopping already" if self._stop.is_set() else "stopping"
        self._stop.set()
        return did

    def _chosen(self, patterns: Sequence[str], most: int | None = None) -> list[WorkerHandle]:
        handles = {handle.name: handle for handle in self._clock.workers}
        names = matching(patterns, list(handles)) if patterns else list(handles)
        if most is not None and len(names) > most:
            problem = f"{patterns[0]!r} means {len(names)} workers; name one"
            raise ControlError(ErrorKind.BAD_ARGUMENTS.value, problem)
        return [handles[name] for name in names]


def _done(act: Callable[[], None], did: str) -> str:
    act()
    return did


def _each(handles: Iterable[WorkerHandle], act: Callable[[WorkerHandle], str]) -> list[Acted]:
    """Do something to all workers, also if it fails for some.

    Raises:
        ControlError: it has failed; the message names each of those workers.
    """
    done, errors = [], []
    for handle in handles:
        try:
            done.append(Acted(worker=handle.name, did=act(handle)))
        except WorkerError as error:
            errors.append(error)
    if errors:
        raise ControlError(kind_of(errors[0]).value, "; ".join(map(str, errors)))
    return done


async def _wait(handles: Sequence[WorkerHandle], wanted: Started) -> None:
    if wanted.wait == "connected":
        await _until(handles, _is_connected, "connected", wanted.timeout)
    elif wanted.wait == "ready":
        await _until(handles, _is_ready, "ready", wanted.timeout)
    elif wanted.wait == "stopped":
        await _until(handles, lambda h: h.status is WorkerStatus.STOPPED, "stopped", wanted.timeout)


async def _until(
    handles: Sequence[WorkerHandle],
    is_so: Callable[[WorkerHandle], bool],
    state: str,
    timeout: float,
) -> None:
    """Wait until all workers are in a state.

    Raises:
        ControlError: they are not in time, or one of them is down and will not be.
    """
    deadline = monotonic() + timeout
    while missing := [handle for handle in handles if not is_so(handle)]:
        # One that is STOPPING may have been told to start again after that.
        final = (WorkerStatus.STOPPED, WorkerStatus.QUARANTINED)
        gone = [handle for handle in missing if handle.status in final]
        if gone:
            problem = f"will not be {state}: {_listed(gone)}"
            raise ControlError(ErrorKind.WRONG_STATE.value, problem)
        if monotonic() >= deadline:
            problem = f"not {state} within {timeout:g} s: {_listed(missing)}"
            raise ControlError(ErrorKind.TIMEOUT.value, problem)
        await asyncio.sleep(WAIT_PAUSE)


async def _bounded(
    awaited: Awaitable[Any], handles: Sequence[WorkerHandle], wanted: Started
) -> None:
    try:
        async with asyncio.timeout(wanted.timeout):
            await awaited
    except TimeoutError:
        missing = [handle for handle in handles if not _is_ready(handle)]
        problem = f"not ready within {wanted.timeout:g} s: {_listed(missing)}"
        raise ControlError(ErrorKind.TIMEOUT.value, problem) from None


def _is_ready(handle: WorkerHandle) -> bool:
    return handle.status is WorkerStatus.READY


def _is_connected(handle: WorkerHandle) -> bool:
    return _is_ready(handle) and handle.network_status is NetworkStatus.CONNECTED


def _listed(handles: Iterable[WorkerHandle]) -> str:
    rows = []
    for handle in handles:
        reason = f": {handle.network_reason}" if handle.network_reason else ""
        network = f", network {handle.network_status.name}{reason}"
        has_network = handle.network_status is not NetworkStatus.STOPPED
        rows.append(f"{handle.name} ({handle.status.value}{network if has_network else ''})")
    return "; ".join(rows)


def _row(handle: WorkerHandle) -> WorkerRow:
    figures, state, death = handle.statistics(), handle.state, handle.last_failure
    last_death = None if death is None else death.detail or death.reason.value
    heard = figures.last_heard
    return WorkerRow(
        worker=handle.name,
        status=handle.status.value,
        network_status=handle.network_status.name,
        network_reason=figures.network_reason,
        next_attempt=figures.next_attempt,
        pid=handle.pid,
        incarnation=handle.incarnation,
        restarts=figures.restarts,
        is_paused=_is_ready(handle) and not state.is_active,
        uptime=figures.uptime,
        heard=None if heard is None else max(0.0, wall() - heard),
        published=figures.published,
        run=figures.run,
        missed=figures.missed,
        skipped=figures.skipped,
        lost=figures.lost,
        lateness_p50=figures.lateness.percentile(50),
        lateness_p99=figures.lateness.percentile(99),
        check_p50=figures.check_latency.percentile(50),
        check_p99=figures.check_latency.percentile(99),
        connects=figures.connects,
        lag=figures.lag,
        rss=figures.rss,
        cpu=figures.cpu,
        last_error=state.last_error or figures.network_error or last_death,
    )
