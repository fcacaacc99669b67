"""Outputs travel in frames; what does not decode is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.codec import FrameError
from chronopype_mp.core.outputs import (
    OutputPolicy,
    PayloadTypes,
    decode_batch,
    encode_batch,
    encode_output,
)
from chronopype_mp.exceptions import ConfigError


class Price(msgspec.Struct):
    value: float


@dataclasses.dataclass
class Order:
    size: int


payloads = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
items = st.lists(st.tuples(st.text(max_size=20), st.floats(allow_nan=False), payloads), max_size=5)


@given(st.integers(0, 2**63 - 1), st.integers(1, 2**63 - 1), items)
def test_a_frame_arrives_as_it_was_made(
    token: int, first: int, outputs: list[tuple[str, float, Any]]
) -> None:
    encoded = [encode_output(*each) for each in outputs]
    batch = decode_batch(encode_batch(token, first, encoded, len(encoded)))
    assert (batch.token, batch.first) == (token, first)
    decoded = [(each.topic, each.at, msgspec.msgpack.decode(each.payload)) for each in batch.items]
    assert decoded == outputs


def test_the_bytes_of_a_frame_are_those_of_this_version_of_the_protocol() -> None:
    frame = encode_batch(7, 3, [encode_output("a.b", 1.5, {"x": 1})], 1)
    assert frame.hex() == "930703dd0000000193a3612e62cb3ff800000000000081a17801"


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(frame: bytes) -> None:
    try:
        decode_batch(frame)
    except FrameError:
        pass
    else:
        assert frame.startswith(b"\x93")


def test_the_first_pattern_that_chooses_a_topic_declares_the_type() -> None:
    types = PayloadTypes({"prices.*": Price, "**": Order})
    frame = msgspec.msgpack.encode({"value": 1.5})
    assert types.decoder("prices.btc").decode(frame) == Price(1.5)
    assert types.decoder("orders").decode(msgspec.msgpack.encode({"size": 2})) == Order(2)
    assert (types.kind("prices.btc"), types.kind("orders")) == (Price, Order)


def test_without_a_declared_type_payloads_have_those_of_msgpack() -> None:
    types = PayloadTypes(None)
    assert types.decoder("a").decode(msgspec.msgpack.encode(Price(1.5))) == {"value": 1.5}
    assert types.kind("a") is None


def test_only_structs_and_dataclasses_are_checked_where_they_are_emitted() -> None:
    assert PayloadTypes(list[float]).kind("a") is None
    assert PayloadTypes(float).kind("a") is None  # which takes an int, too


@pytest.mark.parametrize("declared", [{"a*": Price}, {3: Price}, object(), {"a": "Price"}])
def test_a_type_that_cannot_be_decoded_is_refused(declared: Any) -> None:
    with pytest.raises(ValueError, match=r"topic pattern|cannot decode"):
        PayloadTypes(declared)


@pytest.mark.parametrize(
    "wrong",
    [
        {"when_full": "block"},
        {"buffer_bytes": 10},
        {"reader_outputs": 0},
        {"reader_bytes": 0},
        {"when_ful": "wait"},
    ],
)
def test_a_policy_is_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        OutputPolicy(**wrong)
