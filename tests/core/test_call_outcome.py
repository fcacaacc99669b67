"""What travels for a call: arguments, results and errors, there and back."""

from __future__ import annotations

import datetime
import decimal
import enum
import pickle
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.call_outcome import (
    KINDS,
    MAX_BODY,
    answered,
    failed,
    pack_arguments,
    raised,
    result_of,
    unpack_arguments,
)
from chronopype_mp.core.codec import MAX_FRAME, encode_report
from chronopype_mp.core.messages import CallDone
from chronopype_mp.exceptions import (
    CallError,
    CallTimeoutError,
    CallTooLargeError,
    CallValueError,
    RemoteError,
)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


class Side(enum.Enum):
    BUY = "buy"


@dataclass
class Order:
    side: Side
    at: datetime.datetime


class Price(msgspec.Struct):
    value: decimal.Decimal


@given(st.lists(PLAIN), st.dictionaries(st.text(), PLAIN))
def test_plain_arguments_arrive_as_they_were(args: list[Any], kwargs: dict[str, Any]) -> None:
    assert unpack_arguments(pack_arguments("a", "m", args, kwargs)) == (args, kwargs)


@pytest.mark.parametrize(
    ("value", "declared"),
    [
        (Order(Side.BUY, datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC)), Order),
        ([Price(decimal.Decimal("1.10"))], list[Price]),
        ({(1)}, set[int]),
        (None, None),
        ((1, "x"), tuple[int, str]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_result_has_the_type_that_is_declared(value: object, declared: object) -> None:
    assert result_of(answered("a", "m", value), "a", "m", declared) == value


def test_a_result_of_another_type_than_declared_is_an_error() -> None:
    with pytest.raises(CallValueError, match="the result is not int: Expected `int`, got `str`"):
        result_of(answered("a", "m", "one"), "a", "m", int)


def test_the_largest_outcomes_fit_into_a_frame() -> None:
    report = {"worker": "ü" * 100, "incarnation": 2**31, "token": 2**63}
    deep = ValueError("ü" * 100_000)
    for outcome in (answered("a", "m", bytes(MAX_BODY - 5)), raised(deep)):
        frame = encode_report(CallDone(**report, call=2**31, outcome=outcome))  # type: ignore[arg-type]
        assert len(frame) < MAX_FRAME
    assert answered("a", "m", bytes(MAX_BODY)).error == CallTooLargeError.__name__


@pytest.mark.parametrize("kind", KINDS.values())
def test_an_error_of_the_machinery_is_raised_as_itself(kind: type[CallError]) -> None:
    with pytest.raises(CallError) as caught:
        result_of(failed(kind("a", "m", "this is why")), "a", "m")
    assert type(caught.value) is kind
    assert str(caught.value) == "worker 'a': call of 'm': this is why"
    assert (caught.value.worker, caught.value.method) == ("a", "m")


def test_what_a_method_raised_is_an_instance_of_its_type_and_can_be_pickled() -> None:
    with pytest.raises(LookupError) as caught:
        result_of(raised(KeyError("x")), "a", "m")
    assert isinstance(caught.value, RemoteError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is RemoteError
    assert (again.worker, again.method, again.type_name) == ("a", "m", "KeyError")


def test_a_call_error_of_the_methods_own_calls_is_not_taken_for_one_of_this_call() -> None:
    with pytest.raises(RemoteError) as caught:
        result_of(raised(CallTimeoutError("b", "n", "late")), "a", "m")
    assert not isinstance(caught.value, CallError)
    assert caught.value.type_name == "CallTimeoutError"
