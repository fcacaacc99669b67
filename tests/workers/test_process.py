"""The ready-made processor ``process``, with real commands."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from chronopype_mp import ConfigError, NetworkStatus, ProcessorSpec
from chronopype_mp.events import NetworkChanged, WorkerDied
from chronopype_mp.testing import ProcessorTest
from tests.system.clocks import Watched
from tests.system.clocks import run as run_in_real_time
from tests.system.scripts import wait_for_ends
from tests.waiting import run, running
from tests.workers.ordeal import QUICK
from workers import Secret
from workers.process import ProcessOptions, ProcessProcessor

PYTHON = (sys.executable, "-u", "-c")

FOREVER = """
import signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
signal.pause()
"""
"""A command with a child, which ignores nothing, and prints its pid."""

STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('there'); signal.pause()"
)


@contextlib.asynccontextmanager
async def running_command(
    source: str, *arguments: str, **given: Any
) -> AsyncIterator[ProcessorTest[ProcessProcessor]]:
    """Run a program of Python."""
    options = ProcessOptions(command=(*PYTHON, source, *arguments), **given)
    async with ProcessorTest(ProcessProcessor(options)) as test:
        yield test


async def loss(source: str, **given: Any) -> tuple[NetworkStatus, str]:
    """Return the status after the end of a program, and its reason."""
    async with running_command(source, **given) as test:
        ends = (NetworkStatus.ERROR, NetworkStatus.NOT_CONNECTED)
        await test.until(
            lambda: NetworkStatus.CONNECTING in test.transitions and test.transitions[-1] in ends
        )
        return test.transitions[-1].status, test.transitions[-1].reason


def test_what_a_command_prints_is_counted() -> None:
    """It has read its standard input, and its variables."""
    source = "import os, sys, time; print(os.environ['A'] + sys.stdin.read()); time.sleep(600)"

    async def scenario() -> None:
        given = {"env": {"A": Secret("one")}, "stdin": Secret("two")}
        async with running_command(source, **given) as test:
            await test.until(lambda: test.processor.payloads == 1)
            assert test.processor.payload_bytes == len("onetwo")
            assert test.transitions[-1] == NetworkStatus.CONNECTED

    run(scenario())


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import sys; sys.exit(3)", "exited with status 3"),
        ("", "exited with status 0"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("import sys, os; sys.exit('no ' + os.environ['A'])", "1; it last wrote: no <secret>"),
    ],
)
def test_the_end_of_a_command_is_a_loss_with_its_last_words(source: str, reason: str) -> None:
    """Without secrets."""
    status, found = run(loss(source, env={"A": Secret("abc")}))
    assert status is NetworkStatus.NOT_CONNECTED
    assert reason in found
    assert "abc" not in found


def test_a_status_may_be_permanent_and_a_missing_program_is() -> None:
    status, reason = run(loss("import sys; sys.exit(3)", permanent_statuses=(3,)))
    assert status is NetworkStatus.ERROR
    assert "PermanentFailure" in reason

    async def scenario() -> None:
        options = ProcessOptions(command=("/no/such/program",))
        async with ProcessorTest(ProcessProcessor(options)) as test:
            error = await test.reaches(NetworkStatus.ERROR)
            assert "cannot run '/no/such/program'" in error.reason

    run(scenario())


def test_a_command_that_ignores_sigterm_is_killed() -> None:
    """After ``stop_timeout``."""

    async def scenario() -> None:
        async with running_command(STUBBORN, stop_timeout=0.1) as test:
            await test.until(lambda: test.processor.payloads == 1)
            (process,) = [p for p in psutil.Process().children() if STUBBORN in p.cmdline()]
            await test.reconnect()
            assert not process.is_running()

    run(scenario())


def test_a_command_is_run_again_and_ends_with_its_worker_and_its_children() -> None:
    """Whether it is killed or its worker stops or is killed."""

    async def scenario() -> None:
        watched = Watched(tick_size=0.1)
        options = ProcessOptions(
            command=(*PYTHON, FOREVER), topic="child", payload="json", **{**QUICK, "timeout": 5.0}
        )
        spec = ProcessorSpec(
            target="workers.process:ProcessProcessor", options={"options": options}
        )
        seen: list[psutil.Process] = []
        async with watched.clock as clock, clock.outputs("child") as outputs, running(clock):

            async def command() -> psutil.Process:
                """Return the process of the command that has begun last."""
                child = psutil.Process((await anext(outputs)).payload)
                parent = child.parent()
                assert parent is not None
                seen.extend((parent, child))
                return parent

            handle = clock.add_processor(spec, name="a")
            first = await command()
            os.kill(first.pid, signal.SIGKILL)
            lost = await watched.events.wait_for(
                NetworkChanged, after=NetworkStatus.NOT_CONNECTED, count=2
            )
            assert "was killed by SIGKILL" in (lost.reason or "")
            await command()
            assert not wait_for_ends(seen[:2], 10.0)
            assert handle.pid is not None
            os.kill(handle.pid, signal.SIGKILL)
            await watched.events.wait_for(WorkerDied)
            await command()
            assert not wait_for_ends(seen[2:4], 10.0)
        assert not wait_for_ends(seen[4:], 10.0)
        assert len(seen) == 6

    run_in_real_time(scenario())


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"command": ()}, "command = (): must name a program"),
        ({"stop_timeout": 0.0}, "stop_timeout = 0.0: must be"),
        ({"stale_after": 0.0}, "stale_after = 0.0: must be"),
        ({"max_bytes": 0}, "max_bytes = 0: must be"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        ProcessOptions(**{"command": ("true",), **given})
    assert problem in str(caught.value)
