"""EventRecorder, which records events and waits for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from chronopype_mp.core.worker_events import Event

if TYPE_CHECKING:
    from chronopype_mp.coordinator.stream import EventStream

__all__ = ["EventRecorder"]

E = TypeVar("E", bound=Event)


class EventRecorder:
    """Records all events of a clock from now on.

    Args:
        stream: ``clock.events``.

    Attributes:
        events: all events so far, oldest first.
    """

    def __init__(self, stream: EventStream) -> None:
        self.events: list[Event] = []
        self._arrived = asyncio.Event()
        stream.subscribe(self._take)

    def _take(self, event: Event) -> None:
        self.events.append(event)
        self._arrived.set()

    def of(self, kind: type[E], **fields: object) -> list[E]:
        """Return the recorded events of a type whose fields have these values."""
        return [
            event
            for event in self.events
            if isinstance(event, kind)
            and all(getattr(event, name) == value for name, value in fields.items())
        ]

    async def wait_for(
        self, kind: type[E], *, count: int = 1, timeout: float = 10.0, **fields: object
    ) -> E:
        """Wait for an event. Events that were recorded earlier count too.

        Args:
            kind: the type of the event.
            count: wait for the ``count``-th matching event.
            timeout: seconds.
            fields: values that the event's fields must have.

        Returns:
            The ``count``-th matching event.

        Raises:
            TimeoutError: the event did not occur in time. The message lists the recorded events.
        """
        try:
            async with asyncio.timeout(timeout):
                while len(found := self.of(kind, **fields)) < count:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            seen = "\n".join(f"  {event!r}" for event in self.events) or "  nothing"
            raise TimeoutError(
                f"no {kind.__name__} with {fields} (number {count}) within {timeout} s; "
                f"recorded events:\n{seen}"
            ) from None
        return found[count - 1]
