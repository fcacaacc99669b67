"""How workers are started: forkserver (the default), spawn, or inline."""

from __future__ import annotations

import os

from chronopype_mp.exceptions import ConfigError
from chronopype_mp.launchers.base import Gap, Launcher, Look, ProcessEnd, WorkerProcess
from chronopype_mp.launchers.inline import InlineLauncher
from chronopype_mp.launchers.process import ForkserverLauncher, SpawnLauncher

__all__ = [
    "ForkserverLauncher",
    "Gap",
    "InlineLauncher",
    "Launcher",
    "Look",
    "ProcessEnd",
    "SpawnLauncher",
    "WorkerProcess",
    "get_launcher",
]

ENVIRONMENT_VARIABLE = "CHRONOPYPE_MP_LAUNCHER"

LAUNCHERS: dict[str, type[ForkserverLauncher | SpawnLauncher | InlineLauncher]] = {
    "forkserver": ForkserverLauncher,
    "spawn": SpawnLauncher,
    "inline": InlineLauncher,
}


def get_launcher(launcher: str | Launcher | None) -> Launcher:
    """Return a launcher.

    Args:
        launcher: a launcher, the name of one, or None for the one that the environment variable
            ``CHRONOPYPE_MP_LAUNCHER`` names, by default forkserver.

    Raises:
        ConfigError: the name is unknown.
    """
    owner = "launcher"
    if launcher is None:
        launcher = os.environ.get(ENVIRONMENT_VARIABLE) or "forkserver"
        owner = ENVIRONMENT_VARIABLE
    if not isinstance(launcher, str):
        return launcher
    if launcher not in LAUNCHERS:
        known = ", ".join(LAUNCHERS)
        raise ConfigError("RealtimeClock", owner, launcher, f"must be one of {known}")
    return LAUNCHERS[launcher]()
