"""The frames of messages between processors, as the forwarder passes them on.

A frame begins with its topic, by which ZeroMQ filters: a letter, the words of the topic, and a NUL.
The rest is msgpack. Nothing is ever unpickled.

::

    m<topic>\\0 Batch    messages of one processor and topic in a row
    r<topic>\\0 Batch    the same, of which the owner retains the last
    a<worker>\\0<incarnation>.<request>\\0 Mark | Values    the answer to a subscriber
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from chronopype_mp.core.codec import FrameError

__all__ = [
    "ANSWER",
    "MESSAGE",
    "RETAINED",
    "Mark",
    "MessageBatch",
    "Value",
    "Values",
    "answer_topic",
    "decode_answer",
    "decode_messages",
    "encode_answer",
    "encode_messages",
    "message_topic",
    "prefixes_of",
]

MESSAGE, RETAINED, ANSWER = b"m", b"r", b"a"


class MessageBatch(msgspec.Struct, frozen=True, array_like=True):
    """Messages of one incarnation and one topic, in a row.

    Attributes:
        worker, incarnation: who has published them.
        serial: the number of the first among the messages of this incarnation, from 1.
        seq: its number among those of this topic, from 1; the others follow without a gap. It
            begins again if the publisher has forgotten the topic.
        payloads: those of the messages, not decoded.
    """

    worker: str
    incarnation: int
    serial: int
    seq: int
    payloads: list[msgspec.Raw]

    @property
    def last(self) -> int:
        """The serial number of the last message."""
        return self.serial + len(self.payloads) - 1


class Mark(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The place in the stream of messages at which retained values are read.

    Attributes:
        request: the subscriber's number of what it asked for.
        patterns: of the topics that it asked for.
    """

    request: int
    patterns: tuple[str, ...]


class Value(msgspec.Struct, frozen=True, array_like=True):
    """A retained message, its topic, and who has published it under which number."""

    worker: str
    incarnation: int
    serial: int
    topic: str
    payload: msgspec.Raw


class Values(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Retained values, in parts.

    Attributes:
        request: see `Mark`.
        part: counts the parts from 0.
        is_last: there are no further parts.
        values: those of this part.
    """

    request: int
    part: int
    is_last: bool
    values: list[Value]


_encoder = msgspec.msgpack.Encoder()
_batches = msgspec.msgpack.Decoder(MessageBatch)
_answers = msgspec.msgpack.Decoder(Mark | Values)
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def message_topic(topic: str, *, retain: bool = False) -> bytes:
    """Return what the frames of a topic begin with."""
    return (RETAINED if retain else MESSAGE) + topic.encode() + b"\0"


def answer_topic(worker: str, incarnation: int, request: int) -> bytes:
    """Return what the frames begin with that answer a subscriber's request."""
    return b"%s%s\0%d.%d\0" % (ANSWER, worker.encode(), incarnation, request)


def prefixes_of(pattern: str) -> tuple[bytes, bytes]:
    """Return what a subscriber asks ZeroMQ for: at least all topics that a pattern chooses."""
    literal, star, _ = pattern.partition("*")
    end = b"" if star else b"\0"
    return MESSAGE + literal.encode() + end, RETAINED + literal.encode() + end


def encode_messages(
    topic: bytes,
    worker: str,
    incarnation: int,
    serial: int,
    seq: int,
    payloads: Sequence[bytes | memoryview],
) -> bytes:
    """Return the frame of a batch of messages, whose payloads are encoded already.

    Args:
        topic: from `message_topic`.
        worker, incarnation, serial, seq, payloads: see `MessageBatch`.
    """
    header = _encoder.encode((worker, incarnation, serial, seq))
    # An array of five instead of four; the last of them is an array with a length of four bytes.
    count = b"\xdd" + len(payloads).to_bytes(4, "big")
    return b"".join((topic, b"\x95", header[1:], count, *payloads))


def decode_messages(frame: bytes) -> tuple[str, MessageBatch]:
    """Return the topic of a frame, and the messages in it.

    Raises:
        FrameError: it does not decode, or is empty.
    """
    end = frame.find(b"\0", 1)
    try:
        topic = frame[1:end].decode()
        batch = _batches.decode(memoryview(frame)[end + 1 :])
    except _BROKEN as error:
        raise FrameError(str(error)) from error
    if not batch.payloads:
        raise FrameError("there is no message in it")
    return topic, batch


def encode_answer(topic: bytes, answer: Mark | Values) -> bytes:
    """Return the frame of an answer.

    Args:
        topic: from `answer_topic`.
    """
    return topic + _encoder.encode(answer)


def decode_answer(frame: bytes) -> tuple[bytes, Mark | Values]:
    """Return the topic and the answer in a frame.

    Raises:
        FrameError: it does not decode.
    """
    end = frame.find(b"\0", frame.find(b"\0") + 1) + 1
    try:
        answer: Mark | Values = _answers.decode(memoryview(frame)[end:])
    except _BROKEN as error:
        raise FrameError(str(error)) from error
    return frame[:end], answer
