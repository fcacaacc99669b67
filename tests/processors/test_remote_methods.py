"""Which methods may be called, and with what."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest

from chronopype_mp.core.call_outcome import pack_arguments
from chronopype_mp.exceptions import CallError, CallValueError, NotRemoteError
from chronopype_mp.processors import TickProcessor, remote
from chronopype_mp.processors.remote_methods import bound_call, result_type

if TYPE_CHECKING:
    from decimal import Decimal


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return "traced", function(*args, **kwargs)

    return wrapper


class Base(TickProcessor):
    shadowed = 1

    @remote
    def kept(self) -> str:
        return "base"

    @remote
    def replaced(self) -> str:
        return "base"


class Derived(Base):
    def __init__(self) -> None:
        super().__init__()
        vars(self)["kept"] = "an attribute of the object"

    def replaced(self) -> str:
        return "derived"

    @remote
    def at_least_one(self, count: Annotated[int, msgspec.Meta(ge=1)], /, **sizes: float) -> object:
        return count, sizes

    @traced
    @remote
    def decorated(self, number: int) -> int:
        return number

    @remote
    def unresolved(self, price: Decimal) -> None: ...


def called(method: str, *args: object, **kwargs: object) -> object:
    return bound_call(Derived(), "a", method, pack_arguments("a", method, args, kwargs))()


def test_a_method_is_found_in_the_class_also_of_a_base_and_behind_a_decorator() -> None:
    assert called("kept") == "base"
    assert called("decorated", 3) == ("traced", 3)
    assert called("at_least_one", 2, x=1) == (2, {"x": 1.0})
    assert result_type(Derived, "a", "kept") is str
    assert result_type(Derived, "a", "nothing") is Any


@pytest.mark.parametrize(
    ("method", "args", "kind", "message"),
    [
        ("replaced", (), NotRemoteError, "Derived.replaced is not marked; put @remote above its"),
        ("shadowed", (), NotRemoteError, "Derived has no such method; its remote methods: at_leas"),
        ("__init__", (), NotRemoteError, "Derived.__init__ is not marked"),
        ("tick", (1.0,), NotRemoteError, "Derived.tick is not marked"),
        ("at_least_one", (0,), CallValueError, "argument count is not .*Expected `int` >= 1"),
        ("at_least_one", (1, 2), CallValueError, r"too many .*takes \(count: .*, /, \*\*sizes"),
        ("unresolved", (1,), CallValueError, "annotation of Derived.unresolved cannot be resolved"),
    ],
)
def test_what_is_wrong_with_a_call_is_named(
    method: str, args: tuple[object, ...], kind: type[CallError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        called(method, *args)


def test_only_functions_that_return_can_be_marked() -> None:
    def numbers(self: object) -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="contains `yield`; @remote needs one that returns"):
        remote(numbers)
    with pytest.raises(TypeError, match="not <staticmethod"):
        remote(staticmethod(len))
