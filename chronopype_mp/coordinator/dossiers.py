"""Dossiers as files: one JSON file per death."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from chronopype_mp.core.events import WorkerDied

__all__ = ["KEPT_PER_WORKER", "DossierFiles"]

KEPT_PER_WORKER = 20
"""Files kept for each worker; the oldest are removed first."""

LONGEST_FOLDER = 200
"""Characters of a folder's name; file systems allow 255 bytes. Longer ones end in a digest."""

logger = logging.getLogger("chronopype_mp.events")

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


class DossierFiles:
    """Writes dossiers to ``<directory>/<worker>/<UTC time>-<incarnation>.json``.

    Characters of a worker's name that a file system may not accept are written as ``%hex``.

    Args:
        directory: an existing, writable directory.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def write(self, death: WorkerDied) -> None:
        """Write a dossier, and remove the worker's oldest ones over `KEPT_PER_WORKER`.

        Errors of the file system are logged: a full disk must not stop the supervisor.
        """
        folder = os.path.join(self._directory, _folder(death.worker))
        when = datetime.fromtimestamp(death.at, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        path = os.path.join(folder, f"{when}-{death.incarnation}.json")
        part = path + ".part"
        try:
            os.makedirs(folder, exist_ok=True)
            try:
                # A reader sees the whole file or none.
                with open(part, "wb") as file:
                    file.write(_encoded(death))
                os.replace(part, path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(part)
                raise
            new = os.path.basename(path)
            names = sorted(os.listdir(folder))
            old = [name for name in names if name.endswith(".json") and name != new]
            for name in old[: 1 - KEPT_PER_WORKER]:
                os.unlink(os.path.join(folder, name))
        except OSError as error:
            logger.error("the dossier %s cannot be written: %s", path, error)


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


def _folder(worker: str) -> str:
    folder = _UNSAFE.sub(lambda match: "".join(f"%{b:02x}" for b in match[0].encode()), worker)
    if len(folder) <= LONGEST_FOLDER:
        return folder
    digest = hashlib.sha256(worker.encode()).hexdigest()[:16]
    return f"{folder[: LONGEST_FOLDER - len(digest)]}{digest}"
