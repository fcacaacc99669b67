"""What one incarnation has subscribed to, and which messages of its stream it is given.

Its edge is `chronopype_mp.worker.subscriber`; the owner's side is `core.retained_values`.

ZeroMQ filters by the beginnings of topics; the patterns are applied here. Every batch has the
number of its first message, so that messages that did not arrive are counted, and none is given
twice.

A new subscription also gets the values that are retained. The owner puts a `Mark` into the stream,
which arrives only after the subscription has taken effect. The values are those of the moment at
which the owner, which receives every retained message, has seen the mark itself. So a message
before the mark is in the values, or in the stream, or in both; a later one is in the stream.
::

    add ─▶ Asked: messages are held ─ Mark ─▶ Marked ─ last Values ─▶ values, held messages
              ▲ ask_again                        │ ask_again
              └──────────────────────────────────┘
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from msgspec import Raw

from chronopype_mp.core.message_counters import MessageCounters
from chronopype_mp.core.message_frames import (
    ANSWER,
    Mark,
    MessageBatch,
    Value,
    Values,
    decode_answer,
    decode_messages,
)
from chronopype_mp.core.topics import match_any

__all__ = ["BATCHES_HELD", "TOPICS_KNOWN", "Subscriptions"]

TOPICS_KNOWN = 20_000
"""Topics, counted for each publisher, whose last numbers are kept. A gap around the time at which
one is forgotten is not counted."""

BATCHES_HELD = 10_000
"""Batches that wait for retained values; further ones displace the oldest, which makes gaps."""


class _Place(NamedTuple):
    """The last message of a topic by one publisher.

    Attributes:
        serial: its number among all messages of the publisher.
        seq: its number among those of the topic; 0 if it is a retained value.
    """

    serial: int
    seq: int


class _Ready(NamedTuple):
    """Messages to give to the processor.

    Attributes:
        topic: their topic.
        payloads: those of the messages, not decoded.
        gap: how many are missing before them.
    """

    topic: str
    payloads: list[Raw]
    gap: int


class _Asked:
    """Retained values that are on their way.

    Attributes:
        before: the patterns whose values are there already.
        patterns: those whose values are not.
        is_marked: the mark of the present request has arrived.
        values: the parts that have arrived.
    """

    def __init__(self, before: tuple[str, ...]) -> None:
        self.before = before
        self.patterns: list[str] = []
        self.is_marked = False
        self.parts: list[Values] = []


class Subscriptions:
    """Sorts the stream of messages of one subscriber.

    Attributes:
        patterns: what it has subscribed to.
        request: the number of the last request for retained values.
        counters: the messages that were given to the processor, and the gaps before them: numbers
            that are missing between two of a topic.
    """

    def __init__(self) -> None:
        self.patterns: dict[str, None] = {}
        self.request = 0
        self._received = self._gaps = 0
        self._ready: deque[_Ready] = deque()
        self._asked: _Asked | None = None
        self._held: deque[tuple[str, MessageBatch]] = deque()
        self._places: dict[tuple[str, int, str], _Place] = {}
        self._chosen: dict[str, bool] = {}

    @property
    def counters(self) -> MessageCounters:
        """The counts so far."""
        return MessageCounters(self._received, self._gaps)

    @property
    def is_caught_up(self) -> bool:
        """Whether no retained values are on their way."""
        return self._asked is None

    def add(self, patterns: Iterable[str]) -> list[str]:
        """Subscribe, and hold messages of these topics until their retained values have arrived.

        Returns:
            The patterns that are new. If there are any, `ask` tells what to ask for.
        """
        new = [pattern for pattern in dict.fromkeys(patterns) if pattern not in self.patterns]
        if new:
            if self._asked is None:
                self._asked = _Asked(tuple(self.patterns))
            self._asked.patterns += new
            self.patterns |= dict.fromkeys(new)
            self._chosen.clear()
        return new

    def remove(self, patterns: Iterable[str]) -> list[str]:
        """Unsubscribe; messages of these topics are not given any more, not even waiting ones.

        Returns:
            The patterns that were subscribed to.
        """
        old = [pattern for pattern in dict.fromkeys(patterns) if pattern in self.patterns]
        for pattern in old:
            del self.patterns[pattern]
        self._chosen.clear()
        self._ready = deque(each for each in self._ready if self._chooses(each.topic))
        if self._asked is not None:
            self._asked.before = tuple(each for each in self._asked.before if each not in old)
            self._asked.patterns = [each for each in self._asked.patterns if each not in old]
            if not self._asked.patterns:
                self._give_held()
        return old

    def ask(self) -> Mark | None:
        """Return what to ask the owner for, as a new request; None if nothing is missing."""
        if self._asked is None:
            return None
        self.request += 1
        self._asked.is_marked, self._asked.parts = False, []
        return Mark(self.request, tuple(self._asked.patterns))

    @property
    def is_ready(self) -> bool:
        """Whether there are messages to give to the processor."""
        return bool(self._ready)

    def next(self) -> tuple[str, list[Raw]]:
        """Remove the next messages for the processor; return their topic and their payloads."""
        topic, payloads, gap = self._ready.popleft()
        self._gaps += gap
        self._received += len(payloads)
        return topic, payloads

    def put_back(self, topic: str, payloads: list[Raw]) -> None:
        """Take back the messages that were not given, unless they are unsubscribed by now."""
        self._received -= len(payloads)
        if payloads and self._chooses(topic):
            self._ready.appendleft(_Ready(topic, payloads, 0))

    def take(self, frame: bytes) -> None:
        """Take a frame of the stream.

        Raises:
            FrameError: it does not decode.
        """
        if frame.startswith(ANSWER):
            self._take_answer(decode_answer(frame)[1])
            return
        topic, batch = decode_messages(frame)
        if not self._chooses(topic):
            return
        if self._asked is not None and match_any(self._asked.patterns, topic):
            self._held.append((topic, batch))
            if len(self._held) > BATCHES_HELD:
                self._held.popleft()
        else:
            self._give(topic, batch)

    def _chooses(self, topic: str) -> bool:
        chosen = self._chosen.get(topic)
        if chosen is None:
            if len(self._chosen) >= TOPICS_KNOWN:
                self._chosen.clear()
            chosen = self._chosen[topic] = match_any(self.patterns, topic)
        return chosen

    def _take_answer(self, answer: Mark | Values) -> None:
        asked = self._asked
        if asked is None or answer.request != self.request:
            return
        if isinstance(answer, Mark):
            asked.is_marked = True
        elif asked.is_marked and answer.part == len(asked.parts):
            asked.parts.append(answer)
            if answer.is_last:
                self._give_values(asked)
                self._give_held()

    def _give_values(self, asked: _Asked) -> None:
        held: dict[tuple[str, int, str], list[MessageBatch]] = {}
        for topic, batch in self._held:
            held.setdefault((batch.worker, batch.incarnation, topic), []).append(batch)
        for part in asked.parts:
            for value in part.values:
                key = value.worker, value.incarnation, value.topic
                in_stream = any(
                    batch.serial <= value.serial <= batch.last for batch in held.get(key, ())
                )
                is_new = match_any(asked.patterns, value.topic)
                is_old = not is_new or match_any(asked.before, value.topic)
                if not in_stream and not is_old:
                    self._give_value(key, value)

    def _give_value(self, key: tuple[str, int, str], value: Value) -> None:
        place = self._places.get(key)
        if place is None or value.serial > place.serial:
            self._move(key, _Place(value.serial, 0))
            self._ready.append(_Ready(value.topic, [value.payload], 0))

    def _give_held(self) -> None:
        self._asked = None
        held, self._held = self._held, deque()
        for topic, batch in held:
            if self._chooses(topic):
                self._give(topic, batch)

    def _give(self, topic: str, batch: MessageBatch) -> None:
        key = batch.worker, batch.incarnation, topic
        place = self._places.get(key)
        payloads, gap = batch.payloads, 0
        if place is not None:
            if place.serial >= batch.serial:
                payloads = payloads[place.serial - batch.serial + 1 :]
                if not payloads:
                    return
            elif 0 < place.seq < batch.seq:
                gap = batch.seq - place.seq - 1
        self._move(key, _Place(batch.last, batch.seq + len(batch.payloads) - 1))
        self._ready.append(_Ready(topic, payloads, gap))

    def _move(self, key: tuple[str, int, str], place: _Place) -> None:
        """Note the last message of a topic; forget that of the topic that was quiet longest."""
        self._places.pop(key, None)
        self._places[key] = place
        if len(self._places) > TOPICS_KNOWN:
            del self._places[next(iter(self._places))]
