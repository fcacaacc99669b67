"""What a worker process sets for itself."""

from __future__ import annotations

import pytest

from chronopype_mp.core.resources import RLIMITS, Resources
from chronopype_mp.exceptions import ConfigError


def test_the_defaults_change_nothing() -> None:
    resources = Resources()
    assert (resources.nice, resources.cpu_affinity, resources.rlimits) == (0, None, {})


def test_cores_may_come_as_a_list_and_are_a_tuple() -> None:
    assert Resources(cpu_affinity=[0, 2]).cpu_affinity == (0, 2)  # type: ignore[arg-type]


def test_cores_may_be_left_to_the_clock_to_spread() -> None:
    assert Resources(cpu_affinity="spread").cpu_affinity == "spread"


@pytest.mark.parametrize("name", sorted(RLIMITS))
def test_every_known_limit_can_be_set_even_to_nothing(name: str) -> None:
    assert Resources(rlimits={name: 0}).rlimits == {name: 0}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nice", -1),
        ("nice", 20),
        ("nice", 1.5),
        ("cpu_affinity", "all"),
        ("cpu_affinity", 0),
        ("cpu_affinity", ()),
        ("cpu_affinity", (-1,)),
        ("cpu_affinity", ("0",)),
        ("rlimits", {"NOFILES": 3}),
        ("rlimits", {"RLIMIT_NOFILE": 3}),
        ("rlimits", {"NOFILE": -1}),
        ("rlimits", {"NOFILE": 2.5}),
        ("rlimits", 5),
    ],
)
def test_a_resource_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"Resources\.{field}"):
        Resources(**{field: value})  # type: ignore[arg-type]


def test_an_unknown_limit_is_told_which_there_are() -> None:
    with pytest.raises(ConfigError, match="NOFILE"):
        Resources(rlimits={"FILES": 3})
