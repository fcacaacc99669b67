"""All exceptions of the package. They carry their data as attributes, not only in the message."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "AttributeNotSetError",
    "CallError",
    "CallLostError",
    "CallTimeoutError",
    "CallTooLargeError",
    "CallValueError",
    "ClockContextError",
    "ClockError",
    "ClockRuntimeError",
    "ConfigError",
    "ControlError",
    "FleetError",
    "FleetRunningError",
    "HookError",
    "MessageError",
    "NotRemoteError",
    "OutputError",
    "OutputsFull",
    "PermanentFailure",
    "ProcessorError",
    "ProcessorTimeoutError",
    "RemoteError",
    "RetryAfter",
    "SnapshotError",
    "TransferError",
    "TransportError",
    "WorkerError",
    "WorkerUnavailableError",
]


class ClockError(Exception):
    """Base of every error that chronopype_mp raises."""


class ClockContextError(ClockError):
    """The clock was entered twice, or used outside its context."""


class ClockRuntimeError(ClockError):
    """A runtime was asked for something that its clock does not support."""


class ProcessorError(ClockError):
    """A processor failed in its worker. Its string shows the original exception.

    The exception object itself stays in the worker, because data from a socket is never unpickled.
    If the original's type is known in the owner's process, the error is also an instance of that
    type, so that ``except KeyError`` works. Of the original's attributes it has only the text. With
    the inline launcher, ``__cause__`` is the original.

    Attributes:
        worker: the worker's name.
        type_name: the name of the original exception's type.
        message: the original exception's message.
        traceback: the traceback, as formatted in the worker.
    """

    worker: str
    type_name: str
    message: str
    traceback: str

    def __init__(
        self, message: str, *, worker: str = "", type_name: str = "", traceback: str = ""
    ) -> None:
        Exception.__init__(self, message)  # never that of the original's type
        vars(self).update(worker=worker, type_name=type_name, message=message, traceback=traceback)

    def __str__(self) -> str:
        if not self.traceback:
            return self.message
        return f"{self.type_name}: {self.message}\n\nin worker {self.worker!r}:\n{self.traceback}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"


class ProcessorTimeoutError(ProcessorError):
    """A processor's tick took longer than ``processor_timeout``."""


class RemoteError(ProcessorError):
    """A method that was called in a worker raised an exception; see `ProcessorError`.

    Attributes:
        method: the name of the method.
    """

    method: str = ""


class ConfigError(ClockError, ValueError):
    """A setting is unknown or out of range.

    Attributes:
        owner: the name of the settings class, such as ``"ClockConfig"``.
        field: the name of the setting.
        value: the invalid value.
        problem: what is wrong with it, without the three above.
    """

    def __init__(self, owner: str, field: str, value: object, problem: str) -> None:
        super().__init__(f"{owner}.{field} = {value!r}: {problem}")
        self.owner = owner
        self.field = field
        self.value = value
        self.problem = problem


class FleetProblem(NamedTuple):
    """One mistake in a fleet file.

    Attributes:
        file: the path of the file, or the name of an environment variable.
        line: its line in the file, from 1; None if there is none.
        path: the setting, such as ``"clock.tick_size"`` or ``"processor[feed].options.url"``; empty
            for the whole file.
        value: the wrong value as the file has it, shortened; None if there is none. A secret is
            shown as its reference, such as ``"${KEY}"``.
        problem: what is wrong, and what to do.
    """

    file: str
    line: int | None
    path: str
    value: str | None
    problem: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        setting = self.path if self.value is None else f"{self.path} = {self.value}"
        return f"{place}: {setting}: {self.problem}" if setting else f"{place}: {self.problem}"


