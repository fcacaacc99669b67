"""The codec: what is sent arrives, and nothing that arrives can do harm."""

from __future__ import annotations

import enum
import functools
import math
import types
import typing
from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chronopype_mp.clocks.config import MAX_WINDOW
from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.codec import (
    MAX_FRAME,
    TICK_TOPIC,
    FrameError,
    command_topic,
    decode_command,
    decode_report,
    decode_tick,
    encode_command,
    encode_report,
    encode_tick,
)
from chronopype_mp.core.connection_counters import ConnectionCounters
from chronopype_mp.core.error_text import LONGEST_MESSAGE, LONGEST_REASON, shortened
from chronopype_mp.core.histogram import BUCKETS, Histogram
from chronopype_mp.core.messages import (
    Beat,
    Configure,
    Downlink,
    Hello,
    LogLine,
    Tick,
    Uplink,
    Welcome,
    WorkerSettings,
)
from chronopype_mp.core.state import TickAccount, TickCounters

SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(min_value=-(2**63), max_value=2**64 - 1),
    float: st.floats(allow_nan=False),
    str: st.text(),
    bool: st.booleans(),
    bytes: st.binary(max_size=100),
    datetime: st.datetimes(),
    types.NoneType: st.none(),
    msgspec.Raw: st.text(max_size=5).map(msgspec.msgpack.encode).map(msgspec.Raw),
}

FULL = Histogram(dict.fromkeys(range(BUCKETS), 2**63))

LONGEST_BEAT = Beat(
    worker="\U0001f600" * 100,
    incarnation=2**63,
    token=2**63,
    serial=2**63,
    account=TickAccount(*4 * [2**63]),
    counters=TickCounters(
        recent=bytes(8 * MAX_WINDOW),
        executions=FULL,
        lateness=FULL,
        last_error=shortened("\udce9" * 10_000, LONGEST_MESSAGE),
    ),
    largest_gap=0.5,
    lag=0.5,
    reason=shortened("\udce9" * 10_000, LONGEST_REASON),
    connection=ConnectionCounters(FULL, 2**63),
)

BACKOFFS = st.builds(
    BackoffPolicy,
    minimum=st.floats(min_value=0.001, max_value=1.0),
    factor=st.floats(min_value=1.0, max_value=10.0),
    maximum=st.floats(min_value=1.0, max_value=1e6),
    jitter=st.floats(min_value=0.0, max_value=1.0),
)

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@functools.cache
def of_type(kind: Any) -> st.SearchStrategy[Any]:
    """Return what makes any value of a message's field, whichever fields messages have."""
    if kind in SCALARS:
        return SCALARS[kind]
    if kind is BackoffPolicy:
        return BACKOFFS  # not every value is valid
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return st.sampled_from(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = {field.name: of_type(field.type) for field in msgspec.structs.fields(kind)}
        return st.builds(kind, **fields)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(of_type, arguments))
    if origin is dict:
        return st.dictionaries(*map(of_type, arguments), max_size=5)
    assert origin is tuple, f"no strategy for {kind!r}"
    if arguments[-1] is ...:
        return st.lists(of_type(arguments[0]), max_size=20).map(tuple)
    return st.tuples(*map(of_type, arguments))


@pytest.mark.parametrize("kind", typing.get_args(Uplink), ids=lambda kind: str(kind.__name__))
@given(data=st.data())
def test_every_report_arrives_as_it_was_sent(kind: type[Uplink], data: st.DataObject) -> None:
    report = data.draw(of_type(kind))
    arrived = decode_report(encode_report(report))
    assert type(arrived) is kind
    assert arrived == report


@pytest.mark.parametrize("kind", typing.get_args(Downlink), ids=lambda kind: str(kind.__name__))
@given(data=st.data(), worker=NAMES)
def test_every_command_arrives_as_it_was_sent_under_any_name(
    kind: type[Downlink], data: st.DataObject, worker: str
) -> None:
    command = data.draw(of_type(kind))
    frame = encode_command(worker, command)
    assert frame.startswith(command_topic(worker))
    arrived = decode_command(frame)
    assert type(arrived) is kind
    assert arrived == command


