"""chronopype's publications: callbacks for a clock's start, ticks and stop."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from chronopype_mp.coordinator.callbacks import Guard, callback_problem

__all__ = ["Publication", "Publisher"]

EVENT_INFO = ("event", "tag", "clock")
"""What subscribers are called with, or with the first alone."""

Subscriber = Callable[..., object]


class Publication:
    """Something to subscribe to.

    Args:
        tag: its name.
        event_type: the class of its events.
    """

    def __init__(self, tag: str, event_type: type) -> None:
        self.tag = tag
        self.event_type = event_type

    def __repr__(self) -> str:
        return f"Publication({self.tag!r})"


class _Strong:
    """A subscribed function, which is held until it is removed."""

    def __init__(self, function: Subscriber, with_event_info: bool) -> None:
        self._function = function
        self.with_event_info = with_event_info

    def get(self) -> Subscriber | None:
        return self._function


class _Weak:
    """A subscribed callable object, which is not kept alive."""

    with_event_info = True

    def __init__(self, subscriber: Subscriber) -> None:
        self.get = weakref.ref(subscriber)


class Publisher:
    """Base of classes with publications.

    Publications are class attributes; those of other classes are refused.
    """

    def __init__(self) -> None:
        self._subscribers: dict[Publication, list[_Strong | _Weak]] = {}
        self._guard = Guard(self._exit)

    def add_subscriber_with_callback(
        self, publication: Publication, callback: Subscriber, with_event_info: bool = True
    ) -> None:
        """Call ``callback(event, tag, clock)`` in the clock's event loop, or ``callback(event)``.

        Adding the same function again changes nothing. What it raises is logged and goes no
        further; `KeyboardInterrupt` and `SystemExit` end the program once the event is dealt with.

        Args:
            publication: one of the clock's.
            callback: a plain function.
            with_event_info: False leaves out tag and clock.

        Raises:
            ValueError: the publication is not this clock's.
            TypeError: ``callback`` cannot be called with these arguments, or is a coroutine
                function.
        """
        arguments = EVENT_INFO if with_event_info else EVENT_INFO[:1]
        _check_callback("add_subscriber_with_callback", callback, arguments)
        self._add(publication, _Strong(callback, with_event_info))

    def remove_subscriber_with_callback(
        self, publication: Publication, callback: Subscriber
    ) -> None:
        """Stop calling ``callback``; does nothing if it is not subscribed."""
        self._remove(publication, callback)

    def add_subscriber(self, publication: Publication, subscriber: Subscriber) -> None:
        """Like `add_subscriber_with_callback` for a callable object, which is held weakly."""
        _check_callback("add_subscriber", subscriber, EVENT_INFO)
        self._add(publication, _Weak(subscriber))

    def remove_subscriber(self, publication: Publication, subscriber: Subscriber) -> None:
        """Undo `add_subscriber`."""
        self._remove(publication, subscriber)

    def publish(self, publication: Publication, event: object, caller: Any = None) -> None:
        """Call the subscribers, in the order in which they were added.

        Args:
            publication: one of the clock's.
            event: an instance of the publication's event class.
            caller: given to the subscribers; None means this clock.
        """
        self._check(publication)
        what = f"a subscriber of {publication.tag!r}"
        for entry in tuple(self._subscribers.get(publication, ())):
            subscriber = entry.get()
            if subscriber is None:
                self._subscribers[publication].remove(entry)
            elif entry.with_event_info:
                sender = self if caller is None else caller
                self._guard.call(what, subscriber, event, publication.tag, sender)
            else:
                self._guard.call(what, subscriber, event)

    def has_subscribers(self, publication: Publication) -> bool:
        """Whether the publication has any subscribers."""
        return bool(self._subscribers.get(publication))

    def _check(self, publication: Publication) -> None:
        own = (value for cls in type(self).__mro__ for value in vars(cls).values())
        if not any(value is publication for value in own):
            raise ValueError(f"{publication!r} is not a publication of {type(self).__name__}")

    def _add(self, publication: Publication, entry: _Strong | _Weak) -> None:
        self._check(publication)
        entries = self._subscribers.setdefault(publication, [])
        if all(known.get() != entry.get() for known in entries):
            entries.append(entry)
        self._subscriptions_changed()

    def _remove(self, publication: Publication, subscriber: Subscriber) -> None:
        self._check(publication)
        entries = self._subscribers.get(publication, [])
        entries[:] = [entry for entry in entries if entry.get() != subscriber]
        self._subscriptions_changed()

    def _subscriptions_changed(self) -> None:
        """React to a change of the subscriptions; for subclasses."""

    def _exit(self, error: BaseException) -> bool:
        """Raise a callback's exit where it ends the program; for subclasses, see `Guard`."""
        return False


def _check_callback(where: str, callback: object, arguments: tuple[str, ...]) -> None:
    problem = callback_problem(callback, *arguments)
    if problem is not None:
        raise TypeError(f"{where}: {callback!r} {problem}")
