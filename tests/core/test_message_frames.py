"""Frames of messages keep their bytes, and what does not decode is refused."""

from __future__ import annotations

import msgspec
import pytest

from chronopype_mp.core.codec import FrameError
from chronopype_mp.core.message_frames import (
    Mark,
    Value,
    Values,
    answer_topic,
    decode_answer,
    decode_messages,
    encode_answer,
    encode_messages,
    message_topic,
    prefixes_of,
)
from chronopype_mp.core.topics import matches

TOPIC = message_topic("prices.btc", retain=True)
FRAME = encode_messages(TOPIC, "feed", 3, 40, 7, [b"\x11", b"\x12"])
VALUE = Value("feed", 3, 40, "prices.btc", msgspec.Raw(b"\x11"))


def test_messages_come_out_of_a_frame_as_they_went_in() -> None:
    topic, batch = decode_messages(FRAME)
    assert (batch.worker, batch.incarnation, batch.serial, batch.seq) == ("feed", 3, 40, 7)
    assert (topic, batch.last) == ("prices.btc", 41)
    assert list(map(bytes, batch.payloads)) == [b"\x11", b"\x12"]


@pytest.mark.parametrize("answer", [Mark(2, ("prices.*",)), Values(2, 0, True, [VALUE])])
def test_answers_come_out_of_a_frame_as_they_went_in(answer: Mark | Values) -> None:
    topic = answer_topic("feed", 3, 2)
    assert decode_answer(encode_answer(topic, answer)) == (topic, answer)


def test_the_bytes_of_frames_are_those_of_their_version() -> None:
    """A change of these bytes needs a new PROTOCOL, as one of the other messages."""
    topic = answer_topic("feed", 3, 2)
    assert FRAME == b"rprices.btc\0\x95\xa4feed\x03\x28\x07\xdd\0\0\0\x02\x11\x12"
    assert encode_answer(topic, Mark(2, ("a",))) == b"afeed\x003.2\0\x93\x01\x02\x91\xa1a"
    assert encode_answer(topic, Values(2, 0, True, [VALUE])) == (
        b"afeed\x003.2\0\x95\x02\x02\0\xc3\x91\x95\xa4feed\x03\x28\xaaprices.btc\x11"
    )


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"m",
        b"mprices.btc\0",
        FRAME[:-1],
        FRAME.replace(b"btc", b"b\xffc", 1),
        encode_messages(message_topic("a"), "feed", 1, 1, 1, []),
    ],
)
def test_a_frame_that_is_broken_or_empty_is_refused(frame: bytes) -> None:
    with pytest.raises(FrameError):
        decode_messages(frame)


@pytest.mark.parametrize("frame", [b"", b"a", b"afeed\0003.2\0", b"afeed\0003.2\0\xc1"])
def test_an_answer_that_is_broken_is_refused(frame: bytes) -> None:
    with pytest.raises(FrameError):
        decode_answer(frame)


@pytest.mark.parametrize("pattern", ["", "a", "a.b", "a.*", "a.*.c", "**", "a.**", "*.b"])
@pytest.mark.parametrize("topic", ["", "a", "a.b", "a.b.c", "ab", "ab.c", "b"])
def test_frames_of_every_topic_that_a_pattern_chooses_begin_with_its_prefixes(
    pattern: str, topic: str
) -> None:
    plain, retained = prefixes_of(pattern)
    if matches(pattern, topic):
        assert message_topic(topic).startswith(plain)
        assert message_topic(topic, retain=True).startswith(retained)