@given(of_type(Tick))
def test_every_tick_arrives_as_it_was_sent(tick: Tick) -> None:
    frame = encode_tick(tick)
    assert frame.startswith(TICK_TOPIC)
    assert decode_tick(frame) == tick


def test_a_tick_is_small() -> None:
    assert len(encode_tick(Tick(10**9, 1.7e9))) <= 20


@given(NAMES, NAMES)
@example("a", "aa")
@example("", "a")
@example("é", "é\u0301")
def test_no_topic_is_the_start_of_another(one: str, other: str) -> None:
    topics = {command_topic(one), command_topic(other), TICK_TOPIC}
    assert len(topics) == 3 - (one == other)
    for topic in topics:
        assert [other for other in topics if other.startswith(topic)] == [topic]


@given(st.text(st.characters(categories=["Cs", "L"]), min_size=1))
@example("caf\udce9.txt")
def test_text_that_is_no_utf8_travels_escaped(text: str) -> None:
    """A file name that is not UTF-8 is in many an error's message."""
    log = LogLine(
        worker="a", incarnation=1, token=5, logger=text, level=10, message=text, created=1.5
    )
    arrived = decode_report(encode_report(log))
    escaped = text.encode(errors="backslashreplace").decode()
    assert arrived == msgspec.structs.replace(log, logger=escaped, message=escaped)


@given(st.data())
def test_counters_with_text_that_is_no_utf8_keep_all_their_other_figures(
    data: st.DataObject,
) -> None:
    kind = data.draw(st.sampled_from([k for k in typing.get_args(Uplink) if has_counters(k)]))
    report = data.draw(of_type(kind))
    counters = msgspec.structs.replace(report.counters, last_error="\udc80")
    arrived = decode_report(encode_report(msgspec.structs.replace(report, counters=counters)))
    expected = msgspec.structs.replace(report.counters, last_error="\\udc80")
    assert arrived == msgspec.structs.replace(report, counters=expected)


def has_counters(kind: type[msgspec.Struct]) -> bool:
    return "counters" in kind.__struct_fields__


def refused_or_decoded(frame: bytes) -> None:
    """Feed a frame to all decoders; only FrameError may come out."""
    for decode in (decode_report, decode_command, decode_tick):
        try:
            decode(frame)
        except FrameError:
            continue


FRAMES = st.one_of(
    of_type(Uplink).map(encode_report),
    of_type(Tick).map(encode_tick),
    of_type(Downlink).map(lambda command: encode_command("a", command)),
)

# Map keys and tags of the protocol, so that generated objects get past the first field.
WORDS = ["type", "worker", "incarnation", "counters", "account", "network", "pid", "settings", "at"]
OBJECTS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(min_value=-(2**63), max_value=2**64 - 1),
        st.integers(min_value=0, max_value=12),
        st.floats(),
        st.binary(max_size=9),
        st.text(max_size=9),
        st.builds(
            msgspec.msgpack.Ext, st.integers(min_value=-128, max_value=127), st.binary(max_size=13)
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.one_of(st.sampled_from(WORDS), st.text(max_size=3)), inner, max_size=9),
    ),
)


@given(st.one_of(st.binary(), OBJECTS.map(msgspec.msgpack.encode)), st.sampled_from([b"", b"wa\0"]))
def test_any_bytes_decode_or_raise_a_frame_error(body: bytes, topic: bytes) -> None:
    refused_or_decoded(topic + body)
    refused_or_decoded(TICK_TOPIC + body)


@given(FRAMES, st.data())
def test_a_real_frame_cut_short_is_refused(frame: bytes, data: st.DataObject) -> None:
    cut = frame[: data.draw(st.integers(min_value=0, max_value=len(frame) - 1))]
    decode = decode_report
    if frame.startswith(TICK_TOPIC):
        decode = decode_tick  # type: ignore[assignment]
    elif frame.startswith(b"w"):
        decode = decode_command  # type: ignore[assignment]
    with pytest.raises(FrameError):
        decode(cut)


@given(FRAMES, st.data())
def test_a_real_frame_with_bytes_changed_decodes_or_raises_a_frame_error(
    frame: bytes, data: st.DataObject
) -> None:
    changed = bytearray(frame)
    for _ in range(data.draw(st.integers(min_value=1, max_value=4))):
        place = data.draw(st.integers(min_value=0, max_value=len(frame) - 1))
        changed[place] = data.draw(st.integers(min_value=0, max_value=255))
    refused_or_decoded(bytes(changed))


