"""Takes snapshots of a processor, and gives one back to it."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import msgspec

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.core.messages import StatePart
from chronopype_mp.core.saved_state import MAX_STATE, SavedState, pieces_of
from chronopype_mp.exceptions import SnapshotError
from chronopype_mp.processors import TickProcessor
from chronopype_mp.processors.code_reading import function_of
from chronopype_mp.timing import wall

__all__ = ["Snapshots"]


class Snapshots:
    """The snapshots of one processor.

    Args:
        processor: whose.

    Attributes:
        are_wanted: whether the processor overrides `snapshot`.
    """

    def __init__(self, processor: TickProcessor) -> None:
        self._processor = processor
        self._kind = type(processor).__name__
        self._taken = 0
        self._decoder: msgspec.msgpack.Decoder[Any] | None = None
        taken = getattr(processor.snapshot, "__func__", processor.snapshot)
        self.are_wanted = taken is not TickProcessor.snapshot

    def parts(self, boot: WorkerBoot) -> list[StatePart]:
        """Take a snapshot; return the reports that carry it, none if there is nothing to keep.

        Raises:
            Exception: as `take`.
        """
        saved = self.take()
        if saved is None:
            return []
        self._taken += 1
        pieces = pieces_of(saved.data)
        return [
            boot.report(
                StatePart,
                serial=self._taken,
                index=index,
                count=len(pieces),
                version=saved.version,
                taken_at=saved.taken_at,
                data=piece,
            )
            for index, piece in enumerate(pieces)
        ]

    def take(self) -> SavedState | None:
        """Take a snapshot; return None if the processor has nothing to keep.

        It is decoded once, so that one that cannot be restored is reported now.

        Raises:
            SnapshotError: it cannot be encoded, is too large, or does not fit its annotation.
            Exception: ``snapshot()`` failed.
        """
        state = self._processor.snapshot()
        if state is None:
            return None
        what = f"what {self._kind}.snapshot() returned"
        try:
            data = msgspec.msgpack.encode(state)
        except Exception as error:
            raise SnapshotError(
                self._kind,
                f"{what}, a {type(state).__name__}, cannot be encoded: {error}. Return plain data, "
                "dataclasses or msgspec structs",
            ) from error
        if len(data) > MAX_STATE:
            problem = f"{what} has {len(data)} bytes, more than the limit of {MAX_STATE}"
            raise SnapshotError(self._kind, f"{problem}; keep large data in a file or a database")
        self._decoded(data, what)
        return SavedState(self._processor.snapshot_version, wall(), data)

    def restore(self, saved: SavedState) -> None:
        """Hand a snapshot to the processor.

        Raises:
            SnapshotError: it has another version, does not fit the annotation, or nobody wants it.
            Exception: ``restore()`` failed.
        """
        version = self._processor.snapshot_version
        if not self.are_wanted:
            raise SnapshotError(self._kind, "there is a snapshot of it, but it has no restore()")
        if saved.version != version:
            problem = f"the snapshot has version {saved.version}, but snapshot_version = {version}"
            raise SnapshotError(self._kind, f"{problem}; the processor starts without it")
        self._processor.restore(self._decoded(saved.data, "the snapshot"))

    def _decoded(self, data: bytes, what: str) -> Any:
        if self._decoder is None:
            self._decoder = self._make_decoder()
        try:
            return self._decoder.decode(data)
        except Exception as error:
            problem = f"{what} does not fit the annotation of snapshot(): {error}"
            raise SnapshotError(self._kind, problem) from error

    def _make_decoder(self) -> msgspec.msgpack.Decoder[Any]:
        try:
            return msgspec.msgpack.Decoder(self._declared())
        except Exception as error:
            problem = (
                f"the annotation of snapshot() cannot be used: {error}. Import its names outside "
                "of TYPE_CHECKING, and use types that msgspec decodes"
            )
            raise SnapshotError(self._kind, problem) from error

    def _declared(self) -> Any:
        """Return the annotation of what `snapshot` returns, else of what `restore` takes."""
        taken = function_of(self._processor.snapshot)
        found = {} if taken is None else typing.get_type_hints(taken)
        if found.get("return", Any) is not Any:
            return found["return"]
        given = function_of(self._processor.restore)
        if given is None:
            return Any
        hints = typing.get_type_hints(given)
        names = list(inspect.signature(self._processor.restore).parameters)
        return hints.get(names[0], Any) if names else Any
