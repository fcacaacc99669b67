"""A worker's output over real pipes: shown by line, the last lines kept."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import sys
import termios
import threading
from collections.abc import Awaitable, Callable

import pytest

from chronopype_mp.coordinator.output import (
    KEPT_LINES,
    LONGEST,
    SHOWN_PER_SECOND,
    STUCK_AFTER,
    OutputPump,
)
from tests.system.scripts import wait_until
from tests.waiting import run

Out = pytest.CaptureFixture[str]


class Rig:
    """A pump that reads a worker ``w``, and the ends that the worker writes to."""

    def __init__(self) -> None:
        self._stdout, self.stdout = os.pipe()
        self._stderr, self.stderr = os.pipe()
        self.pump = OutputPump()
        self.output = self.pump.watch("w", (self._stdout, self._stderr))

    async def say(self, data: bytes, fd: int | None = None) -> None:
        """Write, and return when it has been read, and shown as far as it is."""
        os.write(self.stdout if fd is None else fd, data)
        await self.quiet(self._stderr if fd == self.stderr else self._stdout)

    async def quiet(self, readable: int) -> None:
        """Return when nothing is left to read or to write."""
        await asyncio.to_thread(wait_until, lambda: not _unread(readable), 10.0)
        with self.output._lock:
            pass  # what was read is dealt with under the lock
        await self.shown()

    async def shown(self) -> None:
        """Return when all has been written that was to be."""
        await asyncio.to_thread(wait_until, lambda: not self.pump._texts.unfinished_tasks, 10.0)

    async def finish(self) -> tuple[str, ...]:
        last = self.output.finish()
        await self.shown()
        return last

    def close(self) -> None:
        for fd in (self.stdout, self.stderr):
            os.close(fd)
        self.pump.close()


def _unread(fd: int) -> int:
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4), sys.byteorder)


def with_pipes(scenario: Callable[[Rig], Awaitable[None]]) -> None:
    async def opened() -> None:
        rig = Rig()
        try:
            await scenario(rig)
        finally:
            rig.output.finish()
            rig.close()

    run(opened())


def test_each_line_is_shown_on_the_same_stream_under_the_workers_name(capsys: Out) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.say(b"one\ntwo\n")
        await rig.say(b"oh no\n", rig.stderr)
        shown = capsys.readouterr()
        assert shown.out == "[w] one\n[w] two\n"
        assert shown.err == "[w] oh no\n"
        assert list(rig.output.last) == ["one", "two", "oh no"]

    with_pipes(scenario)


def test_a_line_is_shown_when_it_is_whole(capsys: Out) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.say(b"one\nhal")
        assert capsys.readouterr().out == "[w] one\n"
        await rig.say(b"f\n\n")
        assert capsys.readouterr().out == "[w] half\n[w] \n"

    with_pipes(scenario)


def test_a_character_that_comes_in_two_reads_is_one(capsys: Out) -> None:
    async def scenario(rig: Rig) -> None:
        for byte in "naïve 🦎\n".encode():
            await rig.say(bytes([byte]))
        assert capsys.readouterr().out == "[w] naïve 🦎\n"

    with_pipes(scenario)


def test_the_streams_do_not_mix_their_characters_or_lines(capsys: Out) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.say("é".encode()[:1])
        await rig.say(b"error", rig.stderr)
        await rig.say("é".encode()[1:] + b"\n")
        await rig.say(b"\n", rig.stderr)
        shown = capsys.readouterr()
        assert (shown.out, shown.err) == ("[w] é\n", "[w] error\n")

    with_pipes(scenario)


def test_bytes_that_are_no_text_are_shown_as_such(capsys: Out) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.say(b"a\xff\xfeb\n")
        assert capsys.readouterr().out == "[w] a\ufffd\ufffdb\n"

    with_pipes(scenario)


def test_what_has_no_end_of_line_is_shown_in_the_end(capsys: Out) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.say(b"one\nand no more")
        await rig.say("cut off: é".encode()[:-1], rig.stderr)
        assert await rig.finish() == ("one", "and no more", "cut off: \ufffd")
        shown = capsys.readouterr()
        assert shown.out == "[w] one\n[w] and no more\n"
        assert shown.err == "[w] cut off: \ufffd\n"

    with_pipes(scenario)


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_long_line_is_shown_in_pieces(capsys: Out, end: bytes) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.say(b"x" * (2 * LONGEST + 5) + end)
        assert [len(line) for line in await rig.finish()] == [LONGEST, LONGEST, 5]
        assert capsys.readouterr().out.replace("[w] ", "").replace("\n", "") == "x" * (
            2 * LONGEST + 5
        )

    with_pipes(scenario)


def test_a_line_without_end_takes_no_more_memory_than_a_piece() -> None:
    async def scenario(rig: Rig) -> None:
        for _ in range(20):
            await rig.say(b"x" * LONGEST)
        assert sum(map(len, rig.output.last)) >= 19 * LONGEST

    with_pipes(scenario)


def test_the_last_lines_are_kept_and_no_more() -> None:
    async def scenario(rig: Rig) -> None:
        for number in range(3 * KEPT_LINES):
            os.write(rig.stdout, f"{number}\n".encode())
        kept = [str(number) for number in range(2 * KEPT_LINES, 3 * KEPT_LINES)]
        assert KEPT_LINES == 50
        assert list(await rig.finish()) == kept

    with_pipes(scenario)


def test_what_is_still_in_the_pipes_is_read_in_the_end() -> None:
    async def scenario(rig: Rig) -> None:
        os.write(rig.stdout, b"last words\n")
        os.write(rig.stderr, b"and a traceback\n")
        assert await rig.finish() == ("last words", "and a traceback")
        assert await rig.finish() == ("last words", "and a traceback")

    with_pipes(scenario)


def test_a_pipe_that_ends_is_closed_and_the_other_goes_on(capsys: Out) -> None:
    async def scenario(rig: Rig) -> None:
        os.write(rig.stdout, b"bye")
        os.close(rig.stdout)
        await asyncio.to_thread(wait_until, lambda: len(rig.output.last) == 1, 10.0)
        await rig.shown()
        rig.stdout = os.dup(rig.stderr)  # for the rig to close
        assert capsys.readouterr().out == "[w] bye\n"
        await rig.say(b"still here\n", rig.stderr)
        assert await rig.finish() == ("bye", "still here")

    with_pipes(scenario)


def test_the_end_waits_for_nobody_who_keeps_a_pipe_open_or_writes_without_end() -> None:
    async def scenario(rig: Rig) -> None:
        told = threading.Event()

        def write_without_end() -> None:
            try:
                while True:
                    os.write(rig.stdout, b"y\n" * 1000)
                    told.set()
            except BrokenPipeError:
                pass

        writer = threading.Thread(target=write_without_end, daemon=True)
        writer.start()
        assert await asyncio.to_thread(told.wait, 10.0)
        assert len(await rig.finish()) == KEPT_LINES
        await asyncio.to_thread(writer.join, 10.0)
        assert not writer.is_alive()

    with_pipes(scenario)


def test_a_stdout_that_is_closed_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = io.StringIO()
    broken.close()

    async def scenario(rig: Rig) -> None:
        monkeypatch.setattr(sys, "stdout", broken)
        await rig.say(b"one\n")
        await rig.say(b"two\n")
        assert await rig.finish() == ("one", "two")

    with_pipes(scenario)


def test_a_storm_is_counted_exactly_and_shown_within_bounds(capsys: Out) -> None:
    async def scenario(rig: Rig) -> None:
        def storm() -> None:
            for start in range(0, 100_000, 1000):
                lines = b"".join(b"%d\n" % number for number in range(start, start + 1000))
                while lines:
                    lines = lines[os.write(rig.stdout, lines) :]

        await asyncio.to_thread(storm)
        last = await rig.finish()
        assert rig.output.lines == 100_000
        assert last[-1] == "99999"
        shown = capsys.readouterr().out.splitlines()
        told = [line for line in shown if line.endswith("lines not shown")]
        assert len(shown) - len(told) + rig.output.not_shown == 100_000
        assert told
        assert len(shown) < 10 * SHOWN_PER_SECOND

    with_pipes(scenario)


class Stuck(io.StringIO):
    """A stdout that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def write(self, text: str) -> int:
        self.released.wait(30.0)
        return len(text)


