"""WorkerHandle, the owner's view of one worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from chronopype_mp.core.call_outcome import DEFAULT_TIMEOUT, pack_arguments, result_of
from chronopype_mp.core.checks import positive
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.core.messages import Reconnect, Rehearse
from chronopype_mp.core.worker_events import WorkerDied, WorkerStatus
from chronopype_mp.core.worker_statistics import WorkerStatistics
from chronopype_mp.exceptions import WorkerError, WorkerUnavailableError
from chronopype_mp.processors import NetworkProcessor, ProcessorState
from chronopype_mp.processors.remote_methods import result_type

if TYPE_CHECKING:
    from chronopype_mp.coordinator.coordinator import Coordinator
    from chronopype_mp.coordinator.record import WorkerRecord
    from chronopype_mp.core.supervisor import WorkerView

__all__ = ["WorkerHandle"]


class WorkerHandle:
    """A worker of a clock; what ``add_processor`` returns. It stays valid after the clock's end."""

    def __init__(self, record: WorkerRecord) -> None:
        self._record = record
        self._coordinator: Coordinator | None = None

    def __repr__(self) -> str:
        return (
            f"<WorkerHandle {self.name!r} {self.status.name} pid={self.pid} "
            f"incarnation={self.incarnation}>"
        )

    def attach(self, coordinator: Coordinator) -> None:
        """Take note of who runs the worker from now on; for the clock's own use."""
        self._coordinator = coordinator

    @property
    def name(self) -> str:
        """The worker's name, unique in its clock."""
        return self._record.name

    @property
    def pid(self) -> int | None:
        """The present process, or None while there is none."""
        incarnation = self._record.incarnation
        return None if incarnation is None else incarnation.pid

    @property
    def is_inline(self) -> bool:
        """Whether the worker runs in this process, by the inline launcher."""
        incarnation = self._record.incarnation
        return incarnation is not None and incarnation.is_inline

    @property
    def incarnation(self) -> int:
        """Counts the worker's processes since the clock was entered; 0 before the first."""
        view = self._view()
        return 0 if view is None else view.incarnation

    @property
    def status(self) -> WorkerStatus:
        """How the worker stands with its supervisor; STOPPED before the clock is entered."""
        view = self._view()
        return WorkerStatus.STOPPED if view is None else view.status

    @property
    def network_status(self) -> NetworkStatus:
        """The network status that the worker reported last; STOPPED without a process."""
        return self._record.network_status

    @property
    def network_reason(self) -> str | None:
        """Why the network status is what it is; None before the first report."""
        return self._record.snapshot.network_reason

    @property
    def next_attempt(self) -> float | None:
        """When the next attempt to connect is due, wall clock in seconds.

        None if one runs, or none is planned.
        """
        return self._record.next_attempt

    @property
    def restarts(self) -> int:
        """Processes started after the first."""
        view = self._view()
        return 0 if view is None else view.restarts

    @property
    def state(self) -> ProcessorState:
        """The processor's state that the worker reported last."""
        return self._record.state

    @property
    def last_failure(self) -> WorkerDied | None:
        """The dossier of the worker's last death; None if it has not died."""
        return self._record.last_failure

    @property
    def mirrored(self) -> Mapping[str, object]:
        """The values of the attributes that the processor's class lists in ``mirrored``, by name.

        They are those of the last beat, which comes every second, or more often if
        ``loop_stall_timeout`` is below 4 s. The mapping is immutable and never changes.
        """
        return self._record.view.mirrored

    def statistics(self) -> WorkerStatistics:
        """Return the figures now; while the worker runs, those it reported last."""
        record = self._record
        snapshot, figures, error = record.snapshot, record.figures, record.snapshot.network_error
        state = record.saved_state
        seq = 0 if self._coordinator is None else self._coordinator.position.seq
        incarnation = record.incarnation
        stopped_at = None if incarnation is None else incarnation.stopped_at
        totals = record.ledger.totals(seq, stopped_at)
        return WorkerStatistics(
            published=totals.published,
            run=totals.run,
            missed=totals.missed,
            skipped=totals.skipped,
            lost=totals.lost,
            largest_gap=snapshot.largest_gap,
            executions=figures.executions,
            lateness=figures.lateness,
            restarts=self.restarts,
            output_lines=self._output_lines(),
            last_heard=snapshot.last_heard,
            check_latency=figures.connection.check_latency,
            connects=figures.connection.connects,
            connected_seconds=figures.connection.connected_seconds,
            outputs_emitted=figures.outputs.emitted,
            outputs_sent=figures.outputs.sent,
            outputs_dropped=figures.outputs.dropped,
            messages_received=figures.messages.received,
            message_gaps=figures.messages.gaps,
            network_error=None if error is None else error.text,
            network_error_at=None if error is None else error.at,
            lag=snapshot.lag,
            reports_lost=snapshot.reports_lost,
            frames_dropped=snapshot.frames_dropped,
            rss=snapshot.rss,
            cpu=snapshot.cpu,
            uptime=self._uptime(),
            next_attempt=record.next_attempt,
            network_reason=snapshot.network_reason,
            network_since=snapshot.network_since,
            snapshot_at=None if state is None else state.taken_at,
            snapshot_bytes=0 if state is None else len(state.data),
        )

    async def wait_ready(self) -> None:
        """Wait until the worker is READY: from then on every tick reaches it.

        Cancelling this changes nothing. Bound it with ``asyncio.timeout`` where needed.

        Raises:
            WorkerError: it was stopped, removed or quarantined, or its clock is not entered.
        """
        await self._running("wait_ready").wait_ready(self.name, 0)

    async def wait_stopped(self) -> None:
        """Wait until the worker has no process any more and gets none.

        Returns at once when its clock is not entered. Cancelling this changes nothing.
        """
        if self._coordinator is not None and self._coordinator.has(self._record):
            await self._coordinator.wait_stopped(self.name)

    def stop(self) -> None:
        """Stop the worker gracefully, and leave it stopped until `start`.

        `wait_stopped` waits for it. A process that is STARTING is killed. A worker that waits for a
        restart, or is quarantined, is STOPPED at once. Nothing restarts a stopped worker: neither
        its supervision nor its group, which goes on without it, nor `restart`. Unlike one that was
        removed, it stays in its clock with its name and figures. No ticks are counted for it,
        while those of a paused one count as skipped. Idempotent.

        Raises:
            WorkerError: it was removed, or its clock is not entered.
        """
        self._running("stop").stop(self.name)

    def start(self) -> None:
        """Start a worker that is STOPPED, from the copy that ``add_processor`` made.

        `wait_ready` waits for it. A worker that is being stopped is started once that is done. A
        quarantined worker is tried again. The start is not charged to the restart budget, and
        counts in `restarts`. A worker that runs, or will be restarted anyway, is left alone. A
        worker that was paused is still paused.

        Raises:
            WorkerError: it was removed, or its clock is not entered.
        """
        self._running("start").start(self.name)

    def pause(self) -> None:
        """Hold back all ticks that are published from now on; they count as skipped. Idempotent.

        The processor's ``pause()`` runs in the worker; a connection stays as it is. It lasts until
        `resume`, also in processes that are started meanwhile.

        Raises:
            WorkerError: it was removed, or its clock is not entered.
        """
        self._running("pause")
        self._record.set_paused(True)

    def resume(self) -> None:
        """Undo `pause`; the processor's ``resume()`` runs in the worker. Idempotent.

        Raises:
            WorkerError: it was removed, or its clock is not entered.
        """
        self._running("resume")
        self._record.set_paused(False)

    async def restart(self) -> None:
        """Stop the worker gracefully, start a new process, and wait until that is READY.

        Not charged to the restart budget; brings back a quarantined worker. A process that is
        STARTING is new already, and waited for. Cancelling this does not take the restart back.

        Raises:
            WorkerError: it was stopped, removed or quarantined, or its clock is not entered.
        """
        await self._running("restart").restart(self.name)

    def reconnect(self) -> None:
        """Have the processor's connection made anew, now.

        A connection is given up first. A wait for the next attempt ends, also one that a server
        asked for and that after a `PermanentFailure`. An attempt under way goes on. A worker that
        has no process yet, or a new one, connects by itself. One that is paused connects when it is
        resumed.

        Raises:
            WorkerError: it was stopped, removed or quarantined, it is not a `NetworkProcessor`, or
                its clock is not entered.
        """
        coordinator = self._running("reconnect")
        original = self._record.original
        if original is not None and not isinstance(original, NetworkProcessor):
            raise WorkerError(self.name, "reconnect() needs a NetworkProcessor")
        if self.status in (WorkerStatus.STOPPING, WorkerStatus.STOPPED, WorkerStatus.QUARANTINED):
            raise WorkerError(self.name, f"reconnect() of a worker that is {self.status.name}")
        coordinator.order(self._record, Reconnect())

    async def call(
        self, method: str, /, *args: Any, timeout: float = DEFAULT_TIMEOUT, **kwargs: Any
    ) -> Any:
        """Call a method of the processor in its worker, which is marked with ``@remote``.

        It runs between two ticks; one tick or call runs at a time. It also runs while the worker is
        paused or not connected. A call that was answered has run exactly once. Cancelling this
        abandons the call: a method that has begun runs to its end, or to the ``timeout``.

        Args:
            method: its name.
            args: positional arguments, which msgspec must be able to encode.
            timeout: seconds to wait for the result, above 0; then the method is cancelled.
            kwargs: keyword arguments. One named ``timeout`` cannot be given.

        Returns:
            What the method returned. If the processor was added as an object, or its class as the
            target of a `ProcessorSpec`, it has the type that the method declares. Otherwise it has
            plain values: a dataclass, for instance, is a dict.

        Raises:
            CallError: there is no result; its subclasses say why. `WorkerUnavailableError` and
                `NotRemoteError` mean that nothing has run.
            RemoteError: the method raised. It is also an instance of the original exception's type,
                if that is known here.
            ConfigError: ``timeout`` is not a number above 0.
        """
        name = self.name
        coordinator = self._running(
            "call", lambda worker, problem: WorkerUnavailableError(worker, method, problem)
        )
        timeout = positive("call", "timeout", timeout)
        kind = self._record.processor_type
        declared = Any if kind is None else result_type(kind, name, method)
        arguments = pack_arguments(name, method, args, kwargs)
        outcome = await coordinator.switchboard.call(name, method, arguments, timeout)
        return result_of(outcome, name, method, declared)

    def _uptime(self) -> float:
        coordinator = self._coordinator
        if coordinator is None or not coordinator.has(self._record):
            return 0.0
        return coordinator.uptime(self.name)

    def _output_lines(self) -> int:
        incarnation = self._record.incarnation
        present = 0 if incarnation is None else incarnation.output_lines
        return self._record.output_lines + present

    def _rehearse(self, fault: str, amount: float) -> None:
        """Have the worker carry out a fault; see `chronopype_mp.testing.faults`."""
        command = Rehearse(fault=fault, amount=amount)
        self._running("a fault").order(self._record, command)

    def _view(self) -> WorkerView | None:
        """Return what the supervisor knows; None before the clock is entered."""
        coordinator = self._coordinator
        if coordinator is None or not coordinator.has(self._record):
            return self._record.last_view
        return coordinator.view(self.name)

    def _running(
        self, what: str, error: Callable[[str, str], WorkerError] = WorkerError
    ) -> Coordinator:
        coordinator = self._coordinator
        if self._record.is_removed:
            raise error(self.name, "it was removed from its clock")
        if coordinator is None or not coordinator.is_open or not coordinator.has(self._record):
            raise error(
                self.name,
                f"{what}() needs an entered clock, which has not been left; call it inside of "
                "`async with ... as clock`",
            )
        return coordinator
