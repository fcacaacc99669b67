"""The first code of a worker process: what of it stands alone."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import dill
import msgspec
import multiprocess.process
import pytest

from chronopype_mp.core.boot import WORKER_MARK, TickRules, WorkerBoot
from chronopype_mp.processors import ProcessorSpec, TickProcessor
from chronopype_mp.worker import entry
from chronopype_mp.worker.payload import load

BOOT = WorkerBoot(
    worker="a",
    incarnation=2,
    token=99,
    payload=b"\xff",
    down="memory",
    up="memory",
    data_up="memory",
    messages_in="memory",
    messages_out="memory",
    rules=TickRules(processor_timeout=1.0, max_retries=0, stats_window_size=10),
    beat_interval=1.0,
    stop_grace=5.0,
)


class Named(TickProcessor):
    """Remembers how it was made."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.made_in = os.getpid()


def python(
    program: str, *, timeout: float = 60.0, **values: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **values,
    )


# The payload


def test_a_payload_is_the_processor_or_what_makes_it() -> None:
    original = Named("x")
    original.name = "changed"
    copy = load(dill.dumps(original))
    assert isinstance(copy, Named)
    assert (copy is original, copy.name) == (False, "changed")
    made = load(dill.dumps(ProcessorSpec(target=Named, options={"name": "y"})))
    assert isinstance(made, Named)
    assert (made.name, made.made_in) == ("y", os.getpid())


# The exit status


@pytest.mark.parametrize("code", ["", "None", "0", "3", "True", "'a message'"])
def test_an_exit_has_the_status_that_python_gives_it(code: str) -> None:
    program = f"raise SystemExit({code})"
    try:
        exec(program)
    except SystemExit as error:
        status = entry.status_of(error)
    assert status == python(program).returncode


def test_a_process_that_does_not_end_is_ended_with_its_status() -> None:
    result = python(
        """
        import threading
        from chronopype_mp.worker.entry import _End

        print("leaving", flush=True)
        threading.Thread(target=threading.Event().wait).start()
        _End().come(7)
        """
    )
    assert (result.returncode, result.stdout) == (7, "leaving\n")


def test_a_process_that_ends_by_itself_is_not_held_up_by_that() -> None:
    result = python(
        """
        import sys, time
        from chronopype_mp.worker.entry import _End

        began = time.monotonic()
        _End().come(7)
        print(time.monotonic() - began)
        sys.exit(3)
        """
    )
    assert result.returncode == 3
    assert float(result.stdout) < entry.LEAVE_WITHIN


# The event loop


def test_the_event_loop_is_asyncios_own_or_that_of_the_module_named() -> None:
    assert entry._loop_factory("asyncio") is None
    factory = entry._loop_factory("asyncio.events")
    assert factory is asyncio.events.new_event_loop
    uvloop = pytest.importorskip("uvloop")
    assert entry._loop_factory("uvloop") is uvloop.new_event_loop


def test_nothing_is_called_in_a_loop_that_is_closed() -> None:
    loop = asyncio.new_event_loop()
    called: list[str] = []
    entry._call(loop, lambda: called.append("open"))
    loop.run_until_complete(asyncio.sleep(0))  # one turn
    loop.close()
    entry._call(loop, lambda: called.append("closed"))
    assert called == ["open"]


def test_other_tasks_are_cancelled_and_not_waited_for_for_ever() -> None:
    async def scenario() -> None:
        release = asyncio.Event()

        async def stubborn() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await release.wait()

        obedient = asyncio.create_task(asyncio.Event().wait())
        other = asyncio.create_task(stubborn())
        await asyncio.sleep(0)  # both begin
        began = time.monotonic()
        await entry._cancel_others()
        assert time.monotonic() - began >= entry.LAST_TASKS
        assert obedient.cancelled()
        assert not other.done()
        release.set()
        await other
        await entry._cancel_others()  # none are left

    asyncio.run(scenario())


# The surroundings


