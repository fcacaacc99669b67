"""What goes wrong with one process besides its worker: errors of the launcher and of its output."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import NoReturn

from chronopype_mp.coordinator.callbacks import Guard
from chronopype_mp.core.error_text import line_of

__all__ = ["Trouble", "brief"]

logger = logging.getLogger("chronopype_mp.coordinator")


ERRORS_KEPT = 10
"""Different errors of one process that its dossier contains."""


class Trouble:
    """Collects errors for a dossier and logs them.

    Args:
        worker: the worker's name.
        incarnation: which of its processes.
        guard: keeps the owner's log handlers from raising here.
    """

    def __init__(self, worker: str, incarnation: int, guard: Guard) -> None:
        self._worker = worker
        self._incarnation = incarnation
        self._guard = guard
        self._noted: list[str] = []

    @property
    def text(self) -> str | None:
        """All errors in a line, for the dossier; None if there were none."""
        return "; ".join(self._noted) or None

    @contextlib.contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """Note what the block raises; an exit ends the program later."""
        try:
            yield
        except BaseException as error:
            self.note(what, error)
            self.end_later(what, error)

    def note(self, what: str, error: BaseException) -> None:
        """Note an error of ``what``; log it the first time."""
        noted = f"{what} failed: {brief(error)}"
        if noted not in self._noted and len(self._noted) < ERRORS_KEPT:
            self._noted.append(noted)
            message = "%s of worker %r (incarnation %d) failed"
            of = (what, self._worker, self._incarnation)
            self._guard.log(logger, logging.ERROR, message, *of, error=error)

    def end_later(self, what: str, error: BaseException) -> None:
        """Let an exit end the program after the present work, see `Guard`; ignore other errors.

        A second Ctrl-C raises `KeyboardInterrupt` in whatever is running.
        """
        if isinstance(error, KeyboardInterrupt | SystemExit):
            self._guard.call(what, _raise, error)


def brief(error: BaseException) -> str:
    """Return an error's type and message, shortened, without its traceback."""
    return line_of(error)


def _raise(error: BaseException) -> NoReturn:
    raise error
