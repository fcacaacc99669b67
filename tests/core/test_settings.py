"""Settings structs."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronopype_mp.core.checks import positive
from chronopype_mp.core.settings import Settings
from chronopype_mp.exceptions import ClockError, ConfigError


class Engine(Settings, frozen=True):
    power: int
    gear_ratio: float = 1.0
    tags: list[str] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        positive("Engine", "gear_ratio", self.gear_ratio)


def test_values_are_given_by_name_and_the_rest_are_defaults() -> None:
    engine = Engine(power=3)
    assert (engine.power, engine.gear_ratio, engine.tags) == (3, 1.0, [])


def test_a_misspelt_name_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"Engine\.gear_ration = 2\.0.*mean 'gear_ratio'") as e:
        Engine(power=3, gear_ration=2.0)  # type: ignore[call-arg]
    assert (e.value.owner, e.value.field, e.value.value) == ("Engine", "gear_ration", 2.0)


def test_a_name_like_no_other_is_refused_with_the_list_of_known_ones() -> None:
    with pytest.raises(ConfigError, match="known are: power, gear_ratio, tags"):
        Engine(power=3, zzz=1)  # type: ignore[call-arg]


def test_positional_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="by name"):
        Engine(3)


def test_a_missing_required_value_is_named() -> None:
    with pytest.raises(ConfigError, match=r"Engine\.power = None: must be given"):
        Engine(gear_ratio=2.0)  # type: ignore[call-arg]


def test_a_config_error_is_a_value_error_and_a_clock_error() -> None:
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ConfigError, ClockError)


@pytest.mark.parametrize("name", ["power", "no_such"])
def test_settings_are_frozen(name: str) -> None:
    engine = Engine(power=3)
    with pytest.raises(AttributeError):
        setattr(engine, name, 4)
    assert engine == Engine(power=3)


def test_a_copy_differs_only_in_what_was_updated() -> None:
    engine = Engine(power=3, gear_ratio=2.0)
    copy = engine.model_copy(update={"power": 4})
    assert type(copy) is Engine
    assert (copy.power, copy.gear_ratio) == (4, 2.0)
    assert engine == Engine(power=3, gear_ratio=2.0)
    assert engine.model_copy() == engine


def test_a_copy_is_validated_like_a_new_one() -> None:
    engine = Engine(power=3)
    with pytest.raises(ConfigError, match=r"Engine\.gear_ratio"):
        engine.model_copy(update={"gear_ratio": 0.0})
    with pytest.raises(ConfigError, match="did you mean 'power'"):
        engine.model_copy(update={"powr": 1})


@given(
    st.dictionaries(
        st.text(st.characters(categories=["Ll"]), min_size=1), st.integers(), max_size=4
    )
)
def test_no_name_but_the_known_ones_is_ever_taken(values: dict[str, Any]) -> None:
    unknown = set(values) - {"power", "gear_ratio", "tags"}
    if unknown:
        with pytest.raises(ConfigError) as caught:
            Engine(**{"power": 1, **values})
        assert caught.value.field in unknown


def test_settings_survive_pickling() -> None:
    engine = Engine(power=3, tags=["a"])
    assert pickle.loads(pickle.dumps(engine)) == engine
