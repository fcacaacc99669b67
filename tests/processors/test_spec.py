"""ProcessorSpec: how to make a processor in the worker."""

from __future__ import annotations

import functools

import msgspec
import pytest

from chronopype_mp.exceptions import ConfigError
from chronopype_mp.processors import ProcessorSpec, TickProcessor


class Counter(TickProcessor):
    class Inner(TickProcessor):
        pass

    def __init__(self, start: int = 0) -> None:
        super().__init__()
        self.count = start


def make_counter(start: int) -> Counter:
    return Counter(start + 100)


def make_nothing() -> None:
    return None


def test_an_import_string_is_imported_and_called_with_the_options() -> None:
    made = ProcessorSpec(target=f"{__name__}:Counter", options={"start": 3}).build()
    assert type(made) is Counter
    assert made.count == 3


def test_an_import_string_may_name_a_nested_class() -> None:
    spec = ProcessorSpec(target=f"{__name__}:Counter.Inner")
    assert type(spec.build()) is Counter.Inner
    assert spec.default_name == "Inner"


def test_a_function_is_as_good_as_a_class() -> None:
    spec = ProcessorSpec(target=make_counter, options={"start": 1})
    made = spec.build()
    assert isinstance(made, Counter)
    assert made.count == 101
    assert spec.default_name == "make_counter"


def test_every_build_makes_a_new_processor() -> None:
    spec = ProcessorSpec(target=Counter)
    assert spec.build() is not spec.build()


def test_the_default_name_of_a_nameless_callable_is_its_types() -> None:
    assert ProcessorSpec(target=functools.partial(Counter, 3)).default_name == "partial"


def test_making_a_spec_imports_nothing() -> None:
    spec = ProcessorSpec(target="no_such_module.at_all:Class")
    with pytest.raises(ModuleNotFoundError):
        spec.build()


def test_a_target_that_makes_no_processor_is_refused_when_built() -> None:
    with pytest.raises(TypeError, match="returned None; it must return a TickProcessor"):
        ProcessorSpec(target=make_nothing).build()  # type: ignore[arg-type]


def test_what_the_target_raises_comes_out_as_it_is() -> None:
    with pytest.raises(TypeError, match="unexpected keyword"):
        ProcessorSpec(target=Counter, options={"no_such": 1}).build()
    with pytest.raises(AttributeError, match="NoSuch"):
        ProcessorSpec(target=f"{__name__}:NoSuch").build()


@pytest.mark.parametrize(
    "target", ["", "module", "module:", ":Class", "a b:Class", "module:Class()", "a..b:C", 3, None]
)
def test_a_target_that_cannot_be_one_is_refused_at_once(target: object) -> None:
    with pytest.raises(ConfigError, match=r"ProcessorSpec\.target"):
        ProcessorSpec(target=target)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [[], {"not a name": 1}, {1: 2}, None])
def test_options_that_are_no_keyword_arguments_are_refused(options: object) -> None:
    with pytest.raises(ConfigError, match=r"ProcessorSpec\.options"):
        ProcessorSpec(target=Counter, options=options)  # type: ignore[arg-type]


def test_two_specs_do_not_share_their_default_options() -> None:
    one, other = ProcessorSpec(target=Counter), ProcessorSpec(target=Counter)
    assert one.options is not other.options
    with pytest.raises(AttributeError):
        one.target = "a:B"  # type: ignore[misc]
    assert isinstance(one, msgspec.Struct)


def test_the_repr_names_the_options_without_their_values() -> None:
    """They may be secrets, and a spec is shown in errors and logs."""
    spec = ProcessorSpec(target="a.b:C", options={"url": "x", "key": "hunter2"})
    assert repr(spec) == "ProcessorSpec(target='a.b:C', options=<url, key>)"
