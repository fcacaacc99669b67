"""Programs started as a user would start them, in a process group of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

__all__ = ["TOKEN", "Script", "Scripts", "processes_of", "wait_for_ends", "wait_until"]

TOKEN = "CHRONOPYPE_MP_TEST"
"""The environment variable by which processes of a test are found again."""


class Script:
    """A running program; its output goes to a file, which can be waited on."""

    def __init__(self, command: list[str], directory: Path, environment: dict[str, str]) -> None:
        self._directory = str(directory)
        self._output_path = directory / f"output-{time.monotonic_ns()}"
        with self._output_path.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output_path.read_text()

    def wait_for(self, text: str, timeout: float = 30.0) -> None:
        """Wait until the output has ``text``, apart from the path of the directory."""

        def there() -> bool:
            # A warning names the file, and its directory the test, whose name may have the text.
            if text in self.output.replace(self._directory, ""):
                return True
            assert self.process.poll() is None, f"ended without {text!r}:\n{self.output}"
            return False

        wait_until(there, timeout, lambda: f"no {text!r} in:\n{self.output}")

    def wait(self, timeout: float = 60.0) -> int:
        """Wait for the end; return the exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end:\n{self.output}") from None

    def report(self) -> dict[str, Any]:
        """Wait for a good end; return what was printed as ``report`` and an object of JSON."""
        assert self.wait() == 0, self.output
        return self.reported()

    def reported(self) -> dict[str, Any]:
        """Return what was printed as ``report`` and an object of JSON."""
        (line,) = [line for line in self.output.splitlines() if line.startswith("report ")]
        report: dict[str, Any] = json.loads(line.removeprefix("report "))
        return report

    def signal_group(self, number: int) -> None:
        """Signal the whole process group, as a terminal does on Ctrl-C."""
        os.killpg(self.process.pid, number)


class Scripts:
    """Starts programs in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: list[Script] = []

    def start(self, source: str, *arguments: str, name: str = "script.py", **env: str) -> Script:
        """Write ``source`` to a file and run that."""
        path = self.directory / name
        path.write_text(textwrap.dedent(source))
        return self.run([sys.executable, str(path), *arguments], **env)

    def run(self, command: list[str], **env: str) -> Script:
        """Run a command."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **env}
        script = Script(command, self.directory, environment)
        self._running.append(script)
        return script

    def kill_all(self) -> None:
        for script in self._running:
            if script.process.poll() is None:
                script.signal_group(signal.SIGKILL)
                script.process.wait()


def processes_of(token: str) -> list[psutil.Process]:
    """Return all processes that were started with a token in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TOKEN) == token and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for_ends(processes: Iterable[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Wait for the ends of processes; return those that have not ended.

    A process that process 1 has adopted has ended when it is a zombie: in some machines and
    containers, process 1 reaps seconds later.
    """
    processes = list(processes)
    deadline = time.monotonic() + timeout
    while left := [process for process in processes if _is_there(process)]:
        if time.monotonic() >= deadline:
            break
        time.sleep(0.02)  # the ends of processes that are not children send no event
    return left


def _is_there(process: psutil.Process) -> bool:
    try:
        is_adopted = process.ppid() == 1 != os.getpid()
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
        return process.is_running() and not (is_adopted and is_zombie)
    except psutil.NoSuchProcess:
        return False


def wait_until(
    condition: Callable[[], bool], timeout: float, message: Callable[[], str] = lambda: "no"
) -> None:
    """Wait for what no event tells of, in another process: look every 20 ms."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, message()
        time.sleep(0.02)  # another process' files and exit send no event to this one
