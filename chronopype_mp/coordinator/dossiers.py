"""Dossiers as files: one JSON file per death."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from chronopype_mp.coordinator.state_dir import folder_of, names_in, write_whole
from chronopype_mp.core.worker_events import WorkerDied
from chronopype_mp.guarded_log import GuardedLogger

__all__ = ["KEPT_PER_WORKER", "DossierFiles"]

KEPT_PER_WORKER = 20
"""Files kept for each worker; the oldest are removed first."""

logger = GuardedLogger("chronopype_mp.events")

_NUMBERED = re.compile(r"(?P<number>[0-9]{1,18})-.+\.json")


class DossierFiles:
    """Writes dossiers to ``<directory>/<worker>/<number>-<UTC time>-<incarnation>.json``.

    The number counts a worker's dossiers, so that the order of the files does not depend on the
    wall clock, which may be set back.

    Args:
        directory: an existing, writable directory.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def write(self, death: WorkerDied) -> None:
        """Write a dossier, and remove the worker's oldest ones over `KEPT_PER_WORKER`.

        Errors of the file system are logged: a full disk must not stop the supervisor.
        """
        folder = folder_of(self._directory, death.worker)
        when = datetime.fromtimestamp(death.at, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        content = _encoded(death)
        try:
            os.makedirs(folder, exist_ok=True)
            numbers = _numbered(names_in(folder))
            number = max(numbers.values(), default=0) + 1
            new = f"{number:06d}-{when}-{death.incarnation}.json"
            write_whole(os.path.join(folder, new), content)
            oldest_first = sorted(numbers, key=lambda name: (numbers[name], name))
            for name in oldest_first[: 1 - KEPT_PER_WORKER]:
                os.unlink(os.path.join(folder, name))
        except OSError as error:
            logger.error("a dossier cannot be written to %s: %s", folder, error)


def _numbered(names: list[str]) -> dict[str, int]:
    """Return the dossiers among the files of a folder, with their numbers."""
    found = ((name, _NUMBERED.fullmatch(name)) for name in names)
    return {name: int(dossier["number"]) for name, dossier in found if dossier is not None}


def _encoded(death: WorkerDied) -> bytes:
    fields = msgspec.structs.asdict(death) | {"exception": None}
    plain = WorkerDied(**{name: _without_surrogates(value) for name, value in fields.items()})
    return msgspec.json.format(msgspec.json.encode(plain), indent=2)


def _without_surrogates(value: Any) -> Any:
    """Escape what JSON cannot hold, such as bytes of a file name that are not UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, tuple):
        return tuple(map(_without_surrogates, value))
    return value
