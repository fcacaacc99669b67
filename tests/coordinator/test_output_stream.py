"""Readers and callbacks of outputs: bounded, guarded, and gone when nobody refers to them."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from chronopype_mp.coordinator.callbacks import Guard
from chronopype_mp.coordinator.output_stream import OutputStream
from chronopype_mp.core.outputs import Output, OutputPolicy
from chronopype_mp.exceptions import ConfigError
from tests.waiting import run, turns

POLICY = OutputPolicy(when_full="drop_oldest")


def output(number: int, topic: str = "a", worker: str = "w") -> Output:
    return Output(worker=worker, incarnation=1, topic=topic, payload=number, seq=number, at=0.0)


class Bench:
    """A stream, and what its clock is told."""

    def __init__(self, policy: OutputPolicy = POLICY) -> None:
        self.changes = self.moves = 0
        self.stream = OutputStream(Guard(), policy, self._changed)
        self.stream.on_moved = self._moved

    def _changed(self) -> None:
        self.changes += 1

    def _moved(self) -> None:
        self.moves += 1

    def publish(self, *outputs: Output, size: int = 1) -> None:
        for each in outputs:
            for take in self.stream.followers(each.worker, each.topic):
                take(each, size)


def test_a_reader_gets_what_its_patterns_choose_in_order() -> None:
    async def scenario() -> None:
        bench = Bench()
        reader = bench.stream("a.*", "b", worker="w")
        bench.publish(
            output(1, "a.x"), output(2, "a"), output(3, "b"), output(4, "b", worker="other")
        )
        bench.stream.close()
        assert [each.seq async for each in reader] == [1, 3]

    run(scenario())


def test_workers_are_told_which_topics_are_read() -> None:
    bench = Bench()
    assert bench.stream.wanted_of("w") == ()
    reader = bench.stream("b", "a.*", worker="w")
    unsubscribe = bench.stream.subscribe(print, "c")
    assert bench.stream.wanted_of("w") == ("a.*", "b", "c")
    assert bench.stream.wanted_of("other") == ("c",)
    everything = bench.stream()
    assert bench.stream.wanted_of("w") == ("**",)
    before = bench.changes
    run(everything.aclose())
    unsubscribe()
    unsubscribe()
    assert bench.stream.wanted_of("w") == ("a.*", "b")
    assert bench.changes == before + 2
    del reader
    gc.collect()
    assert bench.stream.wanted_of("w") == ()


def test_a_reader_that_is_not_read_drops_the_oldest_and_counts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        bench = Bench()
        few, light = bench.stream(buffer=3), bench.stream()
        for number in range(1, 8):
            bench.publish(output(number), size=POLICY.reader_bytes // 2)
        bench.stream.close()
        assert [each.seq async for each in few] == [6, 7]  # three exceed its bytes
        assert [each.seq async for each in light] == [6, 7]
        assert few.dropped == light.dropped == 5
        assert bench.stream.dropped == 10

    with caplog.at_level(logging.WARNING):
        run(scenario())
    assert len(caplog.records) == 2  # once for each


def test_a_reader_that_waits_holds_the_outputs_until_it_is_half_read() -> None:
    async def scenario() -> None:
        bench = Bench()
        reader = bench.stream(buffer=4, when_full="wait")
        bench.publish(*map(output, (1, 2, 3, 4)))
        assert bench.stream.is_held
        assert [(await anext(reader)).seq for _ in range(2)] == [1, 2]
        assert not bench.stream.is_held
        assert bench.moves == 1
        assert reader.dropped == 0

    run(scenario())


@pytest.mark.parametrize("end", ["closed", "forgotten"])
def test_a_reader_that_holds_the_outputs_lets_go_at_its_end(end: str) -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.stream.open(asyncio.get_running_loop())
        reader = bench.stream(buffer=1, when_full="wait")
        bench.publish(output(1))
        assert bench.stream.is_held
        if end == "closed":
            async with reader:
                pass
            assert [each async for each in reader] == []
        del reader
        gc.collect()
        await turns()
        assert not bench.stream.is_held
        assert bench.moves == 1

    run(scenario())


def test_a_task_that_waits_keeps_its_reader_and_being_cancelled_loses_nothing() -> None:
    async def scenario() -> None:
        bench = Bench()

        async def read() -> list[int]:
            return [each.seq async for each in bench.stream("a")]

        task = asyncio.ensure_future(read())
        await turns()
        gc.collect()
        bench.publish(output(1))
        bench.stream.close()
        assert await task == [1]

        reader = bench.stream("a")
        waiting = asyncio.ensure_future(anext(reader))
        await turns()
        waiting.cancel()
        bench.publish(output(2))
        await turns()
        assert (await anext(reader)).seq == 2

    run(scenario())


def test_a_reader_with_much_to_read_lets_the_loop_turn() -> None:
    async def scenario() -> None:
        bench = Bench()
        reader = bench.stream()
        bench.publish(*map(output, range(1000)))
        turned: list[int] = []

        async def watch() -> None:
            while True:
                turned.append(1)
                await asyncio.sleep(0)

        watching = asyncio.ensure_future(watch())
        for _ in range(1000):
            await anext(reader)
        watching.cancel()
        assert len(turned) >= 9

    run(scenario())


def test_what_a_callback_raises_goes_no_further(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    seen: list[int] = []

    def fails(output: Output) -> None:
        raise asyncio.CancelledError("stray")

    bench.stream.subscribe(fails, "a")
    bench.stream.subscribe(lambda output: seen.append(output.seq), "a")
    bench.publish(output(1))
    assert seen == [1]
    assert "an output callback failed" in caplog.text


def test_callbacks_outlive_a_use_of_the_clock_and_readers_do_not() -> None:
    bench = Bench()
    seen: list[int] = []
    bench.stream.subscribe(lambda output: seen.append(output.seq))
    reader = bench.stream()
    bench.stream.close()
    bench.publish(output(1))
    assert seen == [1]
    with pytest.raises(StopAsyncIteration):
        run(anext(reader))  # type: ignore[arg-type]


def test_invalid_arguments_are_refused_by_name() -> None:
    stream = Bench().stream
    with pytest.raises(ConfigError, match=r"outputs\.patterns = 'pri\*'"):
        stream("pri*")
    with pytest.raises(ConfigError, match=r"outputs\.buffer = 0"):
        stream(buffer=0)
    with pytest.raises(ConfigError, match=r"outputs\.when_full = 'block'"):
        stream(when_full="block")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"outputs\.worker = 3: must be the name"):
        stream(worker=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"outputs\.subscribe\.patterns = 'a\.\.b'"):
        stream.subscribe(print, "a..b")

    async def coroutine(output: Output) -> None:
        pass

    with pytest.raises(TypeError, match="coroutine function"):
        stream.subscribe(coroutine)
