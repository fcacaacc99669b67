"""Checks of the arguments of a clock and of ``add_processor``.

Each function returns its argument in the form in which it is used, or raises a `ConfigError` that
names the place, the value and what to do.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Mapping

from chronopype_mp.core.policy import GroupStrategy, Supervision
from chronopype_mp.core.restart import RestartBudget
from chronopype_mp.exceptions import ConfigError
from chronopype_mp.launchers import Launcher, get_launcher
from chronopype_mp.processors import ProcessorSpec, TickProcessor
from chronopype_mp.processors.hook_checks import check_class, check_hooks
from chronopype_mp.timing import TimeSource

__all__ = [
    "checked_bool",
    "checked_budget",
    "checked_env",
    "checked_event_loop",
    "checked_groups",
    "checked_launcher",
    "checked_name",
    "checked_policy",
    "checked_source",
    "checked_state_dir",
    "checked_timing",
]

EVENT_LOOPS = ("asyncio", "uvloop")


def checked_launcher(owner: str, launcher: object) -> Launcher:
    """Return a launcher, made from its name where a name is given; see `get_launcher`."""
    if launcher is None or isinstance(launcher, str):
        return get_launcher(launcher)
    what = "must be 'forkserver', 'spawn', 'inline', or a launcher"
    _check_implements(owner, "launcher", launcher, Launcher, what)
    return launcher  # type: ignore[return-value] # its methods were looked at


def checked_bool(owner: str, field: str, value: object) -> bool:
    """Return True or False."""
    if not isinstance(value, bool):
        raise ConfigError(owner, field, value, "must be True or False")
    return value


def checked_timing(owner: str, timing: object) -> TimeSource:
    """Return a time source."""
    _check_implements(owner, "timing", timing, TimeSource, "must be a TimeSource")
    return timing  # type: ignore[return-value] # its methods were looked at


def _check_implements(owner: str, field: str, value: object, protocol: type, what: str) -> None:
    """Check that ``value`` is an object with the methods of ``protocol``."""
    if isinstance(value, type):
        hint = f"is a class; pass an instance: {value.__name__}(...)"
        raise ConfigError(owner, field, value, hint)
    names = [name for name, _ in inspect.getmembers(protocol, inspect.isfunction)]
    public = [name for name in names if not name.startswith("_")]
    missing = [name for name in public if not callable(getattr(value, name, None))]
    if missing == public:
        raise ConfigError(owner, field, value, what)
    if missing:
        lacks = ", ".join(f"{name}()" for name in missing)
        raise ConfigError(owner, field, value, f"{what}; it has no {lacks}")


def checked_name(owner: str, name: object) -> str:
    """Return a clock's name."""
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ConfigError(owner, "name", name, "must be a non-empty str of printable characters")
    return name


def checked_budget(owner: str, budget: object) -> RestartBudget | None:
    """Return a restart budget; None stays None."""
    if budget is not None and not isinstance(budget, RestartBudget):
        raise ConfigError(owner, "restart_budget", budget, "must be a RestartBudget")
    return budget


def checked_env(owner: str, env: object) -> dict[str, str]:
    """Return environment variables; None means none. An error shows no value of one."""
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise ConfigError(owner, "env", type(env), "must be a dict of strings by name")
    for name, value in env.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ConfigError(owner, "env", name, "is not the name of an environment variable")
        if not isinstance(value, str) or "\0" in value:
            problem = f"the value of {name} must be a str without null characters"
            raise ConfigError(owner, "env", name, problem)
    return dict(env)


def checked_policy(owner: str, policy: object) -> Supervision:
    """Return a policy that this machine can apply."""
    if not isinstance(policy, Supervision):
        example = "Supervision(stop_grace=10.0)"
        if isinstance(policy, Mapping) and all(isinstance(name, str) for name in policy):
            given = ", ".join(f"{name}={value!r}" for name, value in policy.items())
            example = f"Supervision({given})"
        raise ConfigError(owner, "supervision", policy, f"must be a Supervision; write {example}")
    _check_cores(policy)
    _check_rlimits(policy)
    return policy


def checked_source(source: TickProcessor | ProcessorSpec) -> list[str]:
    """Check the hooks of a processor, and of a spec what can be known without importing anything.

    Returns:
        Warnings; see `check_hooks`.

    Raises:
        ConfigError: the spec's target does not exist, or does not take its options.
        HookError: a hook cannot work.
    """
    if not isinstance(source, ProcessorSpec):
        return check_hooks(source)
    named = source.target
    target = _loaded_target(named) if isinstance(named, str) else named
    if target is None:
        return []
    _check_options(target, source.options)
    if not isinstance(target, type):
        return []
    if not issubclass(target, TickProcessor):
        problem = "is no TickProcessor, nor a function that returns one"
        raise ConfigError("ProcessorSpec", "target", named, problem)
    return check_class(target)


