"""EventRecorder: what happened so far, and waiting for what shall happen."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from chronopype_mp.core.events import Event

if TYPE_CHECKING:
    from chronopype_mp.coordinator.stream import EventStream

__all__ = ["EventRecorder"]

E = TypeVar("E", bound=Event)


class EventRecorder:
    """Keeps all events of a clock from now on.

    Args:
        stream: ``clock.events``.

    Attributes:
        events: all so far, oldest first.
    """

    def __init__(self, stream: EventStream) -> None:
        self.events: list[Event] = []
        self._arrived = asyncio.Event()
        stream.subscribe(self._take)

    def _take(self, event: Event) -> None:
        self.events.append(event)
        self._arrived.set()

    def of(self, kind: type[E], **fields: object) -> list[E]:
        """Return the events of a kind so far whose fields have these values."""
        return [
            event
            for event in self.events
            if isinstance(event, kind)
            and all(getattr(event, name) == value for name, value in fields.items())
        ]

    async def wait_for(
        self, kind: type[E], *, count: int = 1, timeout: float = 10.0, **fields: object
    ) -> E:
        """Wait for an event, one of the past included.

        Args:
            kind: its type.
            count: wait for the ``count``-th that fits.
            timeout: seconds.
            fields: values that its fields must have.

        Returns:
            The ``count``-th event that fits.

        Raises:
            TimeoutError: it did not come; the message lists what did.
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
                f"what came was:\n{seen}"
            ) from None
        return found[count - 1]
