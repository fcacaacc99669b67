"""Fleet files become the settings that a program would have given."""

from __future__ import annotations

import importlib.resources
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chronopype_mp import (
    BackoffPolicy,
    ClockConfig,
    ClockMode,
    ConfigError,
    GroupStrategy,
    Limits,
    RestartBudget,
    RestartType,
    Supervision,
)
from chronopype_mp.exceptions import FleetError
from chronopype_mp.fleet import FleetPlan, load_fleet
from chronopype_mp.fleet.schema import FleetFile, ProcessorEntry, json_schema
from chronopype_mp.fleet.targets import arguments_of, find
from tests.fleet.processors import Key, QuoteOptions, Tls

Load = Callable[..., FleetPlan]

FEED = 'type = "tests.fleet.processors:Feed"\noptions = { url = "x" }\n'
ONE = f'[[processor]]\nname = "a"\n{FEED}'


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads fleet files with these texts, and variables."""

    def load_them(*texts: str, **variables: str) -> FleetPlan:
        files = [tmp_path / f"{number}.toml" for number in range(len(texts))]
        for file, text in zip(files, texts, strict=True):
            file.write_text(text)
        return load_fleet(files, variables)

    return load_them


def test_a_file_sets_what_it_names(load: Load) -> None:
    """The rest has the defaults of the structs, also within tables."""
    plan = load(
        'name = "f"\nstagger = "250ms"\n'
        '[clock]\ntick_size = "200ms"\non_error = "raise"\n'
        '[groups]\nfeeds = "rest_for_one"\n'
        "[restart_budget]\nmax_restarts = 3\n"
        '[supervision]\nrestart = "transient"\nno_restart_exit_codes = [3]\nstop_grace = 4\n'
        '[supervision.backoff]\nminimum = "1s"\n'
        '[[processor]]\nname = "a"\ngroup = "feeds"\n' + FEED + "[[processor]]\n"
        'name = "b"\ntype = "tests.fleet.processors:made"\noptions = { url = "y" }\n'
        'supervision = { stop_grace = "1m", limits = { max_rss = 5 }, backoff = { factor = 3 } }\n'
    )
    default = Supervision(
        restart=RestartType.TRANSIENT,
        no_restart_exit_codes=(3,),
        stop_grace=4.0,
        backoff=BackoffPolicy(minimum=1.0, maximum=30.0),  # the maximum is Supervision's own
    )
    changed = {
        "stop_grace": 60.0,
        "limits": Limits(max_rss=5),
        "backoff": BackoffPolicy(minimum=1.0, maximum=30.0, factor=3.0),
    }
    settings = plan.settings
    assert settings.name == "f"
    assert settings.stagger == 0.25
    assert settings.clock == ClockConfig(
        clock_mode=ClockMode.REALTIME, tick_size=0.2, on_error="raise"
    )
    assert settings.groups == {"feeds": GroupStrategy.REST_FOR_ONE}
    assert settings.restart_budget == RestartBudget(max_restarts=3)
    assert [worker.name for worker in plan.workers] == ["a", "b"]
    assert [worker.group for worker in plan.workers] == ["feeds", None]
    assert plan.workers[0].supervision == default
    assert plan.workers[1].supervision == default.model_copy(update=changed)
    assert plan.workers[1].spec.build().url == "y"  # type: ignore[attr-defined]


def test_every_setting_of_the_clock_and_of_supervision_can_be_written(load: Load) -> None:
    """Each field with a default, as msgspec writes it in TOML. None cannot be written."""

    def written(settings: msgspec.Struct, *without: str) -> dict[str, Any]:
        values: dict[str, Any] = msgspec.to_builtins(settings)
        return {k: v for k, v in values.items() if v is not None and k not in without}

    config = ClockConfig(clock_mode=ClockMode.REALTIME, stats_window_size=7)
    policy = Supervision(healthy_after=7.0)
    tables = {
        "clock": {**written(config, "clock_mode"), "clock_mode": "realtime"},
        "supervision": {
            **written(policy, "limits", "resources"),
            "limits": written(policy.limits),
            "resources": written(policy.resources),
        },
    }
    text = "".join(
        f"{table}.{name} = {inline(value)}\n"
        for table, values in tables.items()
        for name, value in values.items()
    )
    plan = load(text + ONE)
    assert plan.settings.clock == config
    assert plan.settings.supervision == policy


def inline(value: object) -> str:
    """Return a value as TOML; JSON has the same scalars and arrays."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {inline(child)}" for name, child in value.items()) + "}"
    return json.dumps(value)


