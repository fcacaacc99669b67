"""Publications: who is called, with what, and what happens when that fails."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest

from chronopype_mp.clocks.publication import Publication, Publisher


class Bell(Publisher):
    """Has two publications."""

    rung = Publication("bell_rung", str)
    cracked = Publication("bell_cracked", str)


class LouderBell(Bell):
    """Has those of its base."""


class Listener:
    """A callable object that is held weakly."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def __call__(self, event: object, tag: str, caller: object) -> None:
        self.heard.append((event, tag, caller))


def test_a_callback_gets_event_tag_and_caller() -> None:
    bell, heard = Bell(), list[object]()
    bell.add_subscriber_with_callback(bell.rung, lambda *args: heard.append(args))
    bell.publish(bell.rung, "ding")
    bell.publish(bell.rung, "dong", caller="the rope")
    assert heard == [("ding", "bell_rung", bell), ("dong", "bell_rung", "the rope")]


def test_a_callback_may_want_the_event_alone() -> None:
    bell, heard = Bell(), list[object]()
    bell.add_subscriber_with_callback(bell.rung, heard.append, with_event_info=False)
    bell.publish(bell.rung, "ding")
    assert heard == ["ding"]


def test_callbacks_are_called_in_the_order_of_their_adding_and_once_each() -> None:
    bell, heard = Bell(), list[str]()

    def first(event: str) -> None:
        heard.append(f"first {event}")

    def second(event: str) -> None:
        heard.append(f"second {event}")

    for callback in (first, second, first):
        bell.add_subscriber_with_callback(bell.rung, callback, with_event_info=False)
    bell.publish(bell.rung, "ding")
    assert heard == ["first ding", "second ding"]


def test_a_publication_is_not_another() -> None:
    bell, heard = Bell(), list[object]()
    bell.add_subscriber_with_callback(bell.cracked, heard.append, with_event_info=False)
    bell.publish(bell.rung, "ding")
    assert heard == []
    assert not bell.has_subscribers(bell.rung)
    assert bell.has_subscribers(bell.cracked)


def test_one_publisher_is_not_another() -> None:
    bell, other, heard = Bell(), Bell(), list[object]()
    bell.add_subscriber_with_callback(bell.rung, heard.append, with_event_info=False)
    other.publish(other.rung, "ding")
    assert heard == []


def test_a_removed_callback_is_not_called_and_removing_another_is_no_error() -> None:
    bell, heard = Bell(), list[object]()
    bell.add_subscriber_with_callback(bell.rung, heard.append, with_event_info=False)
    bell.remove_subscriber_with_callback(bell.rung, print)
    bell.publish(bell.rung, "ding")
    bell.remove_subscriber_with_callback(bell.rung, heard.append)
    bell.remove_subscriber_with_callback(bell.rung, heard.append)
    bell.publish(bell.rung, "dong")
    assert heard == ["ding"]
    assert not bell.has_subscribers(bell.rung)


def test_a_callback_may_remove_itself_while_it_is_called() -> None:
    bell, heard = Bell(), list[str]()

    def once(event: str) -> None:
        heard.append("once")
        bell.remove_subscriber_with_callback(bell.rung, once)

    bell.add_subscriber_with_callback(bell.rung, once, with_event_info=False)
    bell.add_subscriber_with_callback(
        bell.rung, lambda event: heard.append("always"), with_event_info=False
    )
    bell.publish(bell.rung, "ding")
    bell.publish(bell.rung, "dong")
    assert heard == ["once", "always", "always"]


def test_what_a_callback_raises_is_logged_and_the_next_is_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bell, heard = Bell(), list[object]()

    def fail(event: str) -> None:
        raise RuntimeError("too loud")

    bell.add_subscriber_with_callback(bell.rung, fail, with_event_info=False)
    bell.add_subscriber_with_callback(bell.rung, heard.append, with_event_info=False)
    with caplog.at_level(logging.ERROR):
        bell.publish(bell.rung, "ding")
    assert heard == ["ding"]
    assert "too loud" in caplog.text
    assert "bell_rung" in caplog.text


