"""The owner's side of the references without a framework: processes, a PUB socket and pacing."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import multiprocess
import multiprocess.spawn
import zmq

from benchmarks.measures import MeasurementError
from benchmarks.probes import STAMP, Arrivals
from benchmarks.readers import STOP, TOPIC, Reader
from chronopype_mp.launchers.process import PRELOAD

__all__ = ["BareWorkers", "start_process", "warm_up"]

PATIENCE = 120.0
"""Seconds to wait for all processes to start or to end."""


def start_process(target: Callable[..., object], *arguments: object) -> Any:
    """Start a process from the forkserver of our workers, with the same preloaded modules.

    Like a worker it does not run the main module again, which would count as part of its start.
    """
    context = multiprocess.get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])
    process = context.Process(target=target, args=arguments, daemon=True)
    with _main_module_out_of_sight():
        process.start()
    return process


@contextlib.contextmanager
def _main_module_out_of_sight() -> Iterator[None]:
    prepare = multiprocess.spawn.get_preparation_data

    def without_main(name: str) -> dict[str, Any]:
        data: dict[str, Any] = prepare(name)
        return {key: value for key, value in data.items() if not key.startswith("init_main_")}

    multiprocess.spawn.get_preparation_data = without_main
    try:
        yield
    finally:
        multiprocess.spawn.get_preparation_data = prepare


def warm_up() -> None:
    """Start the forkserver, because the first process takes longer than the others."""
    start_process(time.monotonic).join()


class BareWorkers:
    """Bare readers and the PUB socket that feeds them. They run inside this context manager.

    Args:
        reader: the function that each reader runs.
        count: the number of readers.
        queued: frames queued for one reader before frames are dropped; 0 for unbounded.

    Attributes:
        start: seconds from the first start until all readers had subscribed.
        published: the monotonic time, in seconds, at which each tick was published, by timestamp.
    """

    def __init__(self, reader: Reader, count: int, queued: int = 1000) -> None:
        self.start = 0.0
        self.published: dict[float, float] = {}
        self._reader = reader
        self._count = count
        self._queued = queued
        self._processes: list[Any] = []
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Start the readers.

        Raises:
            MeasurementError: a reader did not subscribe in time.
        """
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bare-"))
            context = stack.enter_context(zmq.Context())
            # An XPUB is a PUB that receives the subscriptions.
            self._pub = stack.enter_context(context.socket(zmq.XPUB))
            self._pub.setsockopt(zmq.XPUB_VERBOSE, 1)
            self._pub.setsockopt(zmq.SNDHWM, self._queued)
            self._pull = stack.enter_context(context.socket(zmq.PULL))
            for socket in (self._pub, self._pull):
                socket.setsockopt(zmq.LINGER, 0)
                socket.setsockopt(zmq.RCVHWM, 0)
            down, up = f"ipc://{directory}/down", f"ipc://{directory}/up"
            self._pub.bind(down)
            self._pull.bind(up)
            stack.callback(self._end)
            began = time.monotonic()
            for _ in range(self._count):
                self._processes.append(start_process(self._reader, down, up))
            self._receive(self._pub, "started")
            self.start = time.monotonic() - began
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the readers."""
        self._cleanup.close()

    @property
    def pids(self) -> list[int]:
        """The process ids of the readers."""
        return [process.pid for process in self._processes]

    def pace(self, period: float, seconds: float) -> None:
        """Publish a tick at every multiple of ``period`` for ``seconds``."""
        end = time.monotonic() + seconds
        number = math.ceil(time.monotonic() / period)
        while (deadline := number * period) < end:
            _sleep_until(deadline)
            frame = TOPIC + STAMP.pack(deadline)
            now = time.monotonic()
            self._pub.send(frame, zmq.DONTWAIT)
            self.published[deadline] = now
            number = max(number + 1, math.ceil(time.monotonic() / period))
        _sleep_until(end)

    def flood(self, frame: bytes, count: int) -> list[bytes]:
        """Publish a frame ``count`` times as fast as possible and stop the readers.

        Returns:
            The answers of the readers.

        Raises:
            MeasurementError: a reader did not answer in time.
        """
        send = self._pub.send
        for _ in range(count):
            send(frame)
        send(STOP)
        return self._receive(self._pull, "stopped")

    def stop(self) -> list[list[tuple[float, float]]]:
        """Stop the readers. Return what each has recorded, see `Arrivals.load`.

        Raises:
            MeasurementError: a reader did not answer in time.
        """
        self._pub.send(STOP)
        return [Arrivals.load(dumped) for dumped in self._receive(self._pull, "stopped")]

    def _receive(self, socket: zmq.Socket[bytes], what: str) -> list[bytes]:
        """Receive one message from each reader."""
        messages: list[bytes] = []
        deadline = time.monotonic() + PATIENCE
        while len(messages) < self._count:
            if not socket.poll(max(0, int(1000 * (deadline - time.monotonic())))):
                raise MeasurementError(f"{len(messages)} of {self._count} bare workers {what}")
            messages.append(socket.recv())
        return messages

    def _end(self) -> None:
        with contextlib.suppress(zmq.Again):
            self._pub.send(STOP, zmq.DONTWAIT)
        deadline = time.monotonic() + 1.0
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
            process.close()


def _sleep_until(deadline: float) -> None:
    while (wait := deadline - time.monotonic()) > 0:
        time.sleep(wait)
