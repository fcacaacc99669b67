"""Messages to frames and back: topic, msgpack, nothing else. Nothing is ever unpickled here.

A frame to workers begins with its topic, by which ZeroMQ filters: for one worker's commands that is
``w<name>\\0`` (a name holds no NUL, so no topic is the start of another's), for ticks it is how
these begin in msgpack: an array of three, and the tag.
"""

from __future__ import annotations

from typing import Any

import msgspec

from chronopype_mp.core.messages import Downlink, Tick, Ticks, Uplink

__all__ = [
    "MAX_FRAME",
    "TICKS_TOPIC",
    "TICK_TOPIC",
    "FrameError",
    "command_topic",
    "decode_command",
    "decode_report",
    "decode_tick",
    "decode_ticks",
    "encode_command",
    "encode_report",
    "encode_tick",
    "encode_ticks",
]

MAX_FRAME = 128 * 1024
"""Bytes; the coordinator's sockets refuse a larger frame. The longest report, a log record with all
that it may have, has some 125 KB."""

TICK_TOPIC = b"\x93\x01"

TICKS_TOPIC = b"\x93\x06"

_encoder = msgspec.msgpack.Encoder()
_tick = msgspec.msgpack.Decoder(Tick)
_ticks = msgspec.msgpack.Decoder(Ticks)
_commands = msgspec.msgpack.Decoder(Downlink)
_uplinks = msgspec.msgpack.Decoder(Uplink)

_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for broken text and for frames nested without end, too."""


class FrameError(ValueError):
    """A frame does not decode as a message of the protocol."""


def command_topic(worker: str) -> bytes:
    """Return the topic of one worker's commands."""
    return b"w" + worker.encode() + b"\0"


def encode_tick(tick: Tick) -> bytes:
    """Return the frame of a tick."""
    return _encoder.encode(tick)


def encode_ticks(ticks: Ticks) -> bytes:
    """Return the frame of ticks in a row."""
    return _encoder.encode(ticks)


def encode_command(worker: str, command: Downlink) -> bytes:
    """Return the frame of a command to one worker."""
    return command_topic(worker) + _encoder.encode(command)


def decode_tick(frame: bytes) -> Tick:
    """Return the tick in a frame.

    Raises:
        FrameError: it is not one.
    """
    try:
        return _tick.decode(frame)
    except _BROKEN as error:
        raise FrameError(str(error)) from error


def decode_ticks(frame: bytes) -> Ticks:
    """Return the ticks in a frame.

    Raises:
        FrameError: it has none.
    """
    try:
        return _ticks.decode(frame)
    except _BROKEN as error:
        raise FrameError(str(error)) from error


def decode_command(frame: bytes) -> Downlink:
    """Return the command in a frame.

    Raises:
        FrameError: it is not one.
    """
    topic, end, body = frame.partition(b"\0")
    if not end or not topic.startswith(b"w"):
        raise FrameError("the frame has no command topic")
    try:
        command: Downlink = _commands.decode(body)
        return command
    except _BROKEN as error:
        raise FrameError(str(error)) from error


def encode_report(report: Uplink) -> bytes:
    """Return the frame of a report.

    Text that UTF-8 cannot carry (undecodable file names in messages) travels escaped.
    """
    try:
        return _encoder.encode(report)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(report, builtin_types=(bytes,), enc_hook=msgspec.msgpack.decode)
        return _encoder.encode(_escaped(plain))


def _escaped(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {_escaped(key): _escaped(item) for key, item in value.items()}
        case list() | tuple():
            return [_escaped(item) for item in value]
    return value


def decode_report(frame: bytes) -> Uplink:
    """Return the report in a frame.

    Raises:
        FrameError: it is not one.
    """
    try:
        report: Uplink = _uplinks.decode(frame)
        return report
    except _BROKEN as error:
        raise FrameError(str(error)) from error