class FleetError(ClockError):
    """A fleet cannot be run as its files say. The message has a line for each problem.

    Attributes:
        problems: all mistakes that were found.
    """

    def __init__(self, problems: Sequence[FleetProblem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class FleetRunningError(ClockError):
    """A fleet of this name runs already, and a second one is refused.

    Attributes:
        fleet: the fleet's name.
        pid: the process id of the running one; None if that is unknown.
    """

    def __init__(self, fleet: str, pid: int | None) -> None:
        process = "" if pid is None else f" in process {pid}"
        super().__init__(
            f"a fleet named {fleet!r} runs already{process}; stop it, or give this one another name"
        )
        self.fleet = fleet
        self.pid = pid


class ControlError(ClockError):
    """A running fleet could not be reached, or did not do what it was asked.

    Attributes:
        kind: why: ``"unknown-worker"``, ``"not-supported"``, ``"timeout"``, ``"wrong-state"``,
            ``"bad-arguments"``, ``"bad-file"``, ``"version"``, ``"busy"``, ``"failed"``,
            ``"not-running"``, ``"no-answer"``, or another one of a newer version.
        problem: what is wrong.
    """

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(problem)
        self.kind = kind
        self.problem = problem


class HookError(ClockError, TypeError):
    """A hook of a processor cannot work as it is defined, or a name is a misspelt hook or setting.

    Attributes:
        processor: the name of the processor's class.
        attribute: the name of the hook or attribute.
    """

    def __init__(self, processor: str, attribute: str, problem: str) -> None:
        super().__init__(problem)
        self.processor = processor
        self.attribute = attribute


class TransportError(ClockError):
    """An address cannot be used.

    Attributes:
        address: the address, such as ``"tcp://127.0.0.1:5555"``.
    """

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(f"{address}: {problem}")
        self.address = address


class TransferError(ClockError):
    """A processor cannot be sent to a worker process.

    Attributes:
        processor: the name of its type.
        attribute: the path to what cannot be sent, such as ``"client._lock"``, or None if no single
            object is to blame.
    """

    def __init__(
        self,
        processor: str,
        attribute: str | None,
        problem: str,
        *,
        where: str | None = None,
        remedy: str | None = None,
    ) -> None:
        if where is None:
            where = processor if attribute is None else f"{processor}.{attribute}"
        if remedy is None:
            remedy = (
                "Create it in start() or start_network(), which run in the worker. Or create the "
                'whole processor in the worker: add ProcessorSpec(target="package.module:Class", '
                "options={...}); the target may also be a function"
            )
        super().__init__(f"{where} cannot be sent to a worker process: {problem}. {remedy}.")
        self.processor = processor
        self.attribute = attribute


class WorkerError(ClockError):
    """A worker cannot do what was requested.

    Attributes:
        worker: the worker's name.
    """

    def __init__(self, worker: str, problem: str) -> None:
        super().__init__(f"worker {worker!r}: {problem}")
        self.worker = worker


class CallError(WorkerError):
    """A call of a worker's method has no result.

    What the method itself raised is a `RemoteError`.

    Attributes:
        worker: the name of the worker that was called.
        method: the name of the method.
    """

    def __init__(self, worker: str, method: str, problem: str) -> None:
        super().__init__(worker, f"call of {method!r}: {problem}")
        self.method = method


class NotRemoteError(CallError, AttributeError):
    """There is no such method, or it is not marked with ``@remote``. Nothing ran."""


class CallValueError(CallError, TypeError):
    """The arguments do not fit the method, or msgspec cannot encode them or the result."""


class CallTooLargeError(CallValueError):
    """The arguments or the result are too large for a call."""


class WorkerUnavailableError(CallError):
    """The worker cannot be called now, or its process ended first. The method did not run."""


class CallLostError(CallError):
    """The worker's process ended before it answered. The method may have run."""


class CallTimeoutError(CallError, TimeoutError):
    """There was no answer in time. The method may have run, unless the message says otherwise."""


class AttributeNotSetError(WorkerError, AttributeError):
    """An attribute was set on the owner's object of a running worker, which would not get it.

    Attributes:
        worker: the worker's name.
        attribute: the attribute's name.
    """

    def __init__(self, worker: str, attribute: str, problem: str) -> None:
        super().__init__(worker, problem)
        self.attribute = attribute


class SnapshotError(ClockError):
    """A snapshot of a processor cannot be taken, kept or restored.

    Attributes:
        processor: the name of the processor's class, or the name of its worker.
    """

    def __init__(self, processor: str, problem: str) -> None:
        super().__init__(f"{processor}: {problem}")
        self.processor = processor


class OutputError(ClockError):
    """An output cannot be emitted.

    Attributes:
        processor: the name of the processor's class.
        topic: the topic.
    """

    def __init__(self, processor: str, topic: object, problem: str) -> None:
        super().__init__(f"{processor}.emit(…, topic={topic!r}): {problem}")
        self.processor = processor
        self.topic = topic


class OutputsFull(OutputError):
    """The worker's buffer of outputs is full, and its clock does not let it drop any."""


class MessageError(ClockError):
    """A processor cannot subscribe, or a message for it cannot be decoded.

    Attributes:
        processor: the name of the processor's class.
        topic: the topic or pattern.
    """

    def __init__(self, processor: str, topic: object, problem: str) -> None:
        super().__init__(f"{processor}, topic {topic!r}: {problem}")
        self.processor = processor
        self.topic = topic


class RetryAfter(ClockError):
    """Raised by a hook of a `NetworkProcessor`: the next attempt is to be made after a time.

    For instance, a server that answers 429 or 503 has named one. The connection counts as lost.
    Only ``handle.reconnect()`` shortens the wait, and only a longer one or a `PermanentFailure`
    replaces it. A new process of the worker knows nothing of it, and connects at once.

    Args:
        seconds: until the next attempt, from now on; at least 0.
        reason: to show beside the status.

    Raises:
        ConfigError: ``seconds`` is not a number, not finite or negative.
    """

    def __init__(self, seconds: float, reason: str | None = None) -> None:
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not is_number or not 0.0 <= seconds < math.inf:
            problem = "must be a number of seconds, at least 0 and finite"
            raise ConfigError(type(self).__name__, "seconds", seconds, problem)
        super().__init__(seconds, reason)
        self.seconds = float(seconds)
        self.reason = reason

    def __str__(self) -> str:
        wait = f"retry after {self.seconds:g} s"
        return wait if self.reason is None else f"{wait}: {self.reason}"


class PermanentFailure(ClockError):
    """Raised by a hook of a `NetworkProcessor`: another attempt would fail as well.

    For instance, a key is wrong or was revoked. The status is ERROR and no further attempt is made,
    until ``handle.reconnect()``, ``retry_permanent_after``, or a new process of the worker.

    Args:
        reason: to show beside the status.
    """

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(*([] if reason is None else [reason]))
        self.reason = reason
