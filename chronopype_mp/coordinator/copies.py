"""Objects that several processors of a clock carry: each worker gets a copy of its own."""

from __future__ import annotations

from chronopype_mp.exceptions import TransferError
from chronopype_mp.guarded_log import GuardedLogger

__all__ = ["Copies"]

logger = GuardedLogger("chronopype_mp.coordinator")


class Copies:
    """Knows which worker carries which object."""

    def __init__(self) -> None:
        # The objects themselves, too, so that no other object gets their id.
        self._carriers: dict[int, tuple[object, dict[str, str]]] = {}
        self._keys: dict[str, list[int]] = {}
        self._warned: set[int] = set()

    def check(self, processor: object) -> None:
        """Check that no worker carries a copy of a processor that is to be added.

        Raises:
            TransferError: one does.
        """
        _, carriers = self._carriers.get(id(processor), (None, {}))
        for worker, path in carriers.items():
            raise TransferError(
                type(processor).__name__,
                None,
                f"worker {worker!r}, which was added before, has a copy of it ({path}); that copy "
                "would not show what this worker does",
                remedy="Let only one of them be a processor of the clock",
            )

    def add(self, worker: str, carried: dict[int, tuple[object, str]]) -> None:
        """Note what a worker carries. Warn of what another one carries, too, once per object."""
        told: list[str] = []
        self._keys[worker] = list(carried)
        for key, (value, path) in carried.items():
            _, carriers = self._carriers.setdefault(key, (value, {}))
            # What a shared object holds is shared with it.
            if carriers and not any(_is_within(path, outer) for outer in told):
                told.append(path)
                if key not in self._warned:
                    self._warned.add(key)
                    other, other_path = next(iter(carriers.items()))
                    logger.warning(
                        "workers %r and %r each have a copy of one object, a %s (%s, %s): a change "
                        "in one worker does not show in the other. If nobody changes it, make it "
                        "immutable, such as a tuple or a frozen dataclass",
                        other,
                        worker,
                        type(value).__name__,
                        other_path,
                        path,
                    )
            carriers[worker] = path

    def drop(self, worker: str) -> None:
        """Forget what a worker carries."""
        for key in self._keys.pop(worker):
            _, carriers = self._carriers[key]
            del carriers[worker]
            if not carriers:
                del self._carriers[key]
                self._warned.discard(key)


def _is_within(path: str, outer: str) -> bool:
    return path.startswith((f"{outer}.", f"{outer}[", f"{outer}{{"))
