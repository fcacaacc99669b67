"""Whatever a file holds, it is a fleet or has problems that name its lines."""

from __future__ import annotations

import json
import tempfile
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from chronopype_mp import ClockConfig, Limits, Resources, Supervision
from chronopype_mp.exceptions import FleetError, FleetProblem
from chronopype_mp.fleet import load_fleet
from chronopype_mp.fleet.schema import Dependency, FleetFile, ProcessorEntry

KINDS = (FleetFile, ProcessorEntry, Dependency, ClockConfig, Supervision, Limits, Resources)
NAMES = sorted({field.name for kind in KINDS for field in msgspec.structs.fields(kind)})
TEXTS = (
    *("", "a", "b-{item}", "5s", "json", "no.such", "a\n", "é", "realtime", "ready", "spawn"),
    *("${X}", "${SET}", "${SET:-", "$${", "${file:/}", '[{ name = "a" }]', "{ a = 1 }"),
    *(f"tests.fleet.processors:{name}" for name in ("Plain", "Feed", "made", "Nope")),
)
keys = st.sampled_from([*NAMES, "url", "x y", "NOFILE"])
scalars = st.sampled_from(TEXTS) | st.integers(-1, 3) | st.booleans() | st.floats(-1, 1)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
entries = st.fixed_dictionaries(
    {"name": st.sampled_from(("a", "b", "c-{item}")), "type": st.sampled_from(TEXTS[-4:])},
    optional={
        field.name: values
        for field in msgspec.structs.fields(ProcessorEntry)
        if field.name not in ("name", "type")
    },
)


def written(value: Any) -> str:
    """Return a value as TOML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(NAMES), values, max_size=3),
            st.lists(entries | values, max_size=3),
        ),
        min_size=1,
        max_size=2,
    ),
    st.dictionaries(
        st.sampled_from(["CLOCK", "CLOCK__TICK_SIZE", "PRELOAD", "SUPERVISION__LIMITS", "", "X__"]),
        st.sampled_from(TEXTS),
        max_size=2,
    ),
)
def test_any_file_is_a_fleet_or_has_problems(
    documents: list[tuple[dict[str, Any], list[Any]]], overrides: dict[str, str]
) -> None:
    """Nothing else comes out, whatever is merged with whatever."""
    variables = {f"CHRONOPYPE_MP__{name}": text for name, text in overrides.items()}
    with tempfile.TemporaryDirectory() as directory:
        files = []
        for number, (table, processors) in enumerate(documents):
            content = {**table, "processor": processors}
            lines = [f"{json.dumps(name)} = {written(value)}" for name, value in content.items()]
            files.append(f"{directory}/{number}.toml")
            with open(files[-1], "w", encoding="utf-8") as file:
                file.write("\n".join(lines))
        found: tuple[FleetProblem, ...] = ()
        try:
            assert load_fleet(files, {"SET": "set-by-a-variable", **variables}).workers
        except FleetError as error:
            found = error.problems
    for problem in found:
        assert (problem.line is None) == (problem.file in variables), problem
        assert problem.problem
        assert "set-by-a-variable" not in str(problem)
