"""Checks of a clock's arguments that look at the machine or at several settings."""

from __future__ import annotations

import importlib.util
import os
import resource
import tempfile
from collections.abc import Mapping

from chronopype_mp.core.policy import GroupStrategy, Supervision
from chronopype_mp.exceptions import ConfigError

__all__ = [
    "check_cores",
    "check_rlimits",
    "checked_event_loop",
    "checked_groups",
    "checked_state_dir",
]

EVENT_LOOPS = ("asyncio", "uvloop")


def checked_groups(groups: Mapping[str, GroupStrategy | str]) -> dict[str, GroupStrategy]:
    """Return the strategies by group name.

    Raises:
        ConfigError: a name is no text, or a strategy is none.
    """
    if not isinstance(groups, Mapping):
        raise ConfigError("clock", "groups", groups, "must be a dict of strategies by name")
    checked = {}
    for name, strategy in groups.items():
        if not isinstance(name, str):
            raise ConfigError("clock", "groups", name, "must be a dict whose keys are names")
        try:
            checked[name] = GroupStrategy(strategy)
        except ValueError:
            known = ", ".join(repr(each.value) for each in GroupStrategy)
            raise ConfigError(
                "clock", f"groups[{name!r}]", strategy, f"must be one of {known}"
            ) from None
    return checked


def check_cores(policy: Supervision) -> None:
    """See whether the cores of a policy's affinity are there.

    Raises:
        ConfigError: one is not, or this system knows no affinity.
    """
    cores = policy.resources.cpu_affinity
    if cores is None:
        return
    if not hasattr(os, "sched_getaffinity"):
        raise ConfigError("Resources", "cpu_affinity", cores, "this system knows no affinity")
    available = os.sched_getaffinity(0)
    if not isinstance(cores, str) and not available.issuperset(cores):
        there = ", ".join(map(str, sorted(available)))
        raise ConfigError("Resources", "cpu_affinity", cores, f"the cores here are: {there}")


def check_rlimits(policy: Supervision) -> None:
    """See whether the soft limits of a policy lie within the hard ones here.

    Raises:
        ConfigError: one does not.
    """
    for name, limit in policy.resources.rlimits.items():
        hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1]
        if hard != resource.RLIM_INFINITY and limit > hard:
            place = f"rlimits[{name!r}]"
            raise ConfigError("Resources", place, limit, f"the hard limit here is {hard}")


def checked_event_loop(name: str) -> str:
    """Return the name of an event loop that workers can have.

    Raises:
        ConfigError: it is none, or it is not installed.
    """
    if name not in EVENT_LOOPS:
        known = " or ".join(map(repr, EVENT_LOOPS))
        raise ConfigError("clock", "event_loop", name, f"must be {known}")
    if importlib.util.find_spec(name) is None:
        hint = f"is not installed; pip install 'chronopype-mp[{name}]'"
        raise ConfigError("clock", "event_loop", name, hint)
    return name


def checked_state_dir(state_dir: str | os.PathLike[str] | None) -> str | None:
    """Return the path of a directory that can be written to, made if it is not there.

    Raises:
        ConfigError: it cannot be made or written to.
    """
    if state_dir is None:
        return None
    if not isinstance(state_dir, str | os.PathLike) or not os.fspath(state_dir):
        raise ConfigError("clock", "state_dir", state_dir, "must be the path of a directory")
    path = os.path.abspath(os.fspath(state_dir))
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigError("clock", "state_dir", path, f"cannot be written to: {error}") from error
    return path
