"""The bytes on the wire: whoever changes them needs a new version of the protocol.

A golden file has one frame of each message. After a change of the wire raise `PROTOCOL`, then write
the file again::

    python -m tests.core.test_wire
"""

from __future__ import annotations

import math
import typing
from pathlib import Path

import msgspec
import pytest

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.codec import (
    decode_command,
    decode_report,
    decode_tick,
    decode_ticks,
    encode_command,
    encode_report,
    encode_tick,
    encode_ticks,
)
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.connection_counters import ConnectionCounters
from chronopype_mp.core.histogram import Histogram
from chronopype_mp.core.message_counters import MessageCounters
from chronopype_mp.core.messages import (
    PROTOCOL,
    AskRetained,
    Attributes,
    AttributeValue,
    Beat,
    Bye,
    Call,
    CallAsked,
    CallDone,
    CommandDone,
    Configure,
    Downlink,
    Failure,
    GuardBeat,
    Hello,
    LogLine,
    Outcome,
    Ready,
    Reconnect,
    Rehearse,
    Reply,
    Restoring,
    SendAttributes,
    StatePart,
    Status,
    Stop,
    Tick,
    TickDone,
    Ticks,
    Uplink,
    Welcome,
    WorkerSettings,
)
from chronopype_mp.core.output_counters import OutputCounters
from chronopype_mp.core.state import TickAccount, TickCounters

GOLDEN = Path(__file__).with_name("wire.json")

REPORT = {"worker": "feed", "incarnation": 3, "token": 2**62 + 1}
COMMAND = {"incarnation": 3, "id": 7, "oldest": 5, "seq": 41, "timestamp": 1.5}
SETTINGS = WorkerSettings(
    paused=True,
    outputs=("prices.*",),
    check_network_interval=1.0,
    check_network_timeout=2.0,
    network_error_wait_time=3.0,
    start_network_timeout=4.0,
    stop_network_timeout=5.0,
    network_backoff=BackoffPolicy(minimum=2.0, factor=3.0, maximum=20.0, jitter=0.5),
    stable_after=6.0,
    stale_after=7.0,
    retry_permanent_after=math.inf,
)
COUNTERS = TickCounters(is_active=True, lateness=Histogram({17: 2}, 0.25, 0.125), last_error="boom")
CONNECTION = ConnectionCounters(Histogram({18: 3}, 0.5, 0.25), connects=2, connected_seconds=7.5)
OUTCOME = Outcome(
    result=b"\x01",
    error="RemoteError",
    message="boom",
    type_name="ValueError",
    type_path="builtins:ValueError",
    traceback="Traceback",
)
VALUE = AttributeValue("decimal:Decimal", msgspec.Raw(msgspec.msgpack.encode("1.5")))
OUTPUTS = OutputCounters(emitted=9, sent=5, dropped=3)
GOT = MessageCounters(received=7, gaps=2)
ACCOUNT = TickAccount(10, run=20, missed=3, skipped=1)

