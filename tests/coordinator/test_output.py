"""The workers' output over real pipes: always read, shown by line within bounds, counted."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import os
import random
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from chronopype_mp.coordinator.output import (
    CALM_AFTER,
    CHUNK,
    GIVE_UP_WRITER_AFTER,
    KEPT_LINES,
    LONGEST,
    WAITING,
    OutputPump,
)
from tests.system.scripts import wait_until
from tests.waiting import run

Out = pytest.CaptureFixture[str]

STORM = "import sys; sys.stdout.write(''.join(f'{n}\\n' for n in range(100_000)))"
FOR_EVER = "while True: print('y' * 50)"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail a test that leaves threads or file descriptors behind."""
    threads, fds = set(threading.enumerate()), _fds()
    yield
    assert set(threading.enumerate()) <= threads
    assert _fds() <= fds


def _fds() -> set[str]:
    listed = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return {fd for fd in listed if os.path.lexists(fd)}  # the listing's own is closed


class Rig:
    """A pump that reads a worker ``w``, and the ends that the worker writes to.

    Args:
        clock: as of the pump.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._stdout, self.stdout = os.pipe()
        self._stderr, self.stderr = os.pipe()
        self.failures: list[BaseException] = []
        self.pump = OutputPump(self.failures.append, clock)
        self.output = self.pump.watch("w", (self._stdout, self._stderr))
        self.pump.start()

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
        await asyncio.to_thread(wait_until, lambda: not self.output.waiting, 10.0)

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


def with_pipes(
    scenario: Callable[[Rig], Awaitable[None]], clock: Callable[[], float] = time.monotonic
) -> None:
    async def opened() -> None:
        rig = Rig(clock)
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
        writer = _write_for_ever(rig.stdout)
        await asyncio.to_thread(wait_until, lambda: rig.output.lines > 0, 10.0)
        assert len(await rig.finish()) == KEPT_LINES
        # Nobody reads any more, and that ends it.
        assert await asyncio.to_thread(writer.wait, 10.0) == -signal.SIGPIPE

    with_pipes(scenario)


def test_the_end_reads_no_more_than_a_pipe_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(rig: Rig) -> None:
        read = os.read
        monkeypatch.setattr(
            os, "read", lambda fd, size: b"y\n" if fd == rig._stdout else read(fd, size)
        )
        assert set(await rig.finish()) == {"y"}

    with_pipes(scenario)


def test_a_character_that_stdout_cannot_encode_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    stdout = io.TextIOWrapper(written, encoding="ascii")

    async def scenario(rig: Rig) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stdout)
            await rig.say("before\n5 €\nafter\n".encode())
        assert written.getvalue() == b"[w] before\n[w] 5 \\u20ac\n[w] after\n"

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


@pytest.mark.parametrize("replacement", [None, object()])
def test_a_stdout_that_is_none_or_no_stream_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: Out, replacement: object
) -> None:
    async def scenario(rig: Rig) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", replacement)
            await rig.say(b"one\n")
        await rig.say(b"two\n")
        assert capsys.readouterr().out == "[w] two\n"

    with_pipes(scenario)


def test_binary_junk_harms_nothing(capsys: Out) -> None:
    async def scenario(rig: Rig) -> None:
        junk = random.Random(1).randbytes(1_000_000)
        await asyncio.to_thread(_write_all, rig.stdout, junk)
        await rig.say(b"\nstill here\n")
        last = await rig.finish()
        assert last[-1] == "still here"
        assert rig.output.lines == junk.count(b"\n") + 2

    with_pipes(scenario)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _storm(fd: int) -> None:
    """Have a process print 100,000 lines as fast as it can; wait for its end."""
    subprocess.run([sys.executable, "-c", STORM], stdout=fd, check=True)


def _write_for_ever(fd: int) -> subprocess.Popen[bytes]:
    """Write faster than anybody reads: there is always more."""
    return subprocess.Popen(["yes"], stdout=fd, stderr=subprocess.DEVNULL)


def _print_for_ever(fd: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", FOR_EVER], stdout=fd)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_of_a_storm_a_seconds_lines_are_shown_and_the_rest_told_once_when_it_is_over(
    capsys: Out,
) -> None:
    clock = Clock()

    async def scenario(rig: Rig) -> None:
        await asyncio.to_thread(_storm, rig.stdout)
        await rig.say(b"one more\n")
        assert rig.output.lines == 100_001
        assert rig.output.not_shown == 99_001
        assert capsys.readouterr().out == "".join(f"[w] {n}\n" for n in range(1000))
        clock.now += CALM_AFTER
        await asyncio.to_thread(wait_until, lambda: rig.output._told == 99_001, 10.0)
        await rig.say(b"calm again\n")
        assert capsys.readouterr().out == "[w] … 99,001 lines not shown\n[w] calm again\n"

    with_pipes(scenario, clock)


def test_the_next_line_after_a_storm_comes_after_what_is_told_of_it(capsys: Out) -> None:
    clock = Clock()

    async def scenario(rig: Rig) -> None:
        await rig.say(b"x\n" * 1005, rig.stderr)
        capsys.readouterr()
        clock.now += CALM_AFTER
        await rig.say(b"calm again\n")
        shown = capsys.readouterr()
        assert shown.out == "[w] calm again\n"
        assert shown.err == "[w] … 5 lines not shown\n"

    with_pipes(scenario, clock)


def test_a_storm_that_lasts_goes_on_being_shown_within_bounds_and_is_told_in_the_end(
    capsys: Out,
) -> None:
    clock = Clock()

    async def scenario(rig: Rig) -> None:
        for _ in range(20):
            await rig.say(b"x\n" * 2000)
            clock.now += 0.125
        assert rig.output.not_shown == 40_000 - 1000 - 19 * 125
        await rig.finish()
        *shown, told = capsys.readouterr().out.splitlines()
        assert shown == ["[w] x"] * 3375
        assert told == "[w] … 36,625 lines not shown"

    with_pipes(scenario, clock)


def test_a_storm_of_a_real_process_is_counted_exactly(capsys: Out) -> None:
    async def scenario(rig: Rig) -> None:
        await asyncio.to_thread(_storm, rig.stdout)
        last = await rig.finish()
        assert rig.output.lines == 100_000
        assert last == tuple(str(number) for number in range(100_000 - KEPT_LINES, 100_000))
        shown = capsys.readouterr().out.splitlines()
        told = [line for line in shown if line.endswith("lines not shown")]
        assert len(shown) - len(told) + rig.output.not_shown == 100_000
        counts = [int(line.split()[2].replace(",", "")) for line in told]
        assert sum(counts) == rig.output.not_shown > 0

    with_pipes(scenario)


def test_in_one_turn_each_worker_is_read_once_however_much_another_has_printed() -> None:
    ends = [os.pipe() for _ in range(4)]
    (much, much_in), (no, _), (little, little_in), (none, _) = ends
    fcntl.fcntl(much_in, fcntl.F_SETPIPE_SZ, 8 * CHUNK)
    _write_all(much_in, b"x\n" * (4 * CHUNK))
    os.write(little_in, b"hello\n")
    pump = OutputPump(lambda error: None)  # its threads come later
    loud, quiet = pump.watch("loud", (much, no)), pump.watch("quiet", (little, none))
    assert pump._turn(0.0) == {loud}
    assert (loud.lines, quiet.lines) == (CHUNK // 2, 1)
    for output in (loud, quiet):
        output.finish()
    assert loud.lines == 4 * CHUNK
    pump.start()
    pump.close()
    for _, end in ends:
        os.close(end)


def test_a_worker_is_read_and_shown_beside_others_that_print_without_end(capsys: Out) -> None:
    async def scenario(rig: Rig) -> None:
        ends = [os.pipe() for _ in range(4)]
        others = [
            rig.pump.watch(f"other{number}", (ends[number][0], ends[number + 1][0]))
            for number in (0, 2)
        ]
        processes = [_print_for_ever(ends[number][1]) for number in (0, 2)]
        try:
            for number in range(1, 20):
                before = [other.lines for other in others]
                os.write(rig.stdout, b"me too\n")
                await asyncio.to_thread(wait_until, lambda n=number: rig.output.lines == n, 10.0)
                await asyncio.to_thread(
                    wait_until,
                    lambda b=before: all(o.lines > n for o, n in zip(others, b, strict=True)),
                    10.0,
                )
        finally:
            for process in processes:
                process.kill()
                await asyncio.to_thread(process.wait)
            for other in others:
                other.finish()
            for _, end in ends:
                os.close(end)
        await rig.finish()
        assert rig.output.not_shown == 0
        assert capsys.readouterr().out.count("[w] me too\n") == 19

    with_pipes(scenario)


def test_the_end_may_come_while_the_thread_reads() -> None:
    async def scenario(rig: Rig) -> None:
        for number in range(50):
            ends = [os.pipe() for _ in range(2)]
            output = rig.pump.watch(f"{number}", (ends[0][0], ends[1][0]))
            for _, end in ends:
                os.write(end, b"line\n" * 1000)
            # Without a pause: the reader is before, in or after its turn.
            assert output.finish() == ("line",) * KEPT_LINES
            assert output.lines == 2000
            for _, end in ends:
                os.close(end)
        await rig.say(b"still reading\n")
        assert rig.output.lines == 1

    with_pipes(scenario)


class Stuck(io.StringIO):
    """A stdout that nobody reads; a write to it returns when that has changed."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.released = threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        self.released.wait(30.0)
        return super().write(text)


