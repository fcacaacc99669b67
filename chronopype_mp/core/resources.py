"""What a worker process sets for itself before any user code runs in it."""

from __future__ import annotations

import msgspec

from chronopype_mp.core.checks import whole
from chronopype_mp.core.settings import Settings
from chronopype_mp.exceptions import ConfigError

__all__ = ["RLIMITS", "Resources"]

RLIMITS = frozenset({"AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "NPROC", "STACK"})
"""Names of resource limits, as in ``setrlimit(2)`` without ``RLIMIT_``."""


class Resources(Settings, frozen=True):
    """Priority, cores and resource limits of a worker process. The defaults change nothing.

    Args:
        nice: niceness to add, 0 to 19.
        cpu_affinity: the cores that it may run on, or ``"spread"``: one core per worker, in turn.
        rlimits: soft limits by name, such as ``{"NOFILE": 256}``; see ``setrlimit(2)``.

    Raises:
        ConfigError: a value is out of range, or a limit is unknown.
    """

    nice: int = 0
    cpu_affinity: tuple[int, ...] | str | None = None
    rlimits: dict[str, int] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        owner = type(self).__name__
        whole(owner, "nice", self.nice, 0, 19)
        self._check_affinity(owner)
        if not isinstance(self.rlimits, dict):
            raise ConfigError(owner, "rlimits", self.rlimits, "must be a dict")
        for name, limit in self.rlimits.items():
            if name not in RLIMITS:
                known = ", ".join(sorted(RLIMITS))
                raise ConfigError(owner, "rlimits", name, f"no such limit; known are: {known}")
            whole(owner, f"rlimits[{name!r}]", limit, 0, 2**63 - 1)

    def _check_affinity(self, owner: str) -> None:
        cores = self.cpu_affinity
        if cores is None or cores == "spread":
            return
        if isinstance(cores, str) or not isinstance(cores, tuple | list) or not cores:
            raise ConfigError(
                owner, "cpu_affinity", cores, 'must be core numbers, such as (0, 1), or "spread"'
            )
        for core in cores:
            whole(owner, "cpu_affinity", core, 0)
        msgspec.structs.force_setattr(self, "cpu_affinity", tuple(cores))
