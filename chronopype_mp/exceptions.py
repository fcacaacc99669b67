"""The whole error tree. What an error knows is in its attributes, not only in its message."""

from __future__ import annotations

__all__ = [
    "ClockContextError",
    "ClockError",
    "ClockRuntimeError",
    "ConfigError",
    "ProcessorError",
    "ProcessorTimeoutError",
    "TransferError",
    "TransportError",
    "WorkerError",
]


class ClockError(Exception):
    """Base of every error that chronopype_mp raises."""


class ClockContextError(ClockError):
    """The clock was entered twice, or used outside its context."""


class ClockRuntimeError(ClockError):
    """A runtime was asked for something its clock cannot do."""


class ProcessorError(ClockError):
    """A processor failed in its worker. Prints like the exception it stands for.

    Nothing that comes from a socket is unpickled, so the exception itself stays in the worker.

    Attributes:
        worker: the worker's name.
        type_name: the exception's type.
        message: what the exception said.
        traceback: as printed in the worker.
    """

    def __init__(
        self, message: str, *, worker: str = "", type_name: str = "", traceback: str = ""
    ) -> None:
        super().__init__(message)
        self.worker = worker
        self.type_name = type_name
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        if not self.traceback:
            return self.message
        return f"{self.type_name}: {self.message}\n\nin worker {self.worker!r}:\n{self.traceback}"


class ProcessorTimeoutError(ProcessorError):
    """A processor's tick took longer than ``processor_timeout``."""


class ConfigError(ClockError, ValueError):
    """A setting is unknown or out of range.

    Attributes:
        owner: the settings' name, such as ``"ClockConfig"``.
        field: the setting's name.
        value: what was given.
    """

    def __init__(self, owner: str, field: str, value: object, problem: str) -> None:
        super().__init__(f"{owner}.{field} = {value!r}: {problem}")
        self.owner = owner
        self.field = field
        self.value = value


class TransportError(ClockError):
    """An address cannot be used.

    Attributes:
        address: which.
    """

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(f"{address}: {problem}")
        self.address = address


class TransferError(ClockError):
    """A processor cannot travel to a worker process.

    Attributes:
        processor: its type's name.
        attribute: the attribute that stops it, or None if none of them alone does.
    """

    def __init__(self, processor: str, attribute: str | None, problem: str) -> None:
        where = processor if attribute is None else f"{processor}.{attribute}"
        super().__init__(
            f"{where} cannot travel to a worker process: {problem}. Make it in start() or "
            "start_network(), which run in the worker, or add the processor as "
            'ProcessorSpec(target="package.module:Class", options={...}) or with a function as '
            "target, so that it is made in the worker."
        )
        self.processor = processor
        self.attribute = attribute


class WorkerError(ClockError):
    """A worker cannot do what it was asked.

    Attributes:
        worker: its name.
    """

    def __init__(self, worker: str, problem: str) -> None:
        super().__init__(f"worker {worker!r}: {problem}")
        self.worker = worker
