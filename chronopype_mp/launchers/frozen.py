"""Programs that would start themselves again instead of a helper process.

A frozen program is one, such as one made by PyInstaller. There is no interpreter to start a helper
process with, only the program itself. It is started with an option that `freeze_support`
recognizes.
"""

from __future__ import annotations

import multiprocessing.process
import sys

from chronopype_mp.exceptions import ConfigError

__all__ = ["check_frozen", "check_not_spawned", "freeze_support", "frozen_command"]

HELPER_OPTION = "--chronopype-mp-helper"

_supported = False


def freeze_support() -> None:
    """Run a helper process of a frozen program; call this first in the program.

    In a program that is not frozen, and in a frozen one that the user has started, this returns at
    once. Otherwise it exits when the helper process ends.

    Raises:
        SystemExit: this was a helper process, which has ended.
    """
    global _supported
    _supported = True
    if sys.argv[1:2] == [HELPER_OPTION]:
        code = sys.argv[2]
        sys.argv[1:3] = []
        exec(code, {"__name__": "__main__"})
        sys.exit()


def check_frozen() -> None:
    """Check that a frozen program can start helper processes.

    Raises:
        ConfigError: it did not call `freeze_support`. It would start itself again and again.
    """
    if is_frozen() and not _supported:
        raise ConfigError(
            "RealtimeClock",
            "launcher",
            "processes",
            "needs chronopype_mp.freeze_support() as the first call of a frozen program",
        )


def check_not_spawned() -> None:
    """Check that this is not a process in which multiprocessing runs the main module again.

    Raises:
        RuntimeError: it is. The program would start itself again and again.
    """
    if getattr(multiprocessing.process.current_process(), "_inheriting", False):
        raise RuntimeError(
            "a process of multiprocessing runs the main module again, which would start its clock "
            'again. Put what is not to be run there below `if __name__ == "__main__":`'
        )


def is_frozen() -> bool:
    """Whether the program has no interpreter of its own."""
    return bool(getattr(sys, "frozen", False))


def frozen_command(program: str, code: str, arguments: list[str]) -> list[str]:
    """Return the command that executes code in a new process of a frozen program."""
    return [program, HELPER_OPTION, code, *arguments]
