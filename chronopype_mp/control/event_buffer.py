"""Keeps the last events of a fleet for clients, which read them by their numbers.

There is one buffer for all clients. A client that reads too slowly, or not at all, costs nothing;
it is told how many events it has missed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import msgspec

from chronopype_mp.control.messages import EventsRead
from chronopype_mp.core.worker_events import Event, WorkerDied

__all__ = ["EventBuffer", "record_of"]

EVENTS_KEPT = 5_000
BYTES_KEPT = 8_000_000
"""About."""

MOST_AT_ONCE = 500
"""Events in an answer."""

BYTES_AT_ONCE = 1_000_000

DOSSIERS_KEPT = 20
"""Of each worker; as many as there are files of it."""


def record_of(event: Event) -> dict[str, Any]:
    """Return an event as plain values: its class's name as ``event``, and its fields."""
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    fields.pop("final_states", None)  # of all processors, when the clock stops
    record = msgspec.to_builtins({"event": type(event).__name__, **fields}, enc_hook=repr)
    plain: dict[str, Any] = _without_surrogates(record)
    return plain


def _without_surrogates(value: Any) -> Any:
    """Escape what msgpack cannot hold, such as bytes of a file name that are not UTF-8."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(each) for each in value]
    return value


class EventBuffer:
    """The last events, numbered from 1, and the last dossiers of each worker."""

    def __init__(self) -> None:
        self.last = 0
        self._kept: deque[tuple[dict[str, Any], int]] = deque()  # with its size
        self._bytes = 0
        self._dossiers: dict[str, deque[dict[str, Any]]] = {}
        self._waiting: set[asyncio.Future[None]] = set()

    def put(self, event: Event) -> None:
        """Keep an event."""
        record = record_of(event)
        size = len(msgspec.msgpack.encode(record))
        self._kept.append((record, size))
        self._bytes += size
        self.last += 1
        while len(self._kept) > EVENTS_KEPT or self._bytes > BYTES_KEPT:
            self._bytes -= self._kept.popleft()[1]
        if isinstance(event, WorkerDied):
            of_worker = self._dossiers.setdefault(event.worker, deque(maxlen=DOSSIERS_KEPT))
            of_worker.append(record | {"report": _without_surrogates(str(event))})
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()

    def after(self, number: int) -> EventsRead:
        """Return the events after a number; not all, if there are many."""
        oldest = self.last - len(self._kept) + 1
        first = max(oldest, min(number, self.last) + 1)
        events: list[dict[str, Any]] = []
        size = 0
        for index in range(first - oldest, len(self._kept)):
            record, record_size = self._kept[index]
            if events and (len(events) == MOST_AT_ONCE or size + record_size > BYTES_AT_ONCE):
                break
            events.append(record)
            size += record_size
        missed = max(0, first - number - 1)
        return EventsRead(events=tuple(events), last=first + len(events) - 1, missed=missed)

    def next(self) -> asyncio.Future[None]:
        """Return a future that is done after the next event."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter.add_done_callback(self._waiting.discard)
        self._waiting.add(waiter)
        return waiter

    def dossiers(self, worker: str) -> list[dict[str, Any]]:
        """Return the last dossiers of a worker, oldest first, with a readable ``report``."""
        return list(self._dossiers.get(worker, ()))

    @property
    def died(self) -> list[str]:
        """The workers of which there are dossiers; they may have been removed since."""
        return list(self._dossiers)
