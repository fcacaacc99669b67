"""The command ``doctor``: checks what fleets need of this machine, and says what to do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import shutil
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import click
import msgspec

from chronopype_mp.console.exit_status import EXIT_FAILED, EXIT_OK
from chronopype_mp.exceptions import TransportError
from chronopype_mp.fleet.directory import FleetDirectory, known_fleets

__all__ = ["Finding", "doctor", "examine"]

PACKAGES = ("chronopype-mp", "pyzmq", "msgspec", "psutil", "dill", "multiprocess", "click", "rich")

FEW_FILES = 1024
"""A coordinator needs some descriptors for each worker; this is Linux' usual soft limit."""

FEW_PROCESSES = 256

LITTLE_SPACE = 64 << 20
"""Bytes. Sockets, dossiers and shared memory need little, but not nothing."""


class Finding(NamedTuple):
    """What one check has found.

    Attributes:
        check: what was looked at.
        ok: whether it is as it should be.
        found: the value.
        advice: what to do; empty if all is well.
    """

    check: str
    ok: bool
    found: str
    advice: str = ""


def examine() -> Iterator[Finding]:
    """Check versions, limits, directories and the fleets of this user."""
    yield Finding("python", True, f"{platform.python_version()}, {platform.platform()}")
    for name in PACKAGES:
        yield _package(name)
    yield _limit("open files", resource.RLIMIT_NOFILE, FEW_FILES, "ulimit -n, LimitNOFILE=")
    yield _limit("processes", resource.RLIMIT_NPROC, FEW_PROCESSES, "ulimit -u, TasksMax=")
    yield _space("temporary files", tempfile.gettempdir(), "set TMPDIR to another directory")
    yield _space("shared memory", "/dev/shm", "in a container, set --shm-size or mount a tmpfs")
    yield _directory()
    for fleet in known_fleets():
        if fleet.is_alive:
            yield Finding(f"fleet {fleet.name}", True, f"runs with pid {fleet.pid}")
        else:
            advice = f"it does no harm: the next run of {fleet.name!r} replaces it"
            yield Finding(
                f"fleet {fleet.name}", True, f"its coordinator died and left {fleet.path}", advice
            )


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", f"pip install {name}")


def _limit(check: str, kind: int, least: int, how: str) -> Finding:
    soft, _ = resource.getrlimit(kind)
    if soft == resource.RLIM_INFINITY:
        return Finding(check, True, "no limit")
    advice = "" if soft >= least else f"allow at least {least} ({how})"
    return Finding(check, not advice, f"at most {soft}", advice)


def _space(check: str, path: str, how: str) -> Finding:
    try:
        free = shutil.disk_usage(path).free
    except OSError as error:
        return Finding(check, False, f"{path}: {error.strerror}", how)
    if not os.access(path, os.W_OK | os.X_OK):
        return Finding(check, False, f"{path} cannot be written to", how)
    few = free < LITTLE_SPACE
    found = f"{path} has {free >> 20} MiB free"
    return Finding(check, not few, found, f"free some space, or {how}" if few else "")


def _directory() -> Finding:
    name = f"doctor-{os.getpid()}"
    try:
        directory = FleetDirectory(name)
    except TransportError as error:
        return Finding("directory of fleets", False, str(error), "see what it says")
    path = directory.path.parent
    directory.close()
    return Finding("directory of fleets", True, str(path))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> int:
    """Check versions, limits, directories and left sockets. Say what to do.

    The exit status is 1 if something is not as it should be.
    """
    findings = list(examine())
    if as_json:
        click.echo(msgspec.json.encode([f._asdict() for f in findings]).decode())
    else:
        for finding in findings:
            mark = "ok" if finding.ok else "BAD"
            click.echo(f"{mark:4}{finding.check}: {finding.found}")
            if finding.advice:
                click.echo(f"      {finding.advice}")
    return EXIT_OK if all(finding.ok for finding in findings) else EXIT_FAILED