@pytest.mark.parametrize("error", [StopIteration(), asyncio.CancelledError(), GeneratorExit()])
def test_whatever_a_callback_raises_the_next_is_called(error: BaseException) -> None:
    bell, heard = Bell(), list[object]()

    def fail(event: str) -> None:
        raise error

    bell.add_subscriber_with_callback(bell.rung, fail, with_event_info=False)
    bell.add_subscriber_with_callback(bell.rung, heard.append, with_event_info=False)
    bell.publish(bell.rung, "ding")
    assert heard == ["ding"]


def test_an_exit_from_a_callback_comes_after_the_other_callbacks() -> None:
    bell, heard = Bell(), list[object]()

    def leave(event: str) -> None:
        raise KeyboardInterrupt

    async def scenario() -> None:
        bell.add_subscriber_with_callback(bell.rung, leave, with_event_info=False)
        bell.add_subscriber_with_callback(bell.rung, heard.append, with_event_info=False)
        bell.publish(bell.rung, "ding")
        assert heard == ["ding"]
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(scenario())


@pytest.mark.parametrize("callback", ["print", None, 5])
def test_what_cannot_be_called_is_refused_at_once(callback: Any) -> None:
    bell = Bell()
    for add in (bell.add_subscriber_with_callback, bell.add_subscriber):
        with pytest.raises(TypeError, match=rf"{add.__name__}: {callback!r} is not callable"):
            add(bell.rung, callback)
    assert not bell.has_subscribers(bell.rung)


def test_a_coroutine_function_is_refused_because_nobody_would_await_it() -> None:
    async def callback(event: str) -> None:
        raise AssertionError

    bell = Bell()
    with pytest.raises(TypeError, match="coroutine function"):
        bell.add_subscriber_with_callback(bell.rung, callback)
    assert not bell.has_subscribers(bell.rung)


def test_an_object_that_listens_is_not_kept_alive() -> None:
    bell, listener = Bell(), Listener()
    heard = listener.heard
    bell.add_subscriber(bell.rung, listener)
    bell.add_subscriber(bell.rung, listener)
    bell.publish(bell.rung, "ding")
    del listener
    gc.collect()
    bell.publish(bell.rung, "dong")
    assert heard == [("ding", "bell_rung", bell)]
    assert not bell.has_subscribers(bell.rung)


def test_an_object_that_listens_can_be_removed() -> None:
    bell, listener = Bell(), Listener()
    bell.add_subscriber(bell.rung, listener)
    bell.remove_subscriber(bell.rung, listener)
    bell.publish(bell.rung, "ding")
    assert listener.heard == []


def test_a_subclass_has_the_publications_of_its_base() -> None:
    bell, heard = LouderBell(), list[object]()
    bell.add_subscriber_with_callback(Bell.rung, heard.append, with_event_info=False)
    bell.publish(LouderBell.rung, "ding")
    assert heard == ["ding"]


def test_a_foreign_publication_is_refused_even_under_the_same_name() -> None:
    bell, foreign = Bell(), Publication("bell_rung", str)
    listener = Listener()
    with pytest.raises(
        ValueError, match=r"Publication\('bell_rung'\) is not a publication of Bell"
    ):
        bell.publish(foreign, "ding")
    with pytest.raises(ValueError, match="not a publication of Bell"):
        bell.add_subscriber_with_callback(foreign, print)
    with pytest.raises(ValueError, match="not a publication of Bell"):
        bell.add_subscriber(foreign, listener)
    with pytest.raises(ValueError, match="not a publication of Bell"):
        bell.remove_subscriber(foreign, listener)
    with pytest.raises(ValueError, match="not a publication of Bell"):
        bell.remove_subscriber_with_callback(foreign, print)
