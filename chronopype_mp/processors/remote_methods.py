"""Methods of a processor that the owner and other processors may call."""

from __future__ import annotations

import difflib
import functools
import inspect
import typing
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

from chronopype_mp.core.call_outcome import converted, unpack_arguments
from chronopype_mp.exceptions import CallValueError, NotRemoteError

__all__ = ["bound_call", "is_remote", "remote", "result_type"]

F = TypeVar("F", bound=Callable[..., Any])

MARK = "_chronopype_mp_remote"

SIGNATURES_KEPT = 1000


def remote(method: F) -> F:
    """Mark a method of a processor as one that may be called from outside of its worker.

    ::

        class Feed(TickProcessor):
            @remote
            def price(self, symbol: str) -> float: ...

    ``await handle.call("price", "BTC")`` and, in other processors, ``await self.call("feed",
    "price", "BTC")`` call it. The method may be ``async def``. It runs between two ticks: one tick
    or call runs at a time. It is cancelled when the caller's timeout is over. What msgspec encodes
    may be an argument or the result. The annotations of the parameters say as what the arguments
    arrive, for instance as a dataclass or a msgspec Struct.

    Args:
        method: a function defined in the class of a processor. An override needs its own mark.

    Returns:
        The same function.

    Raises:
        TypeError: it is not a function, or a generator.
    """
    if not isinstance(method, FunctionType):
        raise TypeError(
            f"@remote marks a method that is defined with def or async def, not {method!r}; put it "
            "directly above such a method"
        )
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        raise TypeError(f"{method.__qualname__} contains `yield`; @remote needs one that returns")
    setattr(method, MARK, True)
    return method


def is_remote(value: object) -> bool:
    """Whether a value in the namespace of a class is a method marked with `remote`."""
    return isinstance(value, FunctionType) and getattr(value, MARK, False)


def bound_call(
    processor: object, worker: str, method: str, arguments: bytes
) -> Callable[[], object]:
    """Return a call of a method of a processor, with its arguments.

    Args:
        processor: whose method to call.
        worker: its name, for errors.
        method: the method's name.
        arguments: of the call, in msgpack.

    Raises:
        NotRemoteError: it is not a remote method.
        CallValueError: the arguments do not fit its parameters.
    """
    function = _function(type(processor), worker, method)
    args, kwargs = unpack_arguments(arguments)
    signature = inspect.signature(function)
    try:
        bound = signature.bind(processor, *args, **kwargs)
    except TypeError as error:
        parameters = list(signature.parameters.values())[1:]
        problem = f"{error}; it takes {signature.replace(parameters=parameters)}"
        raise CallValueError(worker, method, problem) from error
    hints = _hints(function, worker, method)
    for parameter in list(signature.parameters.values())[1:]:
        name = parameter.name
        if name not in bound.arguments or name not in hints:
            continue
        wrong = functools.partial(_wrong_argument, worker, method, name)
        declared, value = hints[name], bound.arguments[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            bound.arguments[name] = tuple(converted(each, declared, wrong) for each in value)
        elif parameter.kind is parameter.VAR_KEYWORD:
            bound.arguments[name] = {
                key: converted(each, declared, wrong) for key, each in value.items()
            }
        else:
            bound.arguments[name] = converted(value, declared, wrong)
    return functools.partial(function, *bound.args, **bound.kwargs)


def _wrong_argument(worker: str, method: str, name: str, problem: str) -> CallValueError:
    return CallValueError(worker, method, f"argument {name} {problem}")


def result_type(kind: type, worker: str, method: str) -> object:
    """Return the declared type of a remote method's result; `Any` if there is none.

    Raises:
        CallValueError: the annotations cannot be resolved.
    """
    function = inspect.getattr_static(kind, method, None)
    if not is_remote(function):
        return Any
    return _hints(typing.cast(FunctionType, function), worker, method).get("return", Any)


def _function(kind: type, worker: str, method: str) -> FunctionType:
    function = inspect.getattr_static(kind, method, None)
    if is_remote(function):
        return typing.cast(FunctionType, function)
    place = f"{kind.__name__}.{method}"
    if isinstance(function, FunctionType):
        problem = f"{place} is not marked; put @remote above its definition"
        raise NotRemoteError(worker, method, problem)
    names = [name for name in dir(kind) if is_remote(inspect.getattr_static(kind, name, None))]
    near = difflib.get_close_matches(method, names, n=1)
    known = f"its remote methods: {', '.join(names)}" if names else "it has no remote method"
    hint = f"did you mean {near[0]}?" if near else known
    raise NotRemoteError(worker, method, f"{kind.__name__} has no such method; {hint}")


@functools.lru_cache(maxsize=SIGNATURES_KEPT)
def _resolved(function: FunctionType) -> dict[str, Any]:
    return typing.get_type_hints(function, include_extras=True)


def _hints(function: FunctionType, worker: str, method: str) -> dict[str, Any]:
    """Return the annotations of a function.

    Raises:
        CallValueError: they cannot be resolved.
    """
    try:
        return _resolved(function)
    except Exception as error:  # an annotation is an expression of the user's
        problem = (
            f"an annotation of {function.__qualname__} cannot be resolved: {error}; define its "
            "type in the module, not below `if TYPE_CHECKING`"
        )
        raise CallValueError(worker, method, problem) from error
