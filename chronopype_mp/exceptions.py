"""The whole error tree. What an error knows is in its attributes, not only in its message."""

from __future__ import annotations

__all__ = [
    "ClockContextError",
    "ClockError",
    "ClockRuntimeError",
    "ConfigError",
    "ProcessorError",
    "ProcessorTimeoutError",
]


class ClockError(Exception):
    """Base of every error that chronopype_mp raises."""


class ClockContextError(ClockError):
    """The clock was entered twice, or used outside its context."""


class ClockRuntimeError(ClockError):
    """A runtime was asked for something its clock cannot do."""


class ProcessorError(ClockError):
    """A processor failed."""


class ProcessorTimeoutError(ProcessorError):
    """A processor's tick took longer than ``processor_timeout``."""


class ConfigError(ClockError, ValueError):
    """A setting is unknown or out of range.

    Attributes:
        owner: the settings' name, such as ``"ClockConfig"``.
        field: the setting's name.
        value: what was given.
    """

    def __init__(self, owner: str, field: str, value: object, problem: str) -> None:
        super().__init__(f"{owner}.{field} = {value!r}: {problem}")
        self.owner = owner
        self.field = field
        self.value = value
