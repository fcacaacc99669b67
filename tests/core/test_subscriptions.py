"""A subscriber gets retained values and messages: in order, none twice, every gap counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.codec import FrameError
from chronopype_mp.core.message_counters import MessageCounters
from chronopype_mp.core.message_frames import (
    answer_topic,
    decode_messages,
    encode_answer,
    encode_messages,
    message_topic,
)
from chronopype_mp.core.retained_values import RetainedValues
from chronopype_mp.core.subscriptions import BATCHES_HELD, TOPICS_KNOWN, Subscriptions

Sent = tuple[str, int]
"""A topic, and the number of the message among all that its publisher has sent."""


class Publisher:
    """Numbers messages like a worker; a payload is the number of the message.

    Those of a second process are a million higher.
    """

    def __init__(self, incarnation: int = 1, worker: str = "feed") -> None:
        self.worker, self.incarnation = worker, incarnation
        self.serial = 0
        self.seqs: dict[str, int] = {}

    def send(self, topic: str, count: int = 1, *, retain: bool = False) -> bytes:
        serial, seq = self.serial + 1, self.seqs.get(topic, 0) + 1
        self.serial += count
        self.seqs[topic] = seq + count - 1
        number = serial + 1_000_000 * (self.incarnation - 1)
        payloads = [msgspec.msgpack.encode(number + more) for more in range(count)]
        key = message_topic(topic, retain=retain)
        return encode_messages(key, self.worker, self.incarnation, serial, seq, payloads)


def given_to(subscriber: Subscriptions) -> list[Sent]:
    """Return the messages that the processor is given, and take them."""
    taken: list[Sent] = []
    while subscriber.is_ready:
        topic, payloads = subscriber.next()
        taken += [(topic, msgspec.msgpack.decode(each, type=int)) for each in payloads]
    return taken


def answer(subscriber: Subscriptions, owner: RetainedValues, *, parts: int = 100) -> None:
    """Ask the owner, and deliver the mark and up to ``parts`` parts of its answer."""
    mark = subscriber.ask()
    assert mark is not None
    topic = answer_topic("a", 1, mark.request)
    subscriber.take(encode_answer(topic, mark))
    for values in list(owner.answer(mark.request, mark.patterns))[:parts]:
        subscriber.take(encode_answer(topic, values))


def subscribed(*patterns: str) -> Subscriptions:
    """Return a subscriber that has all retained values, of which there are none."""
    subscriber = Subscriptions()
    subscriber.add(patterns)
    answer(subscriber, RetainedValues())
    return subscriber


def owner_of(frames: Sequence[bytes]) -> RetainedValues:
    owner = RetainedValues()
    for frame in frames:
        if frame.startswith(b"r"):
            owner.put(*decode_messages(frame))
    return owner


def test_messages_of_the_topics_that_a_pattern_chooses_are_given_in_order() -> None:
    feed, subscriber = Publisher(), subscribed("prices.*", "orders")
    for topic in ("prices.btc", "news", "orders", "prices.eth.usd", "prices.btc"):
        subscriber.take(feed.send(topic))
    assert given_to(subscriber) == [("prices.btc", 1), ("orders", 3), ("prices.btc", 5)]


def test_messages_wait_for_the_retained_values_of_their_topics_and_those_of_others_do_not() -> None:
    feed, subscriber = Publisher(), subscribed("orders")
    retained = feed.send("prices.btc", retain=True)
    subscriber.add(["prices.*"])
    subscriber.take(feed.send("prices.btc"))
    subscriber.take(feed.send("orders"))
    assert given_to(subscriber) == [("orders", 3)]
    assert not subscriber.is_caught_up
    answer(subscriber, owner_of([retained]))
    assert given_to(subscriber) == [("prices.btc", 1), ("prices.btc", 2)]
    assert subscriber.is_caught_up


def test_a_retained_value_that_is_in_the_stream_too_is_given_once_in_its_place() -> None:
    feed, subscriber = Publisher(), Subscriptions()
    subscriber.add(["a"])
    first, second = feed.send("a", 2, retain=True), feed.send("a", 3, retain=True)
    for frame in (first, second):
        subscriber.take(frame)
    answer(subscriber, owner_of([first, second]))
    assert given_to(subscriber) == [("a", number) for number in range(1, 6)]


def test_a_message_that_came_before_the_retained_value_is_given_twice_by_nobody() -> None:
    """Also if the stream has it again: it is older than what was given."""
    feed, subscriber = Publisher(), Subscriptions()
    frames = [feed.send("a", retain=True) for _ in range(3)]
    subscriber.add(["a"])
    answer(subscriber, owner_of(frames))
    for frame in frames:
        subscriber.take(frame)
    subscriber.take(feed.send("a"))
    assert given_to(subscriber) == [("a", 3), ("a", 4)]
    assert subscriber.counters == MessageCounters(received=2, gaps=0)


def test_values_without_their_mark_are_from_before_the_subscription_and_not_taken() -> None:
    feed, subscriber = Publisher(), Subscriptions()
    subscriber.add(["a"])
    mark = subscriber.ask()
    assert mark is not None
    owner = owner_of([feed.send("a", retain=True)])
    topic = answer_topic("a", 1, mark.request)
    for values in owner.answer(mark.request, mark.patterns):
        subscriber.take(encode_answer(topic, values))
    assert not subscriber.is_caught_up
    answer(subscriber, owner)
    assert given_to(subscriber) == [("a", 1)]


def test_a_request_of_which_a_part_is_lost_is_made_again() -> None:
    feed, subscriber, owner = Publisher(), Subscriptions(), RetainedValues()
    for number in range(3):
        frame = feed.send(f"t{number}", retain=True)
        topic, batch = decode_messages(frame)
        large = msgspec.Raw(msgspec.msgpack.encode(bytes(65536)))
        owner.put(topic, msgspec.structs.replace(batch, payloads=[large]))
    subscriber.add(["**"])
    answer(subscriber, owner, parts=2)
    assert not subscriber.is_caught_up
    assert not subscriber.is_ready
    answer(subscriber, owner)
    assert [subscriber.next()[0] for _ in range(3)] == ["t0", "t1", "t2"]


def test_a_second_subscription_to_a_topic_does_not_give_its_value_again() -> None:
    feed, subscriber = Publisher(), Subscriptions()
    owner = owner_of([feed.send("a.b", retain=True), feed.send("a.c", retain=True)])
    subscriber.add(["a.b"])
    answer(subscriber, owner)
    subscriber.add(["a.*"])
    answer(subscriber, owner)
    assert given_to(subscriber) == [("a.b", 1), ("a.c", 2)]
    assert subscriber.add(["a.*"]) == []
    assert subscriber.ask() is None


def test_after_unsubscribing_nothing_of_a_topic_is_given_not_even_what_waits() -> None:
    feed, subscriber = Publisher(), subscribed("a", "b")
    subscriber.take(feed.send("a"))
    subscriber.take(feed.send("b"))
    assert subscriber.remove(["a", "x"]) == ["a"]
    subscriber.take(feed.send("a"))
    assert given_to(subscriber) == [("b", 2)]


def test_messages_that_were_put_back_come_first_and_count_once() -> None:
    feed, subscriber = Publisher(), subscribed("a", "b")
    for topic in ("a", "a", "b"):
        feed.send(topic)
        subscriber.take(feed.send(topic, 3))
    first, (topic, payloads) = subscriber.next(), subscriber.next()
    subscriber.put_back(topic, payloads[1:])
    assert subscriber.counters == MessageCounters(received=3 + 1, gaps=1)
    assert [number for _, number in given_to(subscriber)] == [7, 8, 10, 11, 12]
    assert subscriber.counters == MessageCounters(received=9, gaps=1)
    subscriber.remove(["a"])
    subscriber.put_back(*first)
    assert not subscriber.is_ready


def test_unsubscribing_ends_the_wait_for_retained_values() -> None:
    feed, subscriber = Publisher(), Subscriptions()
    subscriber.add(["a"])
    subscriber.take(feed.send("a"))
    subscriber.remove(["a"])
    assert subscriber.is_caught_up
    assert given_to(subscriber) == []


def test_numbers_that_are_missing_between_two_messages_are_counted() -> None:
    feed, subscriber = Publisher(), subscribed("**")
    for count, arrives in ((1, True), (2, False), (3, True), (1, False), (1, True)):
        frame = feed.send("a", count)
        other = feed.send("b")  # makes no gap in "a"
        if arrives:
            subscriber.take(frame)
            subscriber.take(other)
    assert len(given_to(subscriber)) == 8
    assert subscriber.counters == MessageCounters(received=8, gaps=2 + 1 + 2)


def test_a_new_process_of_a_publisher_begins_without_a_gap() -> None:
    old, new, subscriber = Publisher(1), Publisher(2), subscribed("a")
    subscriber.take(old.send("a", 5))
    old.send("a", 5)
    subscriber.take(new.send("a"))
    assert len(given_to(subscriber)) == 6
    assert subscriber.counters == MessageCounters(received=6, gaps=0)


def test_a_topic_that_its_publisher_has_forgotten_begins_again_without_a_gap() -> None:
    feed, subscriber = Publisher(), subscribed("a")
    subscriber.take(feed.send("a", 5))
    feed.seqs.clear()
    subscriber.take(feed.send("a", 2))
    assert len(given_to(subscriber)) == 7
    assert subscriber.counters == MessageCounters(received=7, gaps=0)


def test_topics_used_once_leave_a_bounded_number_behind() -> None:
    feed, subscriber = Publisher(), subscribed("**")
    for number in range(TOPICS_KNOWN + 5000):
        subscriber.take(feed.send(f"t{number}"))
        given_to(subscriber)
    assert len(subscriber._places) <= TOPICS_KNOWN
    assert len(subscriber._chosen) <= TOPICS_KNOWN


def test_too_many_messages_that_wait_for_retained_values_displace_the_oldest() -> None:
    feed, subscriber = Publisher(), subscribed("**")
    subscriber.take(feed.send("b"))
    subscriber.remove(["**"])
    subscriber.add(["a"])
    for _ in range(BATCHES_HELD + 5):
        subscriber.take(feed.send("a"))
    answer(subscriber, RetainedValues())
    numbers = [number for topic, number in given_to(subscriber) if topic == "a"]
    assert numbers == list(range(7, BATCHES_HELD + 7))


@pytest.mark.parametrize("frame", [b"", b"a", b"m\0\xc1", b"r"])
def test_a_frame_that_does_not_decode_is_refused(frame: bytes) -> None:
    with pytest.raises(FrameError):
        subscribed("**").take(frame)


Source = tuple[int, str]
"""A publisher and a topic."""


class Step(NamedTuple):
    """One frame at the forwarder.

    Attributes:
        publisher: which one sends it.
        topic: of its messages.
        count: how many messages it has.
        retain: whether they are retained.
        arrives: whether it has room in the subscriber's queue.
    """

    publisher: int
    topic: str
    count: int
    retain: bool
    arrives: bool


STEPS = st.lists(
    st.builds(
        Step,
        publisher=st.integers(0, 2),
        topic=st.sampled_from(["a", "b", "c"]),
        count=st.integers(1, 3),
        retain=st.booleans(),
        arrives=st.sampled_from([True, True, True, False]),
    ),
    max_size=30,
)


@given(before=STEPS, between=STEPS, after=STEPS, requests=st.integers(1, 3))
def test_whatever_is_published_before_and_after_a_subscription_the_promises_hold(
    before: list[Step], between: list[Step], after: list[Step], requests: int
) -> None:
    """``between`` runs from the moment at which the subscription takes effect to the mark."""
    publishers = [Publisher(number + 1) for number in range(3)]
    owner, subscriber = RetainedValues(), Subscriptions()
    sent: dict[Source, list[int]] = {}
    arrived: dict[Source, list[int]] = {}
    retained: dict[str, tuple[int, int]] = {}

    def forward(steps: list[Step], *, is_subscribed: bool = True) -> None:
        for step in steps:
            feed = publishers[step.publisher]
            frame = feed.send(step.topic, step.count, retain=step.retain)
            first = feed.serial - step.count + 1 + 1_000_000 * step.publisher
            numbers = range(first, first + step.count)
            source = step.publisher, step.topic
            sent.setdefault(source, []).extend(numbers)
            if step.retain:
                owner.put(*decode_messages(frame))
                retained[step.topic] = step.publisher, numbers[-1]
            if is_subscribed and step.arrives:
                arrived.setdefault(source, []).extend(numbers)
                subscriber.take(frame)

    forward(before, is_subscribed=False)
    subscriber.add(["a", "b"])
    forward(between)
    for _ in range(requests - 1):
        answer(subscriber, owner, parts=0)  # its values are lost
    answer(subscriber, owner)
    values = dict(retained)
    forward(after)

    got: dict[Source, list[int]] = {}
    for topic, number in given_to(subscriber):
        got.setdefault((number // 1_000_000, topic), []).append(number)
    expected, gaps = {}, 0
    for source in sent.keys() & {(publisher, topic) for publisher in range(3) for topic in "ab"}:
        publisher, topic = source
        stream = arrived.get(source, [])
        value = values.get(topic, (None, 0))
        first = [value[1]] if value[0] == publisher and value[1] not in stream else []
        stream = [number for number in stream if not first or number > first[0]]
        if stream:
            due = [number for number in sent[source] if stream[0] <= number <= stream[-1]]
            gaps += len(due) - len(stream)
        if first or stream:
            expected[source] = first + stream
    assert got == expected
    assert subscriber.counters == MessageCounters(sum(map(len, got.values())), gaps)
