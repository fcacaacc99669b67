"""The inlet passes outputs on in bounded turns, and drops and counts what is not one."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest

from chronopype_mp.coordinator.callbacks import Guard
from chronopype_mp.coordinator.output_inlet import SOURCES_KEPT, TOPICS_KNOWN, OutputInlet
from chronopype_mp.coordinator.output_stream import OutputStream
from chronopype_mp.core.outputs import OutputPolicy, PayloadTypes, encode_batch, encode_output
from chronopype_mp.transport.memory import MemoryHub
from tests.waiting import run, turns


class Price(msgspec.Struct, frozen=True):
    value: float


class Bench:
    """An inlet, and the socket into which a worker sends."""

    def __init__(self, types: Any = None) -> None:
        self.stream = OutputStream(Guard(), OutputPolicy(when_full="drop_oldest"))
        self.drops: Counter[str] = Counter()
        self.gap = 0.0
        self.hub = MemoryHub()
        self.inlet = OutputInlet(
            self.hub.outputs, self.stream, lambda kind: self.drops.update([kind]), self._gap
        )
        self.hub.outputs.attach(asyncio.get_running_loop(), self.inlet.on_readable)
        self.inlet.expect(7, "w", 2, PayloadTypes(types))
        self._sender = self.hub.connect("w").output_sender()

    def _gap(self, work: float) -> float:
        return self.gap

    def send(self, first: int, *payloads: object, topic: str = "a", token: int = 7) -> None:
        items = [encode_output(topic, 1.5, payload) for payload in payloads]
        assert self._sender.send(encode_batch(token, first, items, len(items)))


def test_outputs_arrive_with_their_origin() -> None:
    async def scenario() -> None:
        bench = Bench()
        reader = bench.stream()
        bench.send(3, {"x": 1}, [2])
        first, second = await anext(reader), await anext(reader)
        assert (first.worker, first.incarnation, first.topic, first.at) == ("w", 2, "a", 1.5)
        assert [(each.seq, each.payload) for each in (first, second)] == [(3, {"x": 1}), (4, [2])]

    run(scenario())


def test_frames_that_are_none_or_forged_are_counted_and_dropped() -> None:
    async def scenario() -> None:
        bench = Bench()
        reader = bench.stream()
        for frame in (b"", b"\xc1", b"\x93\x07\x01\x90\x00", b"\x80\x04K\x01."):
            bench.hub.outputs.send(frame)
        bench.send(1, "forged", token=8)
        bench.send(1, "genuine")
        assert (await anext(reader)).payload == "genuine"
        assert bench.drops == {"garbage": 4, "forged": 1}

    run(scenario())


def test_a_payload_that_is_not_of_the_declared_type_is_counted_and_logged_once_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        bench = Bench({"prices.*": Price})
        reader = bench.stream()
        bench.send(1, "x", {"value": "y"}, {"value": 1.5}, topic="prices.btc")
        assert (await anext(reader)).payload == Price(1.5)
        assert bench.inlet.undecoded == 2

    run(scenario())
    assert len(caplog.records) == 1
    assert "worker 'w'" in caplog.text
    assert "topic 'prices.btc'" in caplog.text


def test_nothing_is_read_while_a_reader_is_full_and_waits() -> None:
    async def scenario() -> None:
        bench = Bench()
        patient = bench.stream("a", buffer=1, when_full="wait")
        other = bench.stream("b")
        bench.send(1, 1)
        bench.send(2, 2)
        bench.send(3, 3, topic="b")
        await turns()
        assert [(await anext(patient)).seq for _ in range(2)] == [1, 2]
        await anext_of_nothing(patient)
        assert (await anext(other)).seq == 3

    async def anext_of_nothing(reader: Any) -> None:
        waiting = asyncio.ensure_future(anext(reader))
        await turns()
        assert not waiting.done()
        waiting.cancel()

    run(scenario())


def test_the_end_waits_for_what_a_bye_has_overtaken_even_if_a_reader_is_full() -> None:
    async def scenario() -> None:
        bench = Bench()
        reader = bench.stream(buffer=1, when_full="wait")
        bench.send(1, 1)
        await turns()
        bench.inlet.said_bye(7, 3)
        bench.inlet.ended(7)
        settling = asyncio.ensure_future(bench.inlet.settle(10.0))
        await turns()
        assert not settling.done()
        bench.send(2, 2, 3)
        await settling
        bench.stream.close()
        assert [each.seq async for each in reader] == [1, 2, 3]
        assert bench.inlet.lost == 0

    run(scenario())


def test_what_never_arrives_counts_as_lost(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.send(1, 1)
        bench.inlet.said_bye(7, 3)
        await bench.inlet.settle(0.05)
        assert bench.inlet.lost == 2

    run(scenario())
    assert "2 outputs of worker 'w' were lost" in caplog.text


def test_outputs_of_an_ended_process_are_accepted_for_long_but_not_for_ever() -> None:
    async def scenario() -> None:
        bench = Bench()
        reader = bench.stream()
        bench.inlet.ended(7)
        bench.send(1, 1)
        assert (await anext(reader)).seq == 1
        for token in range(100, 100 + SOURCES_KEPT):
            bench.inlet.expect(token, "w", token, PayloadTypes(None))
            bench.inlet.ended(token)
        assert len(bench.inlet._sources) == SOURCES_KEPT
        bench.send(2, 2)
        await turns()
        assert bench.drops == {"forged": 1}

    run(scenario())


def test_a_turn_waits_for_a_tick_that_is_due() -> None:
    async def scenario() -> None:
        bench = Bench()
        reader = bench.stream()
        bench.gap = 0.01
        bench.send(1, 1)
        await turns()
        assert not reader._buffer
        bench.gap = 0.0
        assert (await anext(reader)).seq == 1

    run(scenario())


def test_a_hundred_thousand_topics_used_once_take_no_memory() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.stream("other")
        for number in range(100_000):
            bench.send(number + 1, None, topic=f"topic.{number}")
            bench.inlet.on_readable()
        source = bench.inlet._sources[7]
        assert source.received == 100_000
        assert len(source.routes) <= TOPICS_KNOWN

    run(scenario())
