"""Options as ``chronopype-mp list-processors`` shows them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from chronopype_mp.core.settings import Seconds
from chronopype_mp.fleet.described import described
from tests.fleet.processors import Key


class Limits(msgspec.Struct, frozen=True):
    low: int = 0
    high: int = 9


class Options(msgspec.Struct, kw_only=True):
    url: Key
    key: Key = Key("hidden")
    wait: Seconds = 1.5
    pause: Seconds | None = None
    side: Literal["buy", 2] = "buy"
    names: tuple[str, ...] = ()
    headers: dict[str, Key] = msgspec.field(default_factory=dict)
    limits: Limits = Limits()
    strict: bool = True
    topic: str | None = None
    label: str = ""
    size: int | float = 3
    raw: Any = None
    data: bytes = b""


def test_options_are_described_in_the_words_of_fleet_files() -> None:
    """The default of a class of strings is not shown, since it may be a secret."""
    assert [described(field) for field in msgspec.structs.fields(Options)] == [
        "url: string, required",
        "key: string",
        "wait: seconds, default 1.5",
        "pause: seconds",
        'side: "buy" or 2, default "buy"',
        "names: array of string",
        "headers: table of string",
        "limits: table with low, high",
        "strict: true or false, default true",
        "topic: string",
        "label: string",
        "size: whole number or number, default 3",
        "raw: any",
        "data: bytes",
    ]
