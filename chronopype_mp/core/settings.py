"""The base class of all settings: frozen, keyword-only, and strict about names."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Self

import msgspec

from chronopype_mp.exceptions import ConfigError

__all__ = ["Seconds", "Settings"]

Seconds = Annotated[
    float,
    msgspec.Meta(
        description='seconds, or a duration such as "250ms", "5s", "2m" or "1h"',
        extra={"unit": "s"},
    ),
]
"""A number of seconds. A fleet file may also state it as a duration, such as "250ms"."""


class _StrictMeta(msgspec.StructMeta):
    def __call__(cls, *args: Any, **values: Any) -> Any:
        if args:
            raise ConfigError(cls.__name__, "(positional)", args[0], "must be given by name")
        known = cls.__struct_fields__
        for name, value in values.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known)}"
                raise ConfigError(cls.__name__, name, value, f"no such setting; {hint}")
        defaults = cls.__struct_defaults__
        padded = (msgspec.NODEFAULT,) * (len(known) - len(defaults)) + defaults
        for name, default in zip(known, padded, strict=True):
            if default is msgspec.NODEFAULT and name not in values:
                raise ConfigError(cls.__name__, name, None, "must be given")
        return super().__call__(**values)


def _restore(kind: type[Settings], values: dict[str, Any]) -> Settings:
    """Make settings from their pickled values."""
    return kind(**values)


class Settings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, metaclass=_StrictMeta
):
    """Frozen settings. The error for an unknown name suggests the nearest known one."""

    def model_copy(self, *, update: dict[str, Any] | None = None) -> Self:
        """Return a copy with some values changed. It is validated.

        Args:
            update: the new values by name.

        Raises:
            ConfigError: a name is unknown or a value out of range.
        """
        return type(self)(**{**self._values(), **(update or {})})

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__struct_fields__}

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self._values())
