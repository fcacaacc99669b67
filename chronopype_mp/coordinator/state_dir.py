"""Files of workers in a clock's ``state_dir``: names, and files that are whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re

__all__ = ["folder_of", "names_in", "write_whole"]

LONGEST_FOLDER = 200
"""Characters of a folder's name; file systems allow 255 bytes. Longer ones end in a digest."""

_PART = re.compile(r".+\.(?P<pid>[0-9]+)\.part")

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def folder_of(directory: str, worker: str) -> str:
    """Return the path of a worker's folder.

    Characters of the name that a file system may not accept are written as ``%hex``.
    """
    name = _UNSAFE.sub(lambda match: "".join(f"%{b:02x}" for b in match[0].encode()), worker)
    if len(name) > LONGEST_FOLDER:
        digest = hashlib.sha256(worker.encode()).hexdigest()[:16]
        name = f"{name[: LONGEST_FOLDER - len(digest)]}{digest}"
    return os.path.join(directory, name)


def names_in(folder: str) -> list[str]:
    """Return the names of the files in a folder; remove what a killed owner left half written."""
    names = []
    for name in os.listdir(folder):
        part = _PART.fullmatch(name)
        if part is None:
            names.append(name)
        elif not _is_alive(int(part["pid"])):
            with contextlib.suppress(OSError):  # the disk may be read-only
                os.unlink(os.path.join(folder, name))
    return names


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def write_whole(path: str, content: bytes, *, sync: bool = False) -> None:
    """Write a file of which a reader sees everything or nothing.

    Args:
        path: the file; its folder exists.
        content: all of it.
        sync: return only once it would survive a power failure.
    """
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    if sync:
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
