"""Messages between workers: in memory, and through the proxy over ipc and tcp."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from chronopype_mp.core.message_frames import answer_topic
from chronopype_mp.transport.base import MESSAGES_QUEUED, Publishing, Subscribing
from tests.transport.test_contract import BOUND, Ends, receive

FRAME = b"mprices.btc\0 a batch"
ANSWERS = answer_topic("sub", 1, 1)


@pytest.fixture(params=["memory", "ipc", "tcp"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    made = Ends(request.param)
    yield made
    made.close()


@pytest.fixture
def proxied() -> Iterator[Ends]:
    made = Ends("ipc")
    yield made
    made.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)  # a synchronous test: the proxy tells nobody


def publisher(ends: Ends, *known: bytes) -> Publishing:
    """Return a worker's publisher that is connected and knows of some subscriptions."""
    made = ends.link("pub").publisher()
    changes: list[bytes] = []
    wanted = {b"\1r", *(b"\1" + prefix for prefix in known)}
    until(lambda: wanted <= {*changes, *(changes.extend(made.changes()) or ())})
    return made


def subscriber(ends: Ends, *prefixes: bytes, name: str = "sub") -> Subscribing:
    """Return a worker's subscriber whose subscriptions are in effect."""
    made = ends.link(name).subscriber()
    for prefix in (*prefixes, ANSWERS):
        made.subscribe(prefix)
    is_answered = False
    while not is_answered:
        ends.hub.messages.publish(ANSWERS + b"now")
        time.sleep(0.001)  # likewise
        is_answered = bool(made.receive(1))
    made.unsubscribe(ANSWERS)
    ends.hub.messages.publish(ANSWERS + b"last")
    until(lambda: not made.receive(100))
    return made


def test_frames_reach_all_who_have_subscribed_to_their_beginning_in_order(ends: Ends) -> None:
    one = subscriber(ends, b"mprices.")
    other = subscriber(ends, b"mprices.btc\0", b"morders\0", name="other")
    feed = publisher(ends, b"mprices.", b"morders\0")
    frames = [FRAME, b"morders\0 1", b"mprices.eth\0 2", b"mnews\0 3", FRAME + b"4"]
    for frame in frames:
        feed.publish(frame)
    assert receive(one.receive, 3) == [frames[0], frames[2], frames[4]]
    assert receive(other.receive, 3) == [frames[0], frames[1], frames[4]]


def test_the_owner_gets_what_is_to_be_retained_and_nothing_else(ends: Ends) -> None:
    subscriber(ends, b"m")
    feed = publisher(ends, b"m")
    for frame in (FRAME, b"ra\0 1", FRAME, b"rb\0 2"):
        feed.publish(frame)
    got: list[bytes] = []
    until(lambda: got.extend(ends.hub.messages.receive(10)) or b"rb\0 2" in got)
    assert [frame for frame in got if not frame.startswith(ANSWERS)] == [b"ra\0 1", b"rb\0 2"]


def test_a_publisher_is_told_of_subscriptions_and_of_their_end(ends: Ends) -> None:
    feed = publisher(ends)
    one, other = subscriber(ends, b"ma\0"), subscriber(ends, b"ma\0", name="other")
    changes: list[bytes] = []
    until(lambda: changes.extend(feed.changes()) or b"\1ma\0" in changes)
    one.unsubscribe(b"ma\0")
    subscriber(ends, b"mb\0", name="third")
    until(lambda: changes.extend(feed.changes()) or b"\1mb\0" in changes)
    assert b"\0ma\0" not in changes  # the other one still needs it
    other.unsubscribe(b"ma\0")
    until(lambda: changes.extend(feed.changes()) or b"\0ma\0" in changes)


def test_a_subscriber_that_does_not_read_slows_nobody_down_and_gets_the_oldest(ends: Ends) -> None:
    idle, busy = subscriber(ends, b"m"), subscriber(ends, b"m", name="busy")
    feed = publisher(ends, b"m")
    count = 4 * MESSAGES_QUEUED
    for first in range(0, count, 100):
        for number in range(first, first + 100):
            feed.publish(b"ma\0%d" % number + bytes(2000))
        got = receive(busy.receive, 100)
        assert [int(frame[3:].rstrip(b"\0")) for frame in got] == list(range(first, first + 100))
    kept: list[bytes] = []
    until(lambda: not (frames := idle.receive(count)) or kept.extend(frames))
    assert len(kept) < count
    numbers = [int(frame[3:].rstrip(b"\0")) for frame in kept]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 0


def test_sockets_whose_files_were_removed_are_bound_again_and_connections_go_on(
    proxied: Ends,
) -> None:
    old, feed = subscriber(proxied, b"m"), publisher(proxied, b"m")
    for name in ("pub", "sub"):
        os.unlink(proxied.hub.file(name))
    assert hasattr(proxied.hub, "restore")
    proxied.hub.restore()
    until(lambda: all(os.path.exists(proxied.hub.file(name)) for name in ("pub", "sub")))
    new = subscriber(proxied, b"m", name="new")
    for each in (feed, publisher(proxied, b"m")):
        each.publish(FRAME)
        assert [receive(one.receive, 1) for one in (old, new)] == [[FRAME], [FRAME]]


def test_an_error_that_ends_the_thread_is_passed_on_and_the_hub_closes(proxied: Ends) -> None:
    forwarder = proxied.hub._forwarder  # type: ignore[union-attr]
    failures: list[BaseException] = []

    def fail() -> None:
        raise RuntimeError("boom")

    forwarder.call(fail)
    until(lambda: not forwarder._thread.is_alive())
    proxied.hub.watch_threads(failures.append)
    assert [str(failure) for failure in failures] == ["boom"]
    forwarder.call(fail)  # to nobody