def test_a_process_takes_over_the_surroundings_of_the_coordinator(tmp_path: Path) -> None:
    result = python(
        f"""
        import logging, os, sys
        from tests.worker.test_entry import BOOT
        from chronopype_mp.worker.entry import _take_surroundings
        import msgspec

        os.environb[b"ONLY_HERE"] = b"1"
        environment = {{b"PATH": os.environb[b"PATH"], b"ODD": b"\\xff"}}
        boot = msgspec.structs.replace(
            BOOT,
            path=[b"/somewhere", b"/with/\\xff"],
            directory={os.fsencode(tmp_path)!r},
            environment=environment,
            log_levels={{"": 10, "market": 30}},
        )
        _take_surroundings(boot)
        assert sys.path == ["/somewhere", os.fsdecode(b"/with/\\xff")]
        assert os.getcwd() == {str(tmp_path)!r}
        mark = os.environb.pop({WORKER_MARK!r})
        assert mark == str(os.getpid()).encode()
        assert dict(os.environb) == environment, os.environb
        assert os.environ["ODD"] == os.fsdecode(b"\\xff")
        assert logging.getLogger().level == 10
        assert logging.getLogger("market").level == 30
        """
    )
    assert result.stderr == ""
    assert result.returncode == 0


def test_a_directory_that_is_gone_is_none(tmp_path: Path) -> None:
    result = python(
        f"""
        import os
        from tests.worker.test_entry import BOOT
        from chronopype_mp.worker.entry import _take_surroundings
        import msgspec

        before = os.getcwd()
        for directory in (b"", {os.fsencode(tmp_path / "gone")!r}):
            _take_surroundings(msgspec.structs.replace(BOOT, directory=directory))
            assert os.getcwd() == before
        """
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_output_goes_where_the_coordinator_reads_it_by_whatever_way_it_is_written() -> None:
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    result = python(
        f"""
        import os, sys
        from multiprocessing.connection import Connection
        from chronopype_mp.worker.entry import _redirect

        _redirect(Connection({out_write}, readable=False), Connection({err_write}, readable=False))
        print("a line")
        print("not in UTF-8: \\udcff")
        print("an error \\udcff", file=sys.stderr)
        sys.stdout.flush()
        os.write(1, b"raw\\n")
        os.system("echo a child")
        """,
        pass_fds=(out_write, err_write),
    )
    os.close(out_write)
    os.close(err_write)
    with open(out_read, "rb") as stdout, open(err_read, "rb") as stderr:
        assert stdout.read() == b"a line\nnot in UTF-8: ?\nraw\na child\n"
        assert stderr.read() == b"an error \\udcff\n"
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# Being told which worker this is


class Left(Exception):
    """The process would have ended."""


class Told:
    """A worker's end of the connection, and the coordinator's.

    Attributes:
        worker: what `_wait_for_boot` gets.
        coordinator: the other end.
        alive: closed when the coordinator dies.
    """

    def __init__(self) -> None:
        self.coordinator, ours = socket.socketpair()
        self.worker = Connection(ours.detach())
        self.sentinel, self.alive = os.pipe()

    def tell(self, boot: bytes, path: Path) -> None:
        path.write_bytes(boot)
        with path.open("rb") as file:
            fds = array.array("i", [file.fileno()])
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]
            self.coordinator.sendmsg([b"\0"], ancillary)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    told = Told()
    parent = SimpleNamespace(sentinel=told.sentinel)
    monkeypatch.setattr(multiprocess.process, "parent_process", lambda: parent)

    def leave(code: int) -> NoReturn:
        raise Left(code)

    monkeypatch.setattr(os, "_exit", leave)
    yield told
    told.coordinator.close()
    told.worker.close()
    os.close(told.sentinel)
    with contextlib.suppress(OSError):  # the test has closed it
        os.close(told.alive)


def test_a_process_waits_to_be_told_which_worker_it_is(told: Told, tmp_path: Path) -> None:
    told.tell(msgspec.msgpack.encode(BOOT), tmp_path / "boot")
    assert entry._wait_for_boot(told.worker) == BOOT
    assert told.worker.closed


def test_a_process_that_is_not_needed_ends(told: Told) -> None:
    told.coordinator.close()
    with pytest.raises(Left, match="0"):
        entry._wait_for_boot(told.worker)


def test_a_process_ends_with_the_coordinator_while_it_waits(told: Told) -> None:
    os.close(told.alive)
    with pytest.raises(Left, match="0"):
        entry._wait_for_boot(told.worker)
