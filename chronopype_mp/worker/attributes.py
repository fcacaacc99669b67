"""Reads the public attributes of a processor, for its owner."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

from chronopype_mp.core.attributes import AttributeProblem, annotations_of, encoded
from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.core.error_text import message_of
from chronopype_mp.core.messages import Attributes, AttributeValue
from chronopype_mp.guarded_log import GuardedLogger
from chronopype_mp.processors import TickProcessor

__all__ = ["AttributeReader"]

PER_MESSAGE = 64_000
"""Bytes of names and values in a message, unless one alone has more."""

MOST = 1_000_000
"""Bytes of all values."""

MOST_MIRRORED = 16_000
"""Bytes of the mirrored values, which every beat carries."""

MOST_LEFT_OUT = 100
"""Names of attributes that are listed as left out."""

LONGEST_REASON = 200
"""Characters."""


logger = GuardedLogger("chronopype_mp.worker")


class AttributeReader:
    """Reads the attributes of one processor.

    Args:
        processor: whose.
        worker: its worker's name, for warnings.
    """

    def __init__(self, processor: TickProcessor, worker: str) -> None:
        self._processor = processor
        self._worker = worker
        self._not_mirrored: set[str] = set()

    @functools.cached_property
    def _declared(self) -> Mapping[str, object]:
        # Not when the worker starts: to read annotations takes half a millisecond.
        return annotations_of(type(self._processor))

    def public(self) -> Iterator[tuple[dict[str, AttributeValue], dict[str, str]]]:
        """Yield values by name in portions, each with what was left out so far, and why."""
        left_out: dict[str, str] = {}
        portion: dict[str, AttributeValue] = {}
        size = total = 0
        for name, value in list(vars(self._processor).items()):
            if not isinstance(name, str) or name.startswith("_"):
                continue
            try:
                travelling = encoded(value, self._declared.get(name))
                if total + _size(name, travelling) > MOST:
                    raise AttributeProblem(f"all together have more than {MOST} bytes")
            except AttributeProblem as problem:
                if len(left_out) < MOST_LEFT_OUT:
                    left_out[name[:LONGEST_REASON]] = str(problem)[:LONGEST_REASON]
                continue
            total += _size(name, travelling)
            if size and size + _size(name, travelling) > PER_MESSAGE:
                yield portion, left_out
                portion, size = {}, 0
            portion[name] = travelling
            size += _size(name, travelling)
        yield portion, left_out

    def reports(self, boot: WorkerBoot, request: int) -> list[Attributes]:
        """Return the reports of the public attributes, which have no values if hosted in place.

        Args:
            boot: of the worker.
            request: which they answer.
        """
        is_owners = self._processor._is_hosted_in_place
        portions = [({}, {})] if is_owners else list(self.public())
        last = len(portions) - 1
        return [
            boot.report(
                Attributes,
                request=request,
                values=values,
                left_out=left_out if index == last else {},
                is_last=index == last,
            )
            for index, (values, left_out) in enumerate(portions)
        ]

    def mirrored(self) -> dict[str, AttributeValue]:
        """Return the mirrored values by name. Warn once of each that cannot travel."""
        values: dict[str, AttributeValue] = {}
        left = MOST_MIRRORED
        for name in self._processor.mirrored:
            try:
                travelling = encoded(getattr(self._processor, name), self._declared.get(name))
                if _size(name, travelling) > left:
                    raise AttributeProblem(f"mirrored values have more than {MOST_MIRRORED} bytes")
            except Exception as error:  # an AttributeError, and whatever a property raises
                self._warn(name, error)
            else:
                left -= _size(name, travelling)
                values[name] = travelling
        return values

    def _warn(self, name: str, error: Exception) -> None:
        if name not in self._not_mirrored:
            self._not_mirrored.add(name)
            logger.warning(
                "worker %r: %r in %s.mirrored is left out: %s",
                *(self._worker, name, type(self._processor).__name__, message_of(error)),
            )


def _size(name: str, value: AttributeValue) -> int:
    return len(name.encode(errors="replace")) + len(value.kind.encode()) + len(bytes(value.data))
