"""ProcessorSpec: how to make a processor in the worker, so that it need not be pickled."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from chronopype_mp.core.settings import Settings
from chronopype_mp.exceptions import ConfigError
from chronopype_mp.processors.base import TickProcessor

__all__ = ["ProcessorSpec"]


class ProcessorSpec(Settings, frozen=True, eq=False):
    """How to make a processor.

    Args:
        target: ``"package.module:Class"``, or a class or function. It is called in the worker and
            returns the processor.
        options: its keyword arguments.

    Raises:
        ConfigError: ``target`` is none of these, or ``options`` is not a dict with names as keys.
    """

    target: str | Callable[..., TickProcessor]
    options: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if isinstance(self.target, str):
            module, colon, name = self.target.partition(":")
            parts = [*module.split("."), *name.split(".")]
            if not colon or not all(part.isidentifier() for part in parts):
                raise ConfigError(
                    owner, "target", self.target, 'must look like "package.module:Class"'
                )
        elif not callable(self.target):
            raise ConfigError(
                owner, "target", self.target, 'must be callable or look like "package.module:Class"'
            )
        if not isinstance(self.options, dict) or not all(
            isinstance(name, str) and name.isidentifier() for name in self.options
        ):
            raise ConfigError(owner, "options", self.options, "must be a dict with names as keys")

    def __repr__(self) -> str:
        """Name the options, without their values, which may be secrets."""
        options = ", ".join(self.options)
        return f"{type(self).__name__}(target={self.target!r}, options=<{options}>)"

    @property
    def default_name(self) -> str:
        """The last part of the target's name; a worker's name is made from it."""
        if isinstance(self.target, str):
            return self.target.rpartition(":")[2].rpartition(".")[2]
        return getattr(self.target, "__name__", type(self.target).__name__)

    def loaded_target(self) -> object:
        """Return the target, or None if its module is not imported in this process."""
        if not isinstance(self.target, str):
            return self.target
        module, _, path = self.target.partition(":")
        found: object = sys.modules.get(module)
        for part in path.split("."):
            found = getattr(found, part, None)
        return found

    def build(self) -> TickProcessor:
        """Import the target and make the processor.

        Raises:
            TypeError: the target did not return a TickProcessor.
            Exception: importing or calling the target failed.
        """
        made: object
        if isinstance(self.target, str):
            module, _, path = self.target.partition(":")
            found: Any = importlib.import_module(module)
            for part in path.split("."):
                found = getattr(found, part)
            made = found(**self.options)
        else:
            made = self.target(**self.options)
        if not isinstance(made, TickProcessor):
            raise TypeError(f"{self.target!r} returned {made!r}; it must return a TickProcessor")
        return made
