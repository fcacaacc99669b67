"""What comes home is set on the owner's object; what is mirrored is on the handle."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Any

import pytest

from chronopype_mp.coordinator.owner_view import OwnerView
from chronopype_mp.core.attributes import encoded
from chronopype_mp.core.messages import Attributes, AttributeValue
from chronopype_mp.processors import ProcessorSpec, TickProcessor


@dataclasses.dataclass
class Position:
    size: int

    def __post_init__(self) -> None:
        if self.size < 0:
            raise SystemExit(3)


class Feed(TickProcessor):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.position = Position(1)
        self.prices = [1.5]
        self.other: Position | None = None


def report(view: OwnerView, request: int = 0, is_last: bool = True, **values: Any) -> None:
    travelling = {
        name: value if isinstance(value, AttributeValue) else encoded(value)
        for name, value in values.items()
    }
    view.take(
        Attributes(
            worker="a",
            incarnation=1,
            token=7,
            request=request,
            values=travelling,
            left_out={},
            is_last=is_last,
        )
    )


def test_all_attributes_are_set_once_the_last_has_come() -> None:
    feed = Feed()
    view = OwnerView(feed)
    prices = feed.prices
    report(view, is_last=False, count=5)
    assert feed.count == 0
    report(view, position=Position(4), prices=[1.5], new="n")
    assert (feed.count, feed.position, vars(feed)["new"]) == (5, Position(4), "n")
    assert feed.prices is prices, "what is equal stays the same object"


def test_what_a_process_left_half_sent_is_forgotten() -> None:
    feed = Feed()
    view = OwnerView(feed)
    report(view, is_last=False, count=5)
    view.process_ended()
    report(view, prices=[2.5])
    assert (feed.count, feed.prices) == (0, [2.5])


def test_what_cannot_be_put_together_here_is_listed_at_debug_level(
    caplog: pytest.LogCaptureFixture,
) -> None:
    feed = Feed()
    bad = encoded(Position(1))
    exits = AttributeValue(bad.kind, type(bad.data)(bytes(bad.data).replace(b"\x01", b"\xff")))
    with caplog.at_level(logging.DEBUG, "chronopype_mp"):
        report(OwnerView(feed), other=Position(2), position=exits, state=1, _own_state=1, count=2)
    (message,) = caplog.messages
    assert message.startswith("attributes of Feed that do not come home: other (")
    assert "position (SystemExit: 3)" in message
    assert (feed.count, feed.position, feed.other) == (2, Position(1), None)
    assert feed.state.total_ticks == 0


def test_a_request_is_answered_by_its_own_last_message_or_by_the_end_of_the_process() -> None:
    async def scenario() -> None:
        view = OwnerView(Feed())
        request, answer = view.ask()
        report(view, request=request - 1)
        assert not answer.done()
        report(view, request=request)
        assert answer.done()
        _, answer = view.ask()
        view.process_ended()
        assert answer.done()

    asyncio.run(scenario())


def test_mirrored_values_are_immutable_and_replaced_as_a_whole() -> None:
    view = OwnerView(Feed())
    assert view.mirrored == {}
    view.mirror({"position": encoded(Position(2)), "other": encoded(Position(3))})
    first = view.mirrored
    assert first == {"position": Position(2), "other": {"size": 3}}
    assert view.mirrored is first
    with pytest.raises(TypeError):
        first["position"] = 1  # type: ignore[index]
    view.mirror({})
    assert (view.mirrored, dict(first)["position"]) == ({}, Position(2))


def test_a_spec_has_no_object_to_set_attributes_on() -> None:
    view = OwnerView(ProcessorSpec(target=Feed))
    report(view, count=5)
    view.mirror({"count": encoded(5)})
    assert view.mirrored == {"count": 5}
