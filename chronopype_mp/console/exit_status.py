"""The exit statuses of ``chronopype-mp``."""

from __future__ import annotations

__all__ = [
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_NO_FLEET",
    "EXIT_OK",
    "EXIT_SIGNALLED",
    "EXIT_TIMEOUT",
    "EXIT_USAGE",
]

EXIT_OK = 0
"""Success. A fleet that SIGTERM or SIGINT has stopped gracefully is one, too."""

EXIT_FAILED = 1
"""A bad verdict, a failed benchmark, a fleet that could not go on, or workers that are not ready or
could not do what they were asked."""

EXIT_USAGE = 2
"""A wrong argument or fleet file, an unknown worker or method, or a missing dependency."""

EXIT_NO_FLEET = 3
"""The fleet does not run, does not answer, or has another version."""

EXIT_TIMEOUT = 4
"""What was waited for has not happened in time."""

EXIT_SIGNALLED = 128
"""To which the number of a signal is added: the second one, which kills a fleet that stops."""

EXIT_INTERRUPTED = 130
"""Ctrl-C in another command than ``run``."""
