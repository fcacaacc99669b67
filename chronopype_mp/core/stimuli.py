"""Stimuli, which the supervisor receives, and actions, which it asks for."""

from __future__ import annotations

import msgspec

from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.policy import GroupStrategy, Supervision

__all__ = [
    "Action",
    "Added",
    "BeatReceived",
    "Begun",
    "CheckDeadlines",
    "Deferred",
    "Evidence",
    "Exited",
    "GotReady",
    "GuardBeatReceived",
    "Kill",
    "Launch",
    "LaunchFailed",
    "Launched",
    "PolicyChanged",
    "Probe",
    "Probed",
    "RestartAsked",
    "SendStop",
    "StartAsked",
    "Stimulus",
    "StopAsked",
]


class Added(msgspec.Struct, frozen=True):
    """A worker is to be run.

    ``seed`` is for its jitter; ``group`` names those that it depends on, or that depend on it.
    """

    worker: str
    policy: Supervision
    seed: int | str = 0
    group: str | None = None
    strategy: GroupStrategy = GroupStrategy.ONE_FOR_ONE


class Deferred(msgspec.Struct, frozen=True):
    """The start of the process waits for others."""

    worker: str
    incarnation: int


class Begun(msgspec.Struct, frozen=True):
    """A process that was deferred is being started now."""

    worker: str
    incarnation: int


class Launched(msgspec.Struct, frozen=True):
    """The launcher has started the process of an incarnation."""

    worker: str
    incarnation: int
    pid: int


class GotReady(msgspec.Struct, frozen=True):
    """An incarnation, which was launched before, reported that it is ready."""

    worker: str
    incarnation: int


class BeatReceived(msgspec.Struct, frozen=True):
    """An incarnation's event loop turns; the figures are those of the `Beat`."""

    worker: str
    incarnation: int
    rss: int = 0
    cpu: float = 0.0
    downtime: float = 0.0
    check_timeouts: int = 0


class GuardBeatReceived(msgspec.Struct, frozen=True):
    """An incarnation's guard thread runs; ``stalled`` is for how long its loop stood still."""

    worker: str
    incarnation: int
    stalled: float


class Probed(msgspec.Struct, frozen=True):
    """The answer to `Probe`."""

    worker: str
    incarnation: int
    process_stopped: bool
    stacks_written: bool
    python_runs: bool


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the coordinator knows of a process that has ended; the fields are WorkerDied's.

    Attributes:
        killed: the coordinator has killed it; not in the dossier, whose class says so.
        unloadable: it could not load its payload, which is the same for every incarnation.
        trouble: what went wrong in the launcher or while evidence was collected; the dossier's
            ``detail`` ends with it.
    """

    pid: int | None
    exitcode: int | None
    signal: str | None = None
    output: tuple[str, ...] = ()
    error: str | None = None
    error_type: str | None = None
    error_type_path: str = ""
    error_message: str | None = None
    exception: BaseException | None = None
    stacks: str | None = None
    ticks_lost: int = 0
    last_tick: float | None = None
    loop_lag: float = 0.0
    network_status: NetworkStatus = NetworkStatus.STOPPED
    network_error: str | None = None
    killed: bool = False
    unloadable: bool = False
    trouble: str | None = None


class Exited(msgspec.Struct, frozen=True):
    """An incarnation's process has ended."""

    worker: str
    incarnation: int
    evidence: Evidence


class LaunchFailed(msgspec.Struct, frozen=True):
    """No process could be started.

    ``ticks_lost`` counts those of a process that had reported before its start failed.
    """

    worker: str
    incarnation: int
    error: str
    ticks_lost: int = 0


class StopAsked(msgspec.Struct, frozen=True):
    """The owner wants the worker to stop permanently."""

    worker: str


class StartAsked(msgspec.Struct, frozen=True):
    """The owner wants the worker to run, though it may have stopped it."""

    worker: str


class RestartAsked(msgspec.Struct, frozen=True):
    """The owner wants a new process."""

    worker: str


class PolicyChanged(msgspec.Struct, frozen=True):
    """A worker is to be supervised in another way from now on."""

    worker: str
    policy: Supervision


class CheckDeadlines(msgspec.Struct, frozen=True):
    """Time has passed; ``lateness`` is how much later than planned this comes, seconds."""

    lateness: float = 0.0


Stimulus = (
    Added
    | Deferred
    | Begun
    | Launched
    | GotReady
    | BeatReceived
    | GuardBeatReceived
    | Probed
    | Exited
    | LaunchFailed
    | StopAsked
    | StartAsked
    | RestartAsked
    | PolicyChanged
    | CheckDeadlines
)


class Launch(msgspec.Struct, frozen=True):
    """Start a process."""

    worker: str
    incarnation: int


class SendStop(msgspec.Struct, frozen=True):
    """Ask the process to stop gracefully."""

    worker: str
    incarnation: int


class Kill(msgspec.Struct, frozen=True):
    """Kill the process and its children; if it is still being started, as soon as it exists.

    ``stacks``: Python does not run in it any more; let it write its stacks first.
    """

    worker: str
    incarnation: int
    stacks: bool = False


class Probe(msgspec.Struct, frozen=True):
    """Look at the process: is it stopped, does its guard run, has that written stacks?"""

    worker: str
    incarnation: int


Action = Launch | SendStop | Kill | Probe
