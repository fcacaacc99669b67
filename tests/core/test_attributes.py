"""A value arrives as what it was, or not at all."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import math
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.attributes import (
    LONGEST,
    AttributeProblem,
    annotations_of,
    decoded,
    encoded,
)
from chronopype_mp.core.messages import AttributeValue

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]


class Side(enum.Enum):
    BUY = "buy"


@dataclasses.dataclass
class Position:
    size: int


class Order(msgspec.Struct):
    price: float
    positions: list[Position]


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=9,
)


@given(PLAIN)
def test_plain_data_arrives_as_it_was_without_a_type(value: Any) -> None:
    travelling = encoded(value)
    assert travelling.kind == ""
    assert decoded(travelling) == value


@pytest.mark.parametrize(
    "value",
    [
        (1, "a"),
        {1, 2},
        datetime.datetime(2026, 1, 2, 3, 4, 5),
        decimal.Decimal("1.50"),
        Side.BUY,
        Position(3),
        Order(1.5, [Position(1)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_values_arrive_if_the_receiver_has_one_of_the_type(value: Any) -> None:
    back = decoded(encoded(value), None, type(value))
    assert type(back) is type(value)
    assert back == value
    with pytest.raises(AttributeProblem, match="is not the type that is declared here"):
        decoded(encoded(value), None, type(None))


def test_a_container_of_other_values_needs_its_type() -> None:
    value = {"a": [Position(1)]}
    with pytest.raises(AttributeProblem, match="annotate the attribute in the class"):
        encoded(value)
    declared = dict[str, list[Position]]
    assert decoded(encoded(value, declared), declared, dict) == value


def nested() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("x" * (LONGEST + 1), "bytes"),
        (["x" * 1000] * 65, "bytes"),
        ([0] * 10**7, "bytes"),
        (dict.fromkeys(range(LONGEST)), "bytes"),
        (nested(), "bytes"),
        (Order(1.5, [Position(1)] * LONGEST), "may travel"),
        (threading.Lock(), "lock"),
        (2**70, "int"),
        ("\udce9", "str"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_travel_is_named(value: Any, problem: str) -> None:
    with pytest.raises(AttributeProblem, match=problem):
        encoded(value)


def test_a_number_that_is_none_arrives() -> None:
    back = decoded(encoded(math.nan))
    assert isinstance(back, float)
    assert math.isnan(back)


def test_the_methods_of_a_value_may_fail() -> None:
    class Odd(msgspec.Struct):
        size: int

        def __eq__(self, other: object) -> bool:
            raise ValueError("never equal")

    with pytest.raises(AttributeProblem):
        encoded(Odd(1))


def test_a_type_is_never_looked_up_by_the_name_that_came() -> None:
    forged = AttributeValue("builtins:int", msgspec.Raw(msgspec.msgpack.encode(1)))
    with pytest.raises(AttributeProblem):
        decoded(forged, None, Position)
    assert decoded(forged, None, int) == 1


def test_annotations_that_only_type_checkers_resolve_are_none() -> None:
    class Typed:
        position: Position | None = None

    class Untyped:
        other: Unknown

    assert annotations_of(Typed) == {"position": Position | None}
    assert annotations_of(Untyped) == {}
