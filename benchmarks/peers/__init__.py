"""Measures the peers, the alternatives to this package, each in its own environment.

The interpreter of the peer's environment runs a program in this directory. That environment
contains neither this project nor its dependencies. The program prints one JSON object of figures as
its last line. `_keeper.py` runs the program for the benchmark and ends everything that it started,
including daemons, even if the benchmark is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from benchmarks.peers._keeper import TIMED_OUT

__all__ = ["Answer", "ask"]

PROGRAMS = Path(__file__).parent
ENVIRONMENTS = PROGRAMS.parent.parent

LEAVING = 20.0
"""Seconds that the keeper has to end the processes that it finds."""

OF_OUR_PYTHON = ("PYTHON", "VIRTUAL_ENV")
"""Prefixes of environment variables that are hidden from a peer's interpreter."""

REASON = 200
"""Characters of a peer's output that a reason quotes."""


class Answer(msgspec.Struct, frozen=True):
    """The answer of a peer's program."""

    figures: dict[str, float]
    """The figures by name. A name ends with the unit. Empty if the peer was skipped."""

    skipped: str | None = None
    """The reason why there are no figures, in one line."""


def ask(program: str, *arguments: str, timeout: float = 120.0) -> Answer:
    """Run a program of this directory in its peer's environment and return its figures.

    The program runs in its own session and temporary directory. No process or file of it is left
    when this returns or raises.

    Args:
        program: the name of the program's file, without ``.py``.
        arguments: the program's arguments.
        timeout: seconds after which the program is killed and skipped.
    """
    environment = ENVIRONMENTS / environment_of(program)
    interpreter = environment / "bin" / "python"
    if not interpreter.exists():
        return _skipped(program, f"no {environment.name}, create it with ./scripts/bench-peers")
    command = [str(interpreter), str(PROGRAMS / f"{program}.py"), *arguments]
    status, output, errors = _keep(command, timeout)
    last = _last_line(errors)
    if status == TIMED_OUT:
        return _skipped(program, f"not done after {timeout:g} s", last)
    if status != 0:
        if last.startswith("ModuleNotFoundError"):
            last += ", install it with ./scripts/bench-peers"
        return _skipped(program, f"failed with status {status}", last)
    try:
        return Answer(msgspec.json.decode(_last_line(output), type=dict[str, float]))
    except msgspec.MsgspecError:
        return _skipped(program, "printed no figures", _last_line(output))


def environment_of(program: str) -> str:
    """Return the name of the environment that a program runs in."""
    return ".venv-peers-3.13" if program.startswith("chronopype_") else ".venv-peers"


def _keep(command: list[str], timeout: float) -> tuple[int, str, str]:
    """Run a command under the keeper. Return its exit status, output and errors."""
    keeper = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "_keeper.py"), str(timeout), *command],
        env={k: v for k, v in os.environ.items() if not k.startswith(OF_OUR_PYTHON)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        output, errors = keeper.communicate(timeout=timeout + LEAVING)
    except BaseException:
        keeper.send_signal(signal.SIGTERM)
        keeper.communicate()
        raise
    return keeper.returncode, output, errors


def _last_line(text: str) -> str:
    lines = text.split("\n") if (text := text.strip()) else [""]
    return lines[-1].strip()


def _skipped(program: str, reason: str, words: str = "") -> Answer:
    return Answer({}, f"{program}: {reason}" + (f": {words[-REASON:]}" if words else ""))
