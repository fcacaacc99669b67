"""The settings of a NetworkProcessor: class attributes that are validated wherever they are set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from chronopype_mp.core.backoff import BackoffPolicy
from chronopype_mp.core.checks import at_least, finite, positive
from chronopype_mp.core.connection import StartWhen
from chronopype_mp.exceptions import ConfigError
from chronopype_mp.guarded_log import GuardedLogger

__all__ = [
    "NetworkSetting",
    "adopt_settings",
    "backoff_policy",
    "error_types",
    "network_setting",
    "not_negative",
    "optional_seconds",
    "seconds",
    "settings_of",
    "start_when",
    "timeout",
    "yes_or_no",
]

logger = GuardedLogger("chronopype_mp.processors")

SHORTEST_SETTING = 0.1
"""Seconds; shorter intervals and timeouts are set to this, as in chronopype."""

Validate = Callable[[str, str, object], Any]


class _Settable(Protocol):
    def _get_setting(self, name: str) -> Any:
        """Return the value that holds now."""
        ...

    def _set_setting(self, name: str, value: Any) -> None:
        """Take a valid value."""
        ...


class NetworkSetting:
    """A setting, which instances and subclasses may set.

    Its value is kept under the name with an underscore before it.

    Args:
        default: the value of the class.
        validate: returns a valid value, or raises ConfigError; its arguments are the name of the
            class, that of the setting, and the value.
    """

    def __init__(self, default: Any, validate: Validate) -> None:
        self._default = default
        self._validate = validate

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self.slot = f"_{name}"
        if self.slot not in vars(owner):  # it is there when a class is unpickled
            setattr(owner, self.slot, self._default)

    def __get__(self, instance: _Settable | None, owner: type) -> Any:
        if instance is None:
            return getattr(owner, self.slot)
        return instance._get_setting(self._name)

    def __set__(self, instance: _Settable, value: object) -> None:
        instance._set_setting(self._name, self.valid(type(instance), value))

    def valid(self, owner: type, value: object) -> Any:
        """Return a valid value.

        Raises:
            ConfigError: there is none for ``value``.
        """
        return self._validate(owner.__name__, self._name, value)


def network_setting(default: Any, validate: Validate) -> Any:
    """Return a `NetworkSetting`, which type checkers take for its value."""
    return NetworkSetting(default, validate)


def settings_of(kind: type) -> dict[str, NetworkSetting]:
    """Return the settings that a class defines, by name."""
    return {name: value for name, value in vars(kind).items() if isinstance(value, NetworkSetting)}


def adopt_settings(cls: type, settings: Mapping[str, NetworkSetting]) -> None:
    """Let values that a new class or its mixins give to settings be values of settings.

    Args:
        cls: the class.
        settings: those of its base class, by name.

    Raises:
        ConfigError: a value is invalid, or is a property or a method.
    """
    for name, setting in settings.items():
        owner = next(each for each in cls.__mro__ if name in vars(each))
        given = vars(owner)[name]
        if isinstance(given, NetworkSetting):
            continue
        if owner is not cls and hasattr(owner, setting.slot):
            continue  # assigned to a base class later than in its body: `check_hooks` refuses it
        if hasattr(given, "__get__"):
            problem = (
                "must be a value, not a property or a method; to change it at run time, assign to "
                f"self.{name}"
            )
            raise ConfigError(cls.__name__, name, given, problem)
        setattr(cls, setting.slot, setting.valid(cls, given))
        setattr(cls, name, setting)


def seconds(owner: str, field: str, value: object) -> float:
    """Accept a number; at least `SHORTEST_SETTING` is taken, with a warning."""
    number = finite(owner, field, value)
    if number < SHORTEST_SETTING:
        logger.warning(
            "%s.%s = %s: is too short, so it is set to %s s",
            *(owner, field, value, SHORTEST_SETTING),
        )
    return max(SHORTEST_SETTING, number)


def timeout(owner: str, field: str, value: object) -> float:
    """Accept a number of seconds above 0."""
    return positive(owner, field, value)


def not_negative(owner: str, field: str, value: object) -> float:
    """Accept a number of seconds, 0 included."""
    return at_least(owner, field, value, 0.0)


def optional_seconds(owner: str, field: str, value: object) -> float | None:
    """Accept a number of seconds above 0, or None."""
    return None if value is None else positive(owner, field, value)


def backoff_policy(owner: str, field: str, value: object) -> BackoffPolicy:
    """Accept a `BackoffPolicy`."""
    if not isinstance(value, BackoffPolicy):
        raise ConfigError(owner, field, value, "must be a BackoffPolicy")
    return value


def yes_or_no(owner: str, field: str, value: object) -> bool:
    """Accept True or False."""
    if not isinstance(value, bool):
        raise ConfigError(owner, field, value, "must be True or False")
    return value


def error_types(owner: str, field: str, value: object) -> tuple[type[Exception], ...]:
    """Accept a tuple or list of exception classes, or one."""
    kinds = tuple(value) if isinstance(value, tuple | list) else (value,)
    for kind in kinds:
        if not isinstance(kind, type) or not issubclass(kind, Exception):
            raise ConfigError(owner, field, value, "must be a tuple of exception classes")
    return kinds


def start_when(owner: str, field: str, value: object) -> StartWhen:
    """Accept a `StartWhen`."""
    if not isinstance(value, StartWhen):
        raise ConfigError(owner, field, value, "must be a StartWhen, such as StartWhen.CONNECTED")
    return value