def hello(**changed: object) -> bytes:
    fields = {"type": 1, "worker": "a", "incarnation": 1, "token": 5, "pid": 1, "protocol": 1}
    return msgspec.msgpack.encode({**fields, **changed})


def status(network: object) -> bytes:
    return msgspec.msgpack.encode(
        {
            "type": 3,
            "worker": "a",
            "incarnation": 1,
            "token": 5,
            "network": network,
            "revision": 1,
        }
    )


def test_the_frames_that_the_next_test_spoils_are_sound() -> None:
    assert decode_report(hello()) == Hello(worker="a", incarnation=1, token=5, pid=1, protocol=1)
    decode_report(status(3))


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xc1", id="the byte that msgpack never uses"),
        pytest.param(hello() + b"\0", id="something behind it"),
        pytest.param(hello(type=99), id="unknown tag"),
        pytest.param(hello(type="Hello"), id="tag of the wrong type"),
        pytest.param(hello(pid="1"), id="text for a number"),
        pytest.param(hello(pid=1.5), id="fraction for a whole number"),
        pytest.param(hello(worker=None), id="nothing for a name"),
        pytest.param(hello(token=None), id="nothing for a token"),
        pytest.param(status(6), id="unknown enum value"),
        pytest.param(status("CONNECTED"), id="enum by name"),
        pytest.param(hello(worker=b"\xff"), id="bytes for text"),
        pytest.param(hello(worker="a").replace(b"\xa1a", b"\xa1\xff"), id="invalid UTF-8"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="array of 4 billion"),
        pytest.param(b"\xdf\xff\xff\xff\xff\xa4type\x01", id="map of 4 billion"),
        pytest.param(b"\x81\xa4type\xdb\xff\xff\xff\xff", id="text of 4 GB"),
        pytest.param(b"\x91" * 100_000, id="nested arrays"),
        pytest.param(b"\x81\xa1a" * 100_000, id="nested maps"),
        pytest.param(b"\x82\xa4type\x01\xa1q" + b"\x91" * 100_000, id="nested in a report"),
    ],
)
def test_a_spoilt_report_raises_a_frame_error(frame: bytes) -> None:
    with pytest.raises(FrameError):
        decode_report(frame)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(msgspec.msgpack.encode([1, 1]), id="too few"),
        pytest.param(msgspec.msgpack.encode([2, 1, 1.0]), id="tag of another"),
        pytest.param(msgspec.msgpack.encode([1, None, 1.0]), id="no number"),
        pytest.param(b"\x94\x01\x01\x01" + b"\x91" * 100_000, id="nested without end"),
    ],
)
def test_a_spoilt_tick_raises_a_frame_error(body: bytes) -> None:
    with pytest.raises(FrameError):
        decode_tick(TICK_TOPIC + body)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"wa", id="no end of the topic"),
        pytest.param(b"wa\0", id="no body"),
        pytest.param(
            b"xa\0" + encode_command("a", Configure(settings=WorkerSettings()))[3:], id="x"
        ),
        pytest.param(command_topic("a") + b"\x81\xa1a" * 100_000, id="nested without end"),
    ],
)
def test_a_spoilt_command_raises_a_frame_error(frame: bytes) -> None:
    with pytest.raises(FrameError):
        decode_command(frame)


def test_what_a_later_version_adds_to_a_message_is_ignored() -> None:
    assert decode_report(hello(novelty={"x": [1, 2]})) == decode_report(hello())


def test_a_frame_error_is_a_value_error_and_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="pid"):
        decode_report(hello(pid=None))


def test_not_a_number_travels_as_itself() -> None:
    arrived = decode_command(
        encode_command("a", Welcome(timestamp=math.nan, settings=WorkerSettings()))
    )
    assert isinstance(arrived, Welcome)
    assert math.isnan(arrived.timestamp)


def test_the_longest_beat_fits_into_a_frame() -> None:
    assert len(encode_report(LONGEST_BEAT)) <= MAX_FRAME