MESSAGES: list[Tick | Ticks | Downlink | Uplink] = [
    Tick(41, 1.5),
    Ticks(41, [1.5, 2.5]),
    Welcome(**COMMAND, settings=SETTINGS),
    Configure(**COMMAND, settings=SETTINGS),
    Stop(**COMMAND),
    Rehearse(**COMMAND, fault="spin", amount=0.5),
    Reconnect(**COMMAND),
    Call(**COMMAND, call=2, method="price", arguments=b"\x92\x90\x80", timeout=5.0),
    Reply(**COMMAND, call=2, outcome=OUTCOME),
    SendAttributes(**COMMAND, request=2),
    Hello(**REPORT, pid=77, package="1.2.3", python="3.13.1"),
    Ready(**REPORT, base=10),
    Status(
        **REPORT,
        network=NetworkStatus.ERROR,
        revision=4,
        error="refused",
        last_connected=9.5,
        reason="refused",
        next_attempt=19.5,
        connection=CONNECTION,
    ),
    Beat(
        **REPORT,
        serial=6,
        account=ACCOUNT,
        counters=COUNTERS,
        largest_gap=2.5,
        lag=0.25,
        network=NetworkStatus.CONNECTED,
        revision=4,
        last_connected=9.5,
        reason="refused",
        next_attempt=19.5,
        connection=CONNECTION,
        downtime=7.5,
        check_timeouts=3,
        rss=1_000_000,
        cpu=1.25,
        reports_lost=2,
        frames_dropped=1,
        mirrored={"price": VALUE},
        outputs=OUTPUTS,
        messages=GOT,
    ),
    GuardBeat(**REPORT, stalled=0.5),
    CommandDone(**REPORT, id=7, seq=41),
    Failure(
        **REPORT,
        hook="async_tick",
        serial=1,
        type_name="ValueError",
        message="boom",
        traceback="Traceback",
        type_path="builtins:ValueError",
        fatal=True,
        timeout=True,
        timestamp=1.5,
        next_attempt=19.5,
    ),
    LogLine(
        **REPORT,
        logger="app",
        level=20,
        message="hello",
        created=1.5,
        pathname="/a/b.py",
        lineno=3,
        function="f",
        thread="MainThread",
        thread_id=140_000,
        task="Task-1",
        process=77,
        exception="Traceback",
        stack="Stack",
        extra={"order": msgspec.Raw(msgspec.msgpack.encode(17))},
    ),
    Bye(
        **REPORT,
        account=ACCOUNT,
        counters=COUNTERS,
        largest_gap=2.5,
        connection=CONNECTION,
        stopped_at=41,
        outputs=OUTPUTS,
        messages=GOT,
    ),
    TickDone(**REPORT, seq=41),
    CallDone(**REPORT, call=2, outcome=OUTCOME),
    CallAsked(**REPORT, call=2, callee="b", method="price", arguments=b"\x92\x90\x80", timeout=5.0),
    StatePart(**REPORT, serial=1, index=2, count=3, version=4, taken_at=1.5, data=b"state"),
    Restoring(**REPORT, is_over=True),
    Attributes(
        **REPORT,
        request=2,
        values={"price": VALUE},
        left_out={"client": "Client: not supported"},
        is_last=True,
    ),
    AskRetained(**REPORT, request=2, patterns=("prices.*",)),
]


def encoded(message: Tick | Ticks | Downlink | Uplink) -> bytes:
    if isinstance(message, Tick):
        return encode_tick(message)
    if isinstance(message, Ticks):
        return encode_ticks(message)
    if isinstance(message, Downlink):
        return encode_command("feed", message)
    return encode_report(message)


def decoded(kind: type, frame: bytes) -> object:
    if kind is Tick:
        return decode_tick(frame)
    if kind is Ticks:
        return decode_ticks(frame)
    return decode_command(frame) if issubclass(kind, Downlink) else decode_report(frame)


def golden() -> dict[str, str]:
    content = msgspec.json.decode(GOLDEN.read_bytes(), type=dict[str, dict[str, str]])
    assert list(content) == [f"protocol {PROTOCOL}"], "write the golden file again"
    return content[f"protocol {PROTOCOL}"]


def test_every_message_is_in_the_golden_file() -> None:
    kinds = {Tick, Ticks, *typing.get_args(Downlink), *typing.get_args(Uplink)}
    assert {type(message) for message in MESSAGES} == kinds
    assert set(golden()) == {kind.__name__ for kind in kinds}


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_the_bytes_of_a_message_are_those_of_its_version(
    message: Tick | Ticks | Downlink | Uplink,
) -> None:
    frame = bytes.fromhex(golden()[type(message).__name__])
    assert encoded(message) == frame, "the wire has changed: raise PROTOCOL"
    assert decoded(type(message), frame) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_the_golden_message_leaves_no_field_at_its_default(
    message: Tick | Ticks | Downlink | Uplink,
) -> None:
    defaults = msgspec.structs.fields(type(message))
    same = [each.name for each in defaults if getattr(message, each.name) == each.default]
    assert same in ([], ["protocol"])


if __name__ == "__main__":
    frames = {type(message).__name__: encoded(message).hex() for message in MESSAGES}
    text = msgspec.json.encode({f"protocol {PROTOCOL}": frames})
    GOLDEN.write_bytes(msgspec.json.format(text) + b"\n")
