"""The exit statuses of ``chronopype-mp``."""

from __future__ import annotations

__all__ = ["EXIT_FAILED", "EXIT_INTERRUPTED", "EXIT_OK", "EXIT_SIGNALLED", "EXIT_USAGE"]

EXIT_OK = 0
"""Success. A fleet that SIGTERM or SIGINT has stopped gracefully is one, too."""

EXIT_FAILED = 1
"""A bad verdict, a failed benchmark, or a fleet that could not go on."""

EXIT_USAGE = 2
"""A wrong argument or fleet file, or a missing dependency."""

EXIT_SIGNALLED = 128
"""To which the number of a signal is added: the second one, which kills a fleet that stops."""

EXIT_INTERRUPTED = 130
"""Ctrl-C in another command than ``run``."""
