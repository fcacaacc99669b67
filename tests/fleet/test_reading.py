"""Values are read as annotations want them."""

from __future__ import annotations

import datetime
import enum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from chronopype_mp.core.settings import Seconds
from chronopype_mp.exceptions import FleetProblem
from chronopype_mp.fleet.document import BROKEN, Node
from chronopype_mp.fleet.reading import nearest, read


class Side(enum.Enum):
    BUY = 1
    SELL = 2


class Inner(msgspec.Struct):
    x: int
    y: list[str] = []


class Opaque:
    """A class that msgspec does not know."""


def node(value: Any, *, is_text: bool = False) -> Node:
    """Return the tree of a value."""
    made = value
    if isinstance(value, dict):
        made = {name: node(child) for name, child in value.items()}
    elif isinstance(value, list):
        made = [node(child) for child in value]
    raw = None if isinstance(value, dict | list) else value
    return Node(value=made, file="f", line=1, raw=raw, is_text=is_text)


@pytest.mark.parametrize(
    ("value", "kind", "result"),
    [
        (1, float, 1.0),
        ("5s", Seconds, 5.0),
        ("5s", Seconds | None, 5.0),
        (3, Seconds, 3.0),
        ("5s", str, "5s"),
        ("sell", Side, Side.SELL),
        ("a", Literal["a", "b"] | None, "a"),
        (["a"], tuple[str, ...], ("a",)),
        ([1, "a"], tuple[int, str], (1, "a")),
        (["a"], list, ["a"]),
        ([{"x": 1}], list[Inner], [Inner(1)]),
        ({"k": {"x": 1, "y": ["z"]}}, dict[str, Inner], {"k": Inner(1, ["z"])}),
        ({"x": 1}, Inner | None, Inner(1)),
        ("p", Path, Path("p")),
        ("p", Path | None, Path("p")),
        (datetime.date(2024, 1, 1), datetime.date, datetime.date(2024, 1, 1)),
        (5, Annotated[int, msgspec.Meta(ge=5)], 5),
        ([1, "a", {"b": True}], Any, [1, "a", {"b": True}]),
        ("x", Opaque, "x"),
    ],
)
def test_a_value_becomes_what_is_wanted(value: Any, kind: Any, result: object) -> None:
    problems: list[FleetProblem] = []
    assert read(node(value), kind, "p", problems) == result
    assert problems == []


@pytest.mark.parametrize(
    ("text", "kind", "result"),
    [
        ("5", int, 5),
        ("0.5", float, 0.5),
        ("0.5", Seconds, 0.5),
        ("5s", Seconds, 5.0),
        ("true", bool, True),
        ("5", str, "5"),
        ("null", str | None, "null"),
        ("5", str | int, "5"),
        ("5", Any, "5"),
        ('["a"]', tuple[str, ...], ("a",)),
        ("{ x = 1 }", Inner, Inner(1)),
        ("sell", Side, Side.SELL),
    ],
)
def test_text_is_read_where_something_else_is_wanted(text: str, kind: Any, result: object) -> None:
    """What a reference or a variable has is text."""
    problems: list[FleetProblem] = []
    assert read(node(text, is_text=True), kind, "p", problems) == result
    assert problems == []


@pytest.mark.parametrize(
    ("value", "kind", "messages"),
    [
        (True, int, ["p = true: must be a whole number"]),
        (1.5, int, ["p = 1.5: must be a whole number"]),
        ("1", int | None, ['p = "1": must be a whole number']),
        ("1", float | bool, ['p = "1": must be a number or true or false']),
        ("soon", Seconds | None, ['p = "soon": must be seconds, or a duration such as']),
        ([], Seconds, ["p: must be seconds, or a duration such as"]),
        ("BUY", Side, ['p = "BUY": must be one of "buy", "sell"']),
        ({}, Side, ['p: must be one of "buy", "sell"']),
        (4, Annotated[int, msgspec.Meta(ge=5)], ["p = 4: Expected `int` >= 5"]),
        ("x", Inner, ['p = "x": must be a table']),
        ({"y": ["a", 1], "z": 1}, Inner, ["p.y[1] = 1:", "p.z = 1:", "p.x: must be given"]),
        ([1, {"x": "a"}], list[Inner], ["p[0] = 1: must be a table", 'p[1].x = "a": must be']),
        ({"a": 1, "b": 2}, dict[str, str], ["p.a = 1: must be a string", "p.b = 2: must be"]),
    ],
)
def test_each_mistake_has_its_message(value: Any, kind: Any, messages: list[str]) -> None:
    problems: list[FleetProblem] = []
    assert read(node(value), kind, "p", problems) is BROKEN
    assert len(problems) == len(messages)
    for problem, message in zip(problems, messages, strict=True):
        assert str(problem).startswith(f"f:1: {message}")


def test_many_known_names_are_cut_short() -> None:
    assert nearest("zzz", map(str, range(30)), "worker").endswith(", 26, …")
    assert nearest("zzz", (), "worker") == "no such worker; known are: none"
