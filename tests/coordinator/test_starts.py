"""How many workers start side by side."""

from __future__ import annotations

import asyncio

import pytest

from chronopype_mp.coordinator import starts
from chronopype_mp.coordinator.starts import Place, Starts


def granted(places: list[Place]) -> list[bool]:
    return [place.granted.done() and place.granted.result() for place in places]


def test_no_more_than_the_bound_start_side_by_side_the_others_in_their_order() -> None:
    async def scenario() -> None:
        bounded = Starts(2)
        places = [bounded.ask() for _ in range(4)]
        assert granted(places) == [True, True, False, False]
        places[1].leave()
        assert granted(places) == [True, True, True, False]
        places[1].leave()
        assert granted(places) == [True, True, True, False], "given back once"
        places[0].leave()
        places[2].leave()
        assert granted(places) == [True] * 4

    asyncio.run(scenario())


def test_who_leaves_while_it_waits_is_passed_over() -> None:
    async def scenario() -> None:
        bounded = Starts(1)
        places = [bounded.ask() for _ in range(3)]
        places[1].leave()
        assert places[1].granted.result() is False
        places[0].leave()
        assert granted(places) == [True, False, True]
        places[2].leave()
        assert granted([bounded.ask(), bounded.ask()]) == [True, False]

    asyncio.run(scenario())


def test_a_start_that_hangs_keeps_the_others_waiting_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(starts, "LONGEST_START", 0.01)

    async def scenario() -> None:
        bounded = Starts(1)
        hanging, waiting = bounded.ask(), bounded.ask()
        assert await waiting.granted
        hanging.leave()
        assert granted([bounded.ask()]) == [False], "its place was given back before"

    asyncio.run(scenario())
