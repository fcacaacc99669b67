"""Packing: what can travel arrives as it was, and what cannot is named."""

from __future__ import annotations

import asyncio
import io
import multiprocessing.managers
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import multiprocess
import pytest

from chronopype_mp.coordinator.payload import pack
from chronopype_mp.exceptions import TransferError
from chronopype_mp.processors import ProcessorSpec, TickProcessor
from chronopype_mp.worker.payload import load
from tests.waiting import run


class Holder(TickProcessor):
    """Holds something."""

    def __init__(self, **held: Any) -> None:
        super().__init__()
        self.__dict__.update(held)


def make(**options: Any) -> TickProcessor:
    return Holder(**options)


def arrived(source: TickProcessor | ProcessorSpec) -> Any:
    """Return what comes to life in a worker."""
    return load(pack(source).payload)


def test_a_processor_arrives_as_it_was_when_it_was_added() -> None:
    processor = Holder(symbols=["a", "b"], limits={"a": 1.5})
    payload = pack(processor).payload
    processor.symbols.append("c")  # type: ignore[attr-defined]
    twin: Any = load(payload)
    assert type(twin) is Holder
    assert twin is not processor
    assert (twin.symbols, twin.limits) == (["a", "b"], {"a": 1.5})


def test_a_class_defined_in_a_function_travels_with_what_it_uses() -> None:
    factor = 3

    class Local(TickProcessor):
        def tick(self, timestamp: float) -> None:
            self.result = timestamp * factor

    twin = arrived(Local())
    asyncio.run(twin.async_tick(2.0))
    assert twin.result == 6.0


def test_a_class_of_a_function_may_call_its_base() -> None:
    class Base(TickProcessor):
        def __init__(self) -> None:
            super().__init__(stats_window_size=7)
            self.calls = ["base"]

    class Derived(Base):
        def __init__(self) -> None:
            super().__init__()
            self.calls.append("derived")

        def start(self, timestamp: float) -> None:
            super().start(timestamp)
            self.calls.append(f"start {timestamp}")

    twin = arrived(Derived())
    twin.start(4.0)
    assert twin.calls == ["base", "derived", "start 4.0"]
    assert twin.state.is_active


def test_closures_and_hooks_assigned_to_an_object_travel() -> None:
    seen: list[float] = []

    def remember(timestamp: float) -> None:
        seen.append(timestamp)

    processor = Holder(convert=lambda value: value + len(seen), seen=seen)
    processor.tick = remember  # type: ignore[method-assign]
    twin = arrived(processor)
    asyncio.run(twin.async_tick(1.0))
    assert twin.convert(10) == 11
    assert seen == []


@pytest.mark.parametrize("make_lock", [threading.Lock, threading.RLock])
def test_a_lock_that_nobody_holds_travels(make_lock: Callable[[], Any]) -> None:
    lock = make_lock()
    twin = arrived(Holder(lock=lock, also=lock))
    assert twin.lock is twin.also
    assert twin.lock.acquire(blocking=False)
    twin.lock.release()
    with lock, pytest.raises(TransferError, match=r"^Holder\.lock cannot .* lock that is held"):
        pack(Holder(lock=lock))


def count() -> Iterator[int]:
    yield 1


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    with socket.socket() as opened:
        yield opened


def test_a_socket_is_named(connection: socket.socket) -> None:
    with pytest.raises(TransferError) as caught:
        pack(Holder(before=1, connection=connection, after=2))
    error = caught.value
    assert (error.processor, error.attribute) == ("Holder", "connection")
    assert str(error).startswith(
        "Holder.connection cannot be sent to a worker process: a socket belongs to this process. "
    )
    assert "start_network()" in str(error)
    assert "ProcessorSpec" in str(error)
    assert isinstance(error.__cause__, TypeError)


def test_a_generator_deep_inside_an_attribute_is_named() -> None:
    with pytest.raises(TransferError) as caught:
        pack(Holder(source={"numbers": [count()]}))
    assert caught.value.attribute == "source['numbers'][0]"


@pytest.mark.parametrize("kind", ["task", "loop", "future"])
def test_what_belongs_to_an_event_loop_is_named(kind: str) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        made: dict[str, Callable[[], object]] = {
            "task": lambda: asyncio.current_task(),
            "loop": lambda: loop,
            "future": loop.create_future,
        }
        with pytest.raises(TransferError) as caught:
            pack(Holder(client=made[kind]()))
        assert caught.value.attribute == "client"

    run(scenario())


def test_what_a_method_of_a_class_holds_and_cannot_travel_is_named() -> None:
    numbers = count()

    class Greedy(TickProcessor):
        def tick(self, timestamp: float) -> None:
            next(numbers)

    with pytest.raises(TransferError) as caught:
        pack(Greedy())
    assert (caught.value.processor, caught.value.attribute) == ("Greedy", "tick.<numbers>")
    assert str(caught.value).startswith("Greedy.tick.<numbers> cannot be sent")


def test_the_spec_of_a_processor_makes_it_on_arrival() -> None:
    twin = arrived(ProcessorSpec(target=Holder, options={"symbols": ["a"]}))
    assert type(twin) is Holder
    assert twin.symbols == ["a"]
    named = arrived(
        ProcessorSpec(target="tests.coordinator.test_payload:make", options={"size": 3})
    )
    assert named.size == 3


def test_a_spec_may_have_a_function_of_a_function_as_its_target() -> None:
    size = 4

    def build(extra: int) -> TickProcessor:
        return Holder(size=size + extra)

    assert arrived(ProcessorSpec(target=build, options={"extra": 1})).size == 5


def test_the_option_of_a_spec_that_cannot_travel_is_named(connection: socket.socket) -> None:
    with pytest.raises(TransferError) as caught:
        pack(ProcessorSpec(target=make, options={"size": 1, "connection": connection}))
    assert caught.value.attribute == "options['connection']"


def test_the_target_of_a_spec_that_cannot_travel_is_named() -> None:
    numbers = count()

    def build() -> TickProcessor:
        return Holder(first=next(numbers))

    with pytest.raises(TransferError) as caught:
        pack(ProcessorSpec(target=build))
    assert caught.value.attribute == "target.<numbers>"


def test_what_would_arrive_as_something_else_is_refused(tmp_path: Path) -> None:
    processor = TickProcessor()
    for value in (threading.Thread(), (tmp_path / "kept").open("w")):
        processor.held = value  # type: ignore[attr-defined]
        with pytest.raises(TransferError, match=r"held cannot be sent .* this process"):
            pack(processor)
        if isinstance(value, io.IOBase):
            value.close()


@pytest.mark.parametrize(
    "make",
    [
        multiprocess.Queue,
        lambda: multiprocess.Pipe()[0],
        multiprocess.Lock,
        lambda: multiprocess.Value("i"),
        multiprocessing.Queue,
        multiprocessing.SimpleQueue,
        lambda: multiprocessing.Pipe()[1],
        multiprocessing.Event,
        multiprocessing.managers.SyncManager,
    ],
)
def test_a_channel_between_processes_is_refused_with_what_replaces_it(
    make: Callable[[], Any],
) -> None:
    processor = TickProcessor()
    vars(processor)["channel"] = make()
    with pytest.raises(TransferError) as caught:
        pack(processor)
    assert caught.value.attribute == "channel"
    for way in ("self.emit(", "self.subscribe(", "handle.call("):
        assert way in str(caught.value)