def _loaded_target(path: str) -> Callable[..., object] | None:
    """Return what a target names, if its module is loaded; None if it is not.

    The worker imports the module from the same ``sys.path``.
    """
    name, _, rest = path.partition(":")
    top = name.partition(".")[0]
    if name not in sys.modules:
        if top not in sys.modules and not _can_be_found(top):
            problem = f"there is no module {top!r} on sys.path"
            raise ConfigError("ProcessorSpec", "target", path, problem)
        return None
    found: object = sys.modules[name]
    for part in rest.split("."):
        near = difflib.get_close_matches(part, dir(found), n=1)
        if not hasattr(found, part):
            hint = f"; did you mean {near[0]!r}?" if near else ""
            problem = f"{name} has no {part!r}{hint}"
            raise ConfigError("ProcessorSpec", "target", path, problem)
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError("ProcessorSpec", "target", path, "is not callable")
    return found


def _can_be_found(module: str) -> bool:
    """Whether a top-level module exists; imports nothing."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _check_options(target: Callable[..., object], options: dict[str, object]) -> None:
    """Check that a target can be called with its options."""
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(**options)
    except TypeError as error:
        known = [name for name in signature.parameters if name not in options]
        wrong = [name for name in options if name not in signature.parameters]
        near = difflib.get_close_matches(wrong[0], known, n=1) if wrong else []
        hint = f"; did you mean {near[0]!r}?" if near else ""
        name = getattr(target, "__name__", repr(target))
        problem = f"{name}{signature} cannot be called with these: {error}{hint}"
        raise ConfigError("ProcessorSpec", "options", options, problem) from None


def _check_cores(policy: Supervision) -> None:
    """Check that the cores of a policy's affinity exist."""
    cores = policy.resources.cpu_affinity
    if cores is None:
        return
    if not hasattr(os, "sched_getaffinity"):
        raise ConfigError("Resources", "cpu_affinity", cores, "not supported on this system")
    available = os.sched_getaffinity(0)
    if not isinstance(cores, str) and not available.issuperset(cores):
        known = ", ".join(map(str, sorted(available)))
        raise ConfigError("Resources", "cpu_affinity", cores, f"the cores here are: {known}")


def _check_rlimits(policy: Supervision) -> None:
    """Check that the soft limits of a policy lie within the hard limits of this process."""
    for name, limit in policy.resources.rlimits.items():
        hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1]
        if hard != resource.RLIM_INFINITY and limit > hard:
            place = f"rlimits[{name!r}]"
            raise ConfigError("Resources", place, limit, f"the hard limit here is {hard}")


def checked_groups(owner: str, groups: object) -> dict[str, GroupStrategy]:
    """Return the strategies by group name; None means no groups."""
    if groups is None:
        return {}
    if not isinstance(groups, Mapping):
        raise ConfigError(owner, "groups", groups, "must be a dict of strategies by name")
    checked = {}
    for name, strategy in groups.items():
        if not isinstance(name, str):
            raise ConfigError(owner, "groups", name, "must be a dict whose keys are names")
        try:
            checked[name] = GroupStrategy(strategy)
        except ValueError:
            known = ", ".join(repr(each.value) for each in GroupStrategy)
            place = f"groups[{name!r}]"
            raise ConfigError(owner, place, strategy, f"must be one of {known}") from None
    return checked


def checked_event_loop(owner: str, name: object) -> str:
    """Return the name of an event loop that is installed."""
    if not isinstance(name, str) or name not in EVENT_LOOPS:
        known = " or ".join(map(repr, EVENT_LOOPS))
        raise ConfigError(owner, "event_loop", name, f"must be {known}")
    if importlib.util.find_spec(name) is None:
        hint = f"is not installed; pip install 'chronopype-mp[{name}]'"
        raise ConfigError(owner, "event_loop", name, hint)
    return name


def checked_state_dir(owner: str, state_dir: object) -> str | None:
    """Return the absolute path of a writable directory, created if missing; None stays None."""
    if state_dir is None:
        return None
    path = os.fspath(state_dir) if isinstance(state_dir, os.PathLike) else state_dir
    if not isinstance(path, str) or not path:
        raise ConfigError(owner, "state_dir", state_dir, "must be the path of a directory, a str")
    path = os.path.abspath(path)
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (OSError, ValueError) as error:
        raise ConfigError(owner, "state_dir", path, f"cannot be written to: {error}") from error
    return path
