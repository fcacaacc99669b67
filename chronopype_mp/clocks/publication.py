"""chronopype's publications: callbacks for a clock's start, ticks and stop."""

from __future__ import annotations

import inspect
import logging
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["Publication", "Publisher"]

logger = logging.getLogger("chronopype_mp.events")

Subscriber = Callable[..., object]


class Publication:
    """Something that can be subscribed to.

    Args:
        tag: its name.
        event_type: the type of its events.
    """

    def __init__(self, tag: str, event_type: type) -> None:
        self.tag = tag
        self.event_type = event_type

    def __repr__(self) -> str:
        return f"Publication({self.tag!r})"


class _Callback:
    """A subscribed function; held until it is removed."""

    def __init__(self, function: Subscriber, with_event_info: bool) -> None:
        self.key: object = function
        self._function = function
        self._with_event_info = with_event_info

    def call(self, event: object, tag: str, caller: object) -> bool:
        """Call it; return whether it is still there."""
        if self._with_event_info:
            self._function(event, tag, caller)
        else:
            self._function(event)
        return True


class _Weak:
    """A subscribed object, called like a function; not kept alive."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._reference = weakref.ref(subscriber)

    @property
    def key(self) -> object:
        return self._reference()

    def call(self, event: object, tag: str, caller: object) -> bool:
        subscriber = self._reference()
        if subscriber is None:
            return False
        subscriber(event, tag, caller)
        return True


class Publisher:
    """What has publications. They are class attributes; a foreign one is refused."""

    def __init__(self) -> None:
        self._subscribers: dict[Publication, list[_Callback | _Weak]] = {}

    def add_subscriber_with_callback(
        self, publication: Publication, callback: Subscriber, with_event_info: bool = True
    ) -> None:
        """Call ``callback(event, tag, clock)`` in the clock's event loop, or ``callback(event)``.

        Adding the same function again changes nothing. What it raises is logged.

        Args:
            publication: one of the clock's.
            callback: a plain function; a coroutine would not be awaited.
            with_event_info: False leaves out tag and clock.

        Raises:
            ValueError: the publication is not this clock's.
            TypeError: ``callback`` is a coroutine function.
        """
        if inspect.iscoroutinefunction(callback):
            raise TypeError(f"{callback!r} is a coroutine function; give a plain one")
        self._add(publication, _Callback(callback, with_event_info))

    def remove_subscriber_with_callback(
        self, publication: Publication, callback: Subscriber
    ) -> None:
        """Stop calling ``callback``; one that is not subscribed is no error."""
        self._remove(publication, callback)

    def add_subscriber(self, publication: Publication, subscriber: Subscriber) -> None:
        """Like `add_subscriber_with_callback` for a callable object, which is held weakly."""
        self._add(publication, _Weak(subscriber))

    def remove_subscriber(self, publication: Publication, subscriber: Subscriber) -> None:
        """Undo `add_subscriber`."""
        self._remove(publication, subscriber)

    def publish(self, publication: Publication, event: object, caller: Any = None) -> None:
        """Call the subscribers now, in the order in which they were added.

        Args:
            publication: one of the clock's.
            event: of the publication's type.
            caller: given to the subscribers; None is this clock.
        """
        self._check(publication)
        for entry in tuple(self._subscribers.get(publication, ())):
            try:
                there = entry.call(event, publication.tag, self if caller is None else caller)
            except Exception:
                logger.exception("a subscriber of %r failed", publication.tag)
                continue
            if not there:
                self._subscribers[publication].remove(entry)

    def has_subscribers(self, publication: Publication) -> bool:
        """Whether anybody would be called."""
        return bool(self._subscribers.get(publication))

    def _check(self, publication: Publication) -> None:
        own = (value for cls in type(self).__mro__ for value in vars(cls).values())
        if not any(value is publication for value in own):
            raise ValueError(f"{publication!r} is none of {type(self).__name__}'s publications")

    def _add(self, publication: Publication, entry: _Callback | _Weak) -> None:
        self._check(publication)
        entries = self._subscribers.setdefault(publication, [])
        if all(known.key != entry.key for known in entries):
            entries.append(entry)
        self._subscriptions_changed()

    def _remove(self, publication: Publication, key: object) -> None:
        self._check(publication)
        entries = self._subscribers.get(publication, [])
        entries[:] = [entry for entry in entries if entry.key != key]
        self._subscriptions_changed()

    def _subscriptions_changed(self) -> None:
        """Take note; overridden."""
