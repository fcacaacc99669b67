"""Which attributes of a processor travel home, and how much of them."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from chronopype_mp.core.attributes import LONGEST, decoded
from chronopype_mp.processors import TickProcessor
from chronopype_mp.worker.attributes import MOST, MOST_MIRRORED, PER_MESSAGE, AttributeReader


class Feed(TickProcessor):
    mirrored = ("price", "name", "never_set")

    def __init__(self, **values: Any) -> None:
        super().__init__()
        self.price = 1.5
        self.name = "a"
        self._hidden = 1
        vars(self).update(values)

    @property
    def broken(self) -> int:
        raise ValueError("broken")


def test_public_attributes_travel_and_the_rest_is_named() -> None:
    (portion,) = AttributeReader(Feed(lock=threading.Lock()), "a").public()
    values, left_out = portion
    assert {name: decoded(value) for name, value in values.items()} == {"price": 1.5, "name": "a"}
    assert list(left_out) == ["lock"]


def test_many_attributes_travel_in_messages_of_bounded_size_up_to_a_limit() -> None:
    many = {f"text_{n}": "x" * (LONGEST // 4) for n in range(100)}
    portions = list(AttributeReader(Feed(**many), "a").public())
    sizes = [sum(len(bytes(value.data)) for value in values.values()) for values, _ in portions]
    assert max(sizes) <= PER_MESSAGE
    assert MOST - LONGEST < sum(sizes) <= MOST
    travelled = [name for values, _ in portions for name in values]
    left_out = portions[-1][1]
    assert {*travelled, *left_out} == {*many, "price", "name"}


def test_mirrored_values_are_bounded_and_what_is_left_out_is_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    feed = Feed(name="x" * MOST_MIRRORED)
    reader = AttributeReader(feed, "a")
    for _ in range(2):
        values = reader.mirrored()
        assert {name: decoded(value) for name, value in values.items()} == {"price": 1.5}
    feed.mirrored = ("broken",)
    assert reader.mirrored() == {}
    start = "in Feed.mirrored is left out:"
    assert caplog.messages == [
        f"worker 'a': 'name' {start} mirrored values have more than {MOST_MIRRORED} bytes",
        f"worker 'a': 'never_set' {start} 'Feed' object has no attribute 'never_set'",
        f"worker 'a': 'broken' {start} broken",
    ]
