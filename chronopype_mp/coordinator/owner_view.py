"""The attributes of a worker's processor, as the owner sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from chronopype_mp.core.attributes import AttributeProblem, annotations_of, decoded
from chronopype_mp.core.error_text import message_of
from chronopype_mp.core.messages import Attributes, AttributeValue
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.processors import ProcessorSpec, TickProcessor

__all__ = ["OwnerView"]

logger = GuardedLogger("chronopype_mp.coordinator")


class OwnerView:
    """What one worker reports of its processor's attributes.

    After a run, and after an orderly stop, the public ones are set on the object that was added.
    Those in ``mirrored`` come with every beat.

    Args:
        source: what was added.
    """

    def __init__(self, source: TickProcessor | ProcessorSpec) -> None:
        self._object = source if isinstance(source, TickProcessor) else None
        target = source.target if isinstance(source, ProcessorSpec) else type(source)
        self._declared = annotations_of(target) if isinstance(target, type) else {}
        self._came: dict[str, AttributeValue] = {}
        self._raw: dict[str, AttributeValue] = {}
        self._mirrored: Mapping[str, object] | None = MappingProxyType({})
        self._request = 0
        self._answered: asyncio.Future[None] | None = None

    @property
    def mirrored(self) -> Mapping[str, object]:
        """The mirrored values by name, as last reported; immutable."""
        if self._mirrored is None:
            values = {name: self._plainly(name, value) for name, value in self._raw.items()}
            self._mirrored = MappingProxyType(values)
        return self._mirrored

    def mirror(self, values: dict[str, AttributeValue]) -> None:
        """Take over the mirrored values of a beat."""
        if values or self._raw:
            self._raw, self._mirrored = values, None

    def ask(self) -> tuple[int, asyncio.Future[None]]:
        """Return the number of a new request for all attributes, and what is done once it is over.

        It is also over when the process ends.
        """
        self.process_ended()
        self._request += 1
        self._answered = asyncio.get_running_loop().create_future()
        return self._request, self._answered

    def take(self, report: Attributes) -> None:
        """Take some attributes; with the last of them, set all on the owner's object."""
        self._came |= report.values
        if not report.is_last:
            return
        values, self._came = self._came, {}
        left_out = {**report.left_out, **self._set(values)}
        if left_out:
            logger.debug(
                "attributes of %s that do not come home: %s",
                type(self._object).__name__,
                "; ".join(f"{name} ({why})" for name, why in left_out.items()),
            )
        if report.request == self._request:
            self.process_ended()

    def process_ended(self) -> None:
        """End the request under way."""
        self._came = {}
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    def _set(self, values: dict[str, AttributeValue]) -> dict[str, str]:
        """Set attributes on the owner's object; return why others were not, by name."""
        problems: dict[str, str] = {}
        own = None if self._object is None else vars(self._object)
        for name, value in values.items() if own is not None else ():
            assert own is not None
            if name.startswith("_") or hasattr(getattr(type(self._object), name, None), "__set__"):
                continue  # a name that no worker of ours sends
            try:
                there = self._decoded(name, value, own.get(name))
                is_same = name in own and type(own[name]) is type(there) and own[name] == there
            except AttributeProblem as problem:
                problems[name] = str(problem)
                continue
            except BaseException as error:  # of a class of the user's, which is made or compared
                problems[name] = f"{type(error).__name__}: {message_of(error)}"
                continue
            if not is_same:  # else code that holds the object still finds it here
                own[name] = there
        return problems

    def _plainly(self, name: str, value: AttributeValue) -> object:
        """Return a mirrored value, as plain data if its type is not known here."""
        try:
            present = None if self._object is None else vars(self._object).get(name)
            return self._decoded(name, value, present)
        except AttributeProblem:
            return msgspec.msgpack.decode(value.data)

    def _decoded(self, name: str, value: AttributeValue, present: Any) -> object:
        return decoded(value, self._declared.get(name), type(present))
