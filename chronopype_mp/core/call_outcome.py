"""What travels for a call of a method: its arguments, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from chronopype_mp.core.error_kinds import error_like, kind_like
from chronopype_mp.core.error_text import message_of, name_of, path_of, shortened, traceback_of
from chronopype_mp.core.messages import Outcome
from chronopype_mp.exceptions import (
    CallError,
    CallLostError,
    CallTimeoutError,
    CallTooLargeError,
    CallValueError,
    NotRemoteError,
    RemoteError,
    WorkerUnavailableError,
)

__all__ = [
    "DEFAULT_TIMEOUT",
    "IN_FLIGHT",
    "MAX_BODY",
    "answered",
    "converted",
    "failed",
    "pack_arguments",
    "raised",
    "result_of",
    "unpack_arguments",
]

DEFAULT_TIMEOUT = 5.0
"""Seconds that a caller waits for the answer."""

IN_FLIGHT = 16
"""Calls that a worker is sent, and calls of its own that it sends, before the first is answered.
Commands that are not acknowledged are repeated, so there must be few of them."""

MAX_BODY = 100_000
"""Bytes of the arguments, or of the result, in msgpack; less than a frame."""

LONGEST_PROBLEM = 2000

KINDS: dict[str, type[CallError]] = {
    kind.__name__: kind
    for kind in (
        CallError,
        CallLostError,
        CallTimeoutError,
        CallTooLargeError,
        CallValueError,
        NotRemoteError,
        WorkerUnavailableError,
    )
}

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def pack_arguments(
    worker: str, method: str, args: Sequence[object], kwargs: Mapping[str, object]
) -> bytes:
    """Return the arguments of a call in msgpack.

    Raises:
        CallValueError: msgspec cannot encode one of them. It is named.
        CallTooLargeError: they are too large.
    """
    try:
        body = _encode((args, kwargs))
    except Exception as error:  # the encoder runs code of the user's types
        named = {**{str(number): value for number, value in enumerate(args, 1)}, **kwargs}
        raise CallValueError(worker, method, _unsendable(named, error)) from error
    _check_size(worker, method, "the arguments have", len(body) + len(method.encode()))
    return body


def unpack_arguments(body: bytes) -> tuple[list[Any], dict[str, Any]]:
    """Return what `pack_arguments` took, as plain values."""
    args, kwargs = _decode(body)
    return args, kwargs


def _unsendable(named: Mapping[str, object], error: Exception) -> str:
    for name, value in named.items():
        try:
            _encode(value)
        except Exception as cause:
            error, kind = cause, name_of(type(value))
            return f"argument {name} of type {kind} cannot be sent: {message_of(error)}"
    return f"the arguments cannot be sent: {message_of(error)}"


def _check_size(worker: str, method: str, what: str, size: int) -> None:
    if size > MAX_BODY:
        raise CallTooLargeError(
            worker,
            method,
            f"{what} {size:,} bytes in msgpack, more than {MAX_BODY:,}; send less at a time, or a "
            "path to a file",
        )


def answered(worker: str, method: str, result: object) -> Outcome:
    """Return the outcome of a call whose method returned."""
    try:
        body = _encode(result)
        _check_size(worker, method, "the result has", len(body))
    except CallError as error:
        return failed(error)
    except Exception as error:  # as in `pack_arguments`
        kind = name_of(type(result))
        problem = f"the result of type {kind} cannot be sent: {message_of(error)}"
        return failed(CallValueError(worker, method, problem))
    return Outcome(result=body)


def failed(error: CallError) -> Outcome:
    """Return the outcome of a call that has no result for another reason than its method."""
    message = shortened(str(error), LONGEST_PROBLEM)
    return Outcome(error=type(error).__name__, message=message)


def raised(error: BaseException) -> Outcome:
    """Return the outcome of a call whose method raised."""
    return Outcome(
        error=RemoteError.__name__,
        message=message_of(error),
        type_name=name_of(type(error)),
        type_path=path_of(type(error)),
        traceback=traceback_of(error),
    )


def result_of(outcome: Outcome, worker: str, method: str, declared: object = Any) -> Any:
    """Return the result of a call.

    Args:
        outcome: what became of it.
        worker: the name of the worker that was called.
        method: the method's name.
        declared: the type of the result.

    Raises:
        CallError: there is none.
        RemoteError: the method raised. It is an instance of the original's type, too, if that is
            known here.
    """
    if outcome.error == RemoteError.__name__:
        kind = kind_like(outcome.type_path, RemoteError)
        if issubclass(kind, CallError):
            kind = RemoteError  # it would be taken for what became of this call
        error = error_like(kind, outcome.message, worker, outcome.type_name, outcome.traceback)
        vars(error)["method"] = method
        raise error
    if outcome.error:
        raise _rebuilt(KINDS.get(outcome.error, CallError), worker, method, outcome.message)
    return converted(
        _decode(outcome.result),
        declared,
        lambda problem: CallValueError(worker, method, f"the result {problem}"),
    )


def _rebuilt(kind: type[CallError], worker: str, method: str, message: str) -> CallError:
    error = kind(worker, method, "")
    error.args = (message,)
    return error


def converted(value: object, declared: object, problem: Callable[[str], CallError]) -> Any:
    """Return a plain value as the declared type.

    Args:
        value: what msgpack yields.
        declared: the type, such as ``list[Order]``.
        problem: makes the error from the rest of a sentence.

    Raises:
        CallError: it is not of that type.
    """
    if declared is Any or declared is object:
        return value
    try:
        return msgspec.convert(value, declared)
    except Exception as error:  # the type may be a user's
        kind = getattr(declared, "__name__", None) or declared
        raise problem(f"is not {kind}: {message_of(error)}") from error
