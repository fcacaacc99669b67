"""Serializes a processor once, when it is added.

- Importable objects are serialized by name.
- Classes and functions of the main module (or of a notebook) are serialized by value. With
  ``recurse``, dill includes only what they refer to.
- Objects that would arrive as something else are rejected. dill reopens an open file, and a
  re-entrant lock arrives in a state in which it can never be acquired.
- dill cannot serialize an enum of the main module. It is rebuilt from its members.
"""

from __future__ import annotations

import enum
import importlib
import io
import threading
import warnings
from typing import Any

import dill

from chronopype_mp.exceptions import TransferError
from chronopype_mp.processors import ProcessorSpec, TickProcessor

__all__ = ["pack"]


def pack(source: TickProcessor | ProcessorSpec) -> bytes:
    """Serialize a processor, or the spec of one, for its worker.

    Raises:
        TransferError: it cannot be serialized. The error names the attribute.
    """
    try:
        return _dump(source)
    except Exception as error:
        if isinstance(source, ProcessorSpec):
            attributes = {f"options[{name!r}]": value for name, value in source.options.items()}
            attributes["target"] = source.target
        else:
            attributes = dict(vars(source))
        for name, value in attributes.items():
            try:
                _dump(value)
            except Exception as cause:
                raise TransferError(type(source).__name__, name, _brief(cause)) from cause
        raise TransferError(type(source).__name__, None, _brief(error)) from error


def _dump(value: object) -> bytes:
    frame = io.BytesIO()
    with warnings.catch_warnings():
        # dill warns about names that it cannot find. They would fail in the worker.
        warnings.simplefilter("error", dill.PicklingWarning)
        _Pickler(frame, recurse=True).dump(value)
    return frame.getvalue()


class _Pickler(dill.Pickler):  # type: ignore[misc]
    """dill's pickler with special handling for a few types."""

    dispatch = dill.Pickler.dispatch.copy()

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        """Save an object. Reject it if it would arrive as something else."""
        if isinstance(obj, _REFUSED):
            raise TypeError(f"{obj!r} cannot leave this process")
        if isinstance(obj, enum.EnumMeta) and not _is_importable(obj) and id(obj) not in self.memo:
            members = {name: getattr(obj, name).value for name in obj.__members__}
            rest = {
                name: value
                for name, value in vars(obj).items()
                if name not in members and (not name.startswith("_") or name == "__doc__")
            }
            self.save_reduce(
                _make_enum,
                (obj.__name__, obj.__bases__, obj.__module__, obj.__qualname__, members),
                state=rest,
                state_setter=_set_attributes,
                obj=obj,
            )
            return
        super().save(obj, save_persistent_id)


_REFUSED = (io.IOBase, type(threading.RLock()))


def _is_importable(kind: type) -> bool:
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        return False
    try:
        found: Any = importlib.import_module(kind.__module__)
        for part in kind.__qualname__.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return False
    return found is kind


def _make_enum(
    name: str, bases: tuple[type, ...], module: str, qualname: str, members: dict[str, Any]
) -> type:
    """Rebuild an enum in the worker."""
    kind: Any = type(bases[-1])
    space = kind.__prepare__(name, bases)
    for member, value in members.items():
        space[member] = value
    space["__module__"] = module
    space["__qualname__"] = qualname
    made: type = kind(name, bases, space)
    return made


def _set_attributes(kind: type, attributes: dict[str, Any]) -> None:
    """Set an enum's methods. They may refer to the enum, so it must exist first."""
    for name, value in attributes.items():
        setattr(kind, name, value)


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(
        ": "
    )
