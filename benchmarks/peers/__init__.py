"""What users would use instead, each asked for its figures in an environment of its own.

A program of this folder is run by the interpreter of its peer's environment, which has neither this
project nor what it needs. It prints one JSON object of figures as its last line. Between it and the
benchmark stands `_keeper.py`, which ends all that the program started, daemons included, even when
the benchmark is killed.
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
"""Seconds that the keeper has for ending what it finds."""

OF_OUR_PYTHON = ("PYTHON", "VIRTUAL_ENV")
"""Prefixes of environment variables that a peer's interpreter is not to see."""

REASON = 200
"""How many characters of a peer's own words a reason quotes."""


class Answer(msgspec.Struct, frozen=True):
    """What a peer's program said."""

    figures: dict[str, float]
    """By name; the names end with the unit. Empty when it was skipped."""

    skipped: str | None = None
    """Why there are no figures, in one line."""


def ask(program: str, *arguments: str, timeout: float = 120.0) -> Answer:
    """Run a program of this folder in its peer's environment and return its figures.

    It runs in a session and a temporary directory of its own. Neither a process nor a file of it is
    left when this returns or raises.

    Args:
        program: the name of its file, without ``.py``.
        arguments: what the program is given.
        timeout: seconds after which it is killed and skipped.
    """
    environment = ENVIRONMENTS / environment_of(program)
    interpreter = environment / "bin" / "python"
    if not interpreter.exists():
        return _skipped(program, f"no {environment.name}, ./scripts/bench-peers makes it")
    command = [str(interpreter), str(PROGRAMS / f"{program}.py"), *arguments]
    status, output, errors = _keep(command, timeout)
    last = _last_line(errors)
    if status == TIMED_OUT:
        return _skipped(program, f"not done after {timeout:g} s", last)
    if status != 0:
        if last.startswith("ModuleNotFoundError"):
            last += ", ./scripts/bench-peers installs it"
        return _skipped(program, f"failed with status {status}", last)
    try:
        return Answer(msgspec.json.decode(_last_line(output), type=dict[str, float]))
    except msgspec.MsgspecError:
        return _skipped(program, "printed no figures", _last_line(output))


def environment_of(program: str) -> str:
    """Return the name of the environment that a program runs in."""
    return ".venv-peers-3.13" if program.startswith("chronopype_") else ".venv-peers"


def _keep(command: list[str], timeout: float) -> tuple[int, str, str]:
    """Run a command under the keeper; return its exit status, output and errors."""
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
