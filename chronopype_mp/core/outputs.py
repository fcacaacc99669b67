"""What processors emit, the settings of its way to the owner, and its frames.

A frame is a batch of one worker's outputs in a row, an array in msgpack::

    [token, sequence number of the first, [[topic, time, payload], …]]

The token stands for the worker and its incarnation, and is known to these two processes alone. Each
output is encoded once, when it is emitted; a frame is its header and these bytes one after the
other. The owner decodes a payload only if somebody reads it. Nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from chronopype_mp.core.checks import whole
from chronopype_mp.core.codec import FrameError
from chronopype_mp.core.settings import Settings
from chronopype_mp.core.topics import matches, pattern_problem
from chronopype_mp.exceptions import ConfigError

__all__ = [
    "BATCH_BYTES",
    "BATCH_OUTPUTS",
    "LARGEST_OUTPUT",
    "MAX_BATCH",
    "Batch",
    "BatchItem",
    "Output",
    "OutputPolicy",
    "PayloadTypes",
    "checked_when_full",
    "decode_batch",
    "encode_batch",
    "encode_output",
]

WhenFull = Literal["drop_oldest", "wait"]

LARGEST_OUTPUT = 4 * 1024 * 1024
"""Bytes of an encoded output with its topic."""

BATCH_BYTES = 64 * 1024
"""Bytes after which a frame takes no further output."""

BATCH_OUTPUTS = 500
"""Outputs in a frame. The owner handles whole frames, in about a millisecond."""

MAX_BATCH = LARGEST_OUTPUT + BATCH_BYTES + 1024
"""Bytes of a frame; the owner's socket refuses larger ones."""

SMALLEST_BUFFER = 2 * BATCH_BYTES


class Output(msgspec.Struct, frozen=True):
    """What a processor has emitted. Readers of the same output share the payload.

    Attributes:
        worker: the worker's name.
        incarnation: which process of it.
        topic: as given to ``emit``.
        payload: what was emitted, of the type that ``output_types`` declares for the topic; without
            one, of msgpack's types: None, bool, int, float, str, bytes, list, dict, datetime.
        seq: counts the incarnation's outputs that somebody wanted, from 1. The numbers that no
            reader gets are those of outputs that were dropped, or that others read.
        at: when it was emitted, wall clock in seconds.
    """

    worker: str
    incarnation: int
    topic: str
    payload: Any
    seq: int
    at: float


class OutputPolicy(Settings, frozen=True):
    """What happens to outputs that nobody reads in time. Settings of a clock, frozen.

    Args:
        when_full: ``"drop_oldest"`` drops and counts the oldest outputs (the default of a realtime
            clock); ``"wait"`` drops none, and holds the workers back until they are read (the
            default of a backtest).
        buffer_bytes: the bytes that a worker keeps while the owner does not read, at least 131,072.
        reader_outputs: the outputs that a reader keeps while it is not read.
        reader_bytes: the bytes of encoded outputs that it keeps.

    Raises:
        ConfigError: a name is unknown, or a value is out of range.
    """

    when_full: WhenFull | None = None
    buffer_bytes: int = 8_000_000
    reader_outputs: int = 10_000
    reader_bytes: int = 16_000_000

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if self.when_full is not None:
            checked_when_full(owner, self.when_full)
        whole(owner, "buffer_bytes", self.buffer_bytes, SMALLEST_BUFFER)
        whole(owner, "reader_outputs", self.reader_outputs, 1)
        whole(owner, "reader_bytes", self.reader_bytes, 1)


def checked_when_full(owner: str, value: object) -> WhenFull:
    """Return what happens when a buffer is full.

    Raises:
        ConfigError: it is neither of the two.
    """
    if value == "drop_oldest":
        return "drop_oldest"
    if value == "wait":
        return "wait"
    raise ConfigError(owner, "when_full", value, 'must be "drop_oldest" or "wait"')


class PayloadTypes:
    """The declared types of payloads.

    Args:
        declared: a type for all topics, a dict of types by pattern, of which the first that chooses
            a topic counts, or None.

    Raises:
        ValueError: a pattern is invalid, or msgspec cannot decode a type.
    """

    def __init__(self, declared: Any) -> None:
        types = declared if isinstance(declared, Mapping) else {"**": declared}
        self._decoders: list[tuple[str, Any, msgspec.msgpack.Decoder[Any]]] = []
        self._builtins = msgspec.msgpack.Decoder()
        if declared is None:
            return
        for pattern, kind in types.items():
            problem = pattern_problem(pattern)
            if problem is not None:
                raise ValueError(f"the topic pattern {pattern!r} {problem}")
            try:
                self._decoders.append((pattern, kind, msgspec.msgpack.Decoder(kind)))
            except (TypeError, ValueError) as error:
                raise ValueError(f"msgspec cannot decode {kind!r}: {error}") from error

    def decoder(self, topic: str) -> msgspec.msgpack.Decoder[Any]:
        """Return what decodes the payloads of a topic."""
        for pattern, _, decoder in self._decoders:
            if matches(pattern, topic):
                return decoder
        return self._builtins

    def kind(self, topic: str) -> type | None:
        """Return the class of which payloads of a topic must be instances; None without one.

        A payload of a declared Struct or dataclass is checked where it is emitted. Other types,
        such as ``list[float]``, show when the owner decodes it.
        """
        for pattern, kind, _ in self._decoders:
            if matches(pattern, topic):
                is_class = isinstance(kind, type) and hasattr(kind, "__annotations__")
                return kind if is_class else None
        return None


class BatchItem(NamedTuple):
    """One output in a frame."""

    topic: str
    at: float
    payload: msgspec.Raw


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """A frame of outputs.

    Attributes:
        token: of the incarnation that has emitted them.
        first: the sequence number of the first output; the others follow without a gap.
        items: the outputs.
    """

    token: int
    first: int
    items: list[BatchItem]


_encoder = msgspec.msgpack.Encoder()
_batches = msgspec.msgpack.Decoder(Batch)


def encode_output(topic: str, at: float, payload: object) -> bytes:
    """Return the bytes of one output.

    Raises:
        Exception: msgspec cannot encode the payload.
    """
    return _encoder.encode((topic, at, payload))


def encode_batch(token: int, first: int, items: Iterable[bytes], count: int) -> bytes:
    """Return the frame of ``count`` outputs, which are encoded already."""
    # An array of three; the last of them is an array with a length of four bytes.
    header = b"\x93" + _encoder.encode(token) + _encoder.encode(first) + b"\xdd"
    return b"".join((header, count.to_bytes(4, "big"), *items))


def decode_batch(frame: bytes) -> Batch:
    """Return the outputs in a frame; their payloads are not decoded.

    Raises:
        FrameError: it does not decode.
    """
    try:
        return _batches.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(str(error)) from error
