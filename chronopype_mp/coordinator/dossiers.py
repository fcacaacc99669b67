"""Dossiers as files: one JSON file per death."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from chronopype_mp.core.worker_events import WorkerDied
from chronopype_mp.guarded_log import GuardedLogger

__all__ = ["KEPT_PER_WORKER", "DossierFiles"]

KEPT_PER_WORKER = 20
"""Files kept for each worker; the oldest are removed first."""

LONGEST_FOLDER = 200
"""Characters of a folder's name; file systems allow 255 bytes. Longer ones end in a digest."""

logger = GuardedLogger("chronopype_mp.events")

_NUMBERED = re.compile(r"(?P<number>[0-9]{1,18})-.+\.json")

_PART = re.compile(r".+\.(?P<pid>[0-9]+)\.part")

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


class DossierFiles:
    """Writes dossiers to ``<directory>/<worker>/<number>-<UTC time>-<incarnation>.json``.

    The number counts a worker's dossiers, so that the order of the files does not depend on the
    wall clock, which may be set back. Characters of a worker's name that a file system may not
    accept are written as ``%hex``.

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
        content = _encoded(death)
        try:
            os.makedirs(folder, exist_ok=True)
            numbers = _remove_parts_and_list(folder)
            number = max(numbers.values(), default=0) + 1
            new = f"{number:06d}-{when}-{death.incarnation}.json"
            _write_whole(os.path.join(folder, new), content)
            oldest_first = sorted(numbers, key=lambda name: (numbers[name], name))
            for name in oldest_first[: 1 - KEPT_PER_WORKER]:
                os.unlink(os.path.join(folder, name))
        except OSError as error:
            logger.error("a dossier cannot be written to %s: %s", folder, error)


def _remove_parts_and_list(folder: str) -> dict[str, int]:
    """Return the dossiers of a folder with their numbers; remove what a killed owner left."""
    numbers = {}
    for name in os.listdir(folder):
        if (dossier := _NUMBERED.fullmatch(name)) is not None:
            numbers[name] = int(dossier["number"])
        elif (part := _PART.fullmatch(name)) is not None and not _is_alive(int(part["pid"])):
            os.unlink(os.path.join(folder, name))
    return numbers


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _write_whole(path: str, content: bytes) -> None:
    """Write a file of which a reader sees everything or nothing."""
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "wb") as file:
            file.write(content)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


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