def test_a_stdout_that_is_stuck_keeps_nobody_from_being_read_or_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stuck = Stuck()

    async def scenario() -> None:
        monkeypatch.setattr(sys, "stdout", stuck)
        rig = Rig()

        def storm() -> None:
            for _ in range(3000):
                os.write(rig.stdout, b"line\n" * 100)

        await asyncio.to_thread(storm)
        assert rig.output.finish()
        assert rig.output.lines == 300_000
        began = asyncio.get_running_loop().time()
        await asyncio.to_thread(rig.close)
        assert asyncio.get_running_loop().time() - began < STUCK_AFTER + 5.0
        stuck.released.set()
        await asyncio.to_thread(rig.pump._writer.join, 10.0)
        assert not rig.pump._writer.is_alive()

    try:
        run(scenario())
    finally:
        stuck.released.set()


def test_two_workers_are_read_side_by_side(capsys: Out) -> None:
    async def scenario(rig: Rig) -> None:
        read, write = os.pipe()
        read_error, write_error = os.pipe()
        other = rig.pump.watch("v", (read, read_error))
        for number in range(20):
            os.write(write, b"%d\n" % number)
            os.write(rig.stdout, b"%d\n" % number)
        await asyncio.to_thread(wait_until, lambda: other.lines == rig.output.lines == 20, 10.0)
        other.finish()
        await rig.finish()
        shown = capsys.readouterr().out.splitlines()
        for name in "wv":
            assert [line for line in shown if line[1] == name] == [
                f"[{name}] {number}" for number in range(20)
            ]
        os.close(write)
        os.close(write_error)

    with_pipes(scenario)