def test_options_have_the_types_of_the_arguments(load: Load) -> None:
    """Numbers, tuples, structs and paths; without annotations, what TOML has."""
    plan = load(
        '[[processor]]\nname = "a"\ntype = "tests.fleet.processors:Feed"\n[processor.options]\n'
        'url = "x"\ntimeout = 2\nsymbols = ["BTC", "ETH"]\ntls = { ca = "file" }\n'
        '[[processor]]\nname = "b"\ntype = "tests.fleet.processors:WithPath"\n'
        'options = { path = "notes" }\n'
        '[[processor]]\nname = "c"\ntype = "tests.fleet.processors:takes_anything"\n'
        "options = { x = [1, { y = 1979-05-27 }] }\n"
    )
    first, second, third = (worker.spec.options for worker in plan.workers)
    assert first == {"url": "x", "timeout": 2.0, "symbols": ("BTC", "ETH"), "tls": Tls("file")}
    assert isinstance(first["timeout"], float)
    assert second == {"path": Path("notes")}
    assert str(third) == "{'x': [1, {'y': datetime.date(1979, 5, 27)}]}"


def test_a_struct_may_have_all_options(load: Load) -> None:
    """Of the only argument, ``options``; it is made, with strings of classes of their own."""
    plan = load(
        '[[processor]]\nname = "a"\ntype = "tests.fleet.processors:Quotes"\n'
        'options = { url = "x", key = "${KEY}" }\n'
        '[[processor]]\nname = "b"\ntype = "tests.fleet.processors:MoreQuotes"\n'
        'options = { url = "y" }\n',
        KEY="k",
    )
    first, second = (worker.spec.options for worker in plan.workers)
    assert first == {"options": QuoteOptions("x", Key("k"))}
    assert type(first["options"].key) is Key
    assert second == {"options": QuoteOptions("y")}
    assert arguments_of(find("tests.fleet.processors:MoreQuotes"))[0] == "url: string, required"


def test_one_entry_makes_many_workers(load: Load) -> None:
    """``{item}`` stands for the item in every string. Numbers are read from it."""
    plan = load(
        '[[processor]]\nname = "feed"\ncount = 2\ntype = "tests.fleet.processors:Feed"\n'
        'options = { url = "ws://{item}/", depth = "{item}" }\nenv = { N = "{item}" }\n'
        '[[processor]]\nname = "{item}-book"\nfor_each = ["btc", "eth"]\n'
        'depends_on = [{ name = "feed" }, { name = "feed-1", until = "connected" }]\n' + FEED
    )
    assert [worker.name for worker in plan.workers] == ["feed-1", "feed-2", "btc-book", "eth-book"]
    assert [worker.spec.options for worker in plan.workers[:2]] == [
        {"url": "ws://1/", "depth": 1},
        {"url": "ws://2/", "depth": 2},
    ]
    assert [worker.env for worker in plan.workers] == [{"N": "1"}, {"N": "2"}, {}, {}]
    waits = [[(each.name, each.until) for each in worker.depends_on] for worker in plan.workers]
    last = [("feed-1", "ready"), ("feed-2", "ready"), ("feed-1", "connected")]
    assert waits == [[], [], last, last]


def test_references_are_replaced_and_never_shown(load: Load, tmp_path: Path) -> None:
    """By variables, defaults and files beside the fleet file; numbers are read from them."""
    (tmp_path / "key").write_text("hunter2\n")
    (tmp_path / "a.env").write_text("# comment\n\nexport A=1\nB='${KEY_1}'\nC=x\n")
    plan = load(
        '[[processor]]\nname = "a"\ncount = 1\ntype = "tests.fleet.processors:Feed"\n'
        'options = { url = "${KEY_{item}}/${file:key}/$${x}", depth = "${N:-7}", '
        'symbols = "${SYMBOLS}" }\n'
        'env_file = "a.env"\nenv = { C = "${KEY_1}" }\n',
        KEY_1="${hunter3}",
        SYMBOLS='["BTC"]',
    )
    (worker,) = plan.workers
    assert worker.spec.options == {
        "url": "${hunter3}/hunter2/${x}",
        "depth": 7,
        "symbols": ("BTC",),
    }
    assert worker.env == {"A": "1", "B": "${KEY_1}", "C": "${hunter3}"}
    assert "hunter" not in f"{plan!r} {worker!r} {worker.spec!r} {plan.workers!r}"


def test_later_files_and_variables_override(load: Load) -> None:
    """Variables come last."""
    plan = load(
        "[clock]\ntick_size = 1\nmax_retries = 1\n" + ONE,
        '[clock]\ntick_size = 2\nmax_retries = 2\n[[processor]]\nname = "a"\nenv = { A = "1" }\n',
        CHRONOPYPE_MP__CLOCK__TICK_SIZE="0.5",
        CHRONOPYPE_MP__SUPERVISION__STOP_GRACE="2m",
        CHRONOPYPE_MP__NAME="7",
        CHRONOPYPE_MP__PRELOAD='["json"]',
    )
    assert plan.settings.clock.tick_size == 0.5
    assert plan.settings.clock.max_retries == 2
    assert plan.settings.supervision.stop_grace == 120.0
    assert plan.settings.name == "7"
    assert plan.settings.preload == ("json",)
    assert [worker.env for worker in plan.workers] == [{"A": "1"}]