def test_a_stdout_that_is_stuck_keeps_nobody_from_being_read_or_closed() -> None:
    stuck = Stuck()

    async def scenario() -> None:
        rig = Rig()
        os.write(rig.stdout, b"first\n")
        assert await asyncio.to_thread(stuck.entered.wait, 10.0)
        await asyncio.to_thread(_storm, rig.stdout)
        rig.output.finish()
        assert rig.output.lines == 100_001
        began = time.monotonic()
        await asyncio.to_thread(rig.close)
        assert time.monotonic() - began < GIVE_UP_WRITER_AFTER + 5.0
        stuck.released.set()
        await asyncio.to_thread(rig.pump._writer.join, 10.0)
        assert stuck.getvalue() == "[w] first\n"

    with contextlib.redirect_stdout(stuck):
        try:
            run(scenario())
        finally:
            stuck.released.set()


def test_what_waits_for_a_stdout_that_is_stuck_is_bounded_and_the_rest_is_counted() -> None:
    lines = 400
    long_line = b"x" * (LONGEST - 1) + b"\n"
    stuck = Stuck()

    async def scenario(rig: Rig) -> None:
        await asyncio.to_thread(_write_all, rig.stdout, long_line * lines)
        await asyncio.to_thread(wait_until, lambda: rig.output.lines == lines, 10.0)
        assert WAITING - 2 * CHUNK < rig.output.waiting <= WAITING
        left_out = rig.output.not_shown
        stuck.released.set()
        await rig.finish()
        *shown, told = stuck.getvalue().splitlines()
        assert len(shown) == lines - left_out
        assert told == f"[w] … {left_out} lines not shown"

    with contextlib.redirect_stdout(stuck):
        try:
            with_pipes(scenario)
        finally:
            stuck.released.set()


def test_a_process_that_comes_after_the_pump_was_closed_is_read_in_the_end() -> None:
    pump = OutputPump(lambda error: None)
    pump.start()
    pump.close()
    ends = [os.pipe() for _ in range(2)]
    output = pump.watch("late", (ends[0][0], ends[1][0]))
    os.write(ends[0][1], b"too late\n")
    assert output.finish() == ("too late",)
    assert output.not_shown == 1
    for _, end in ends:
        os.close(end)