def test_what_is_wrong_in_an_array_from_text_is_shown_at_the_text(load: Load) -> None:
    """The elements have no places of their own."""
    with pytest.raises(FleetError) as caught:
        load(
            ONE + 'depends_on = "${DEPS}"\n',
            DEPS='[{ name = "b" }]',
            CHRONOPYPE_MP__PRELOAD='["no_such_module"]',
        )
    preload, dependency = caught.value.problems
    assert preload.problem == "there is no such module"
    assert preload.file == "CHRONOPYPE_MP__PRELOAD"
    assert (dependency.path, dependency.value) == ("processor[a].depends_on[0].name", '"${DEPS}"')
    assert (dependency.line, dependency.problem) == (5, "no such worker; known are: a")


def test_there_is_a_file_at_least(load: Load, tmp_path: Path) -> None:
    """One may be given without a list."""
    with pytest.raises(ConfigError, match="must name a file at least"):
        load_fleet([])
    load(ONE)
    assert len(load_fleet(tmp_path / "0.toml", {}).workers) == 1


def test_a_wrong_variable_is_named(load: Load) -> None:
    """With its value, and with what was meant."""
    with pytest.raises(FleetError) as caught:
        load(ONE, CHRONOPYPE_MP__CLOCK__TICK_SISE="1", CHRONOPYPE_MP__CLOCK__TICK_SIZE="soon")
    assert str(caught.value).splitlines() == [
        'CHRONOPYPE_MP__CLOCK__TICK_SISE: clock.tick_sise = "1": no such setting; '
        'did you mean "tick_size"?',
        'CHRONOPYPE_MP__CLOCK__TICK_SIZE: clock.tick_size = "soon": must be seconds, or a '
        'duration such as "250ms", "5s", "2m" or "1h"',
    ]


def test_paths_are_relative_to_their_file(load: Load, tmp_path: Path) -> None:
    """The directory from which a fleet is run does not matter."""
    assert load(f'state_dir = "deaths"\n{ONE}').settings.state_dir == str(tmp_path / "deaths")
    assert load(f'state_dir = "/deaths"\n{ONE}').settings.state_dir == "/deaths"


def test_problems_of_several_files_are_sorted_by_file(load: Load, tmp_path: Path) -> None:
    """A file that cannot be read is one of them."""
    with pytest.raises(FleetError) as caught:
        load_fleet([tmp_path / "none.toml", tmp_path], {})
    assert [problem.problem for problem in caught.value.problems] == [
        "cannot be read: No such file or directory",
        "cannot be read: Is a directory",
    ]
    (tmp_path / "latin.toml").write_bytes('name = "ä"'.encode("latin-1"))
    with pytest.raises(FleetError, match=r"latin\.toml: is not UTF-8 text"):
        load_fleet([tmp_path / "latin.toml"], {})


def test_the_starter_file_is_right_also_with_its_comments_removed(
    load: Load, tmp_path: Path
) -> None:
    """What it shows in comments has no mistake either, apart from names to fill in."""
    text = (importlib.resources.files("chronopype_mp.fleet") / "starter.toml").read_text()
    assert [worker.name for worker in load(text).workers] == ["first"]
    shown = "\n".join(
        line.removeprefix("# ") if " = " in line or line.startswith("# [") else line
        for line in text.splitlines()
    )
    assert shown != text
    shown = shown.replace('"your_module:Feed"', '"tests.fleet.processors:takes_anything"')
    (tmp_path / "key").touch()
    shown = shown.replace("/run/secrets/key", "key")
    plan = load(shown, API_KEY="x")
    assert [worker.name for worker in plan.workers] == ["first", "feed-btc", "feed-eth"]
    assert plan.settings.supervision.budget == RestartBudget(max_restarts=5)
    shutil.rmtree(tmp_path)


def test_the_json_schema_has_every_setting() -> None:
    """It allows no other names, and durations as text."""
    schema = json_schema()
    for kind in (FleetFile, ClockConfig, Supervision, Limits, ProcessorEntry):
        definition = schema["$defs"][kind.__name__]
        assert set(definition["properties"]) == {f.name for f in msgspec.structs.fields(kind)}
        assert definition["additionalProperties"] is False
    clock = schema["$defs"]["ClockConfig"]
    assert clock["properties"]["tick_size"]["type"] == ["number", "string"]
    assert clock["required"] == []
    assert schema["$defs"]["ProcessorEntry"]["required"] == ["name", "type"]
