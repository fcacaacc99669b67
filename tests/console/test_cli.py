"""The command line: valid arguments, and the errors for invalid ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from chronopype_mp import __version__
from chronopype_mp.console import demo, demo_servers
from chronopype_mp.console.cli import main
from chronopype_mp.console.demo_course import DemoError, DemoOptions
from chronopype_mp.console.exit_status import EXIT_INTERRUPTED, EXIT_USAGE
from chronopype_mp.exceptions import ConfigError


@pytest.fixture
def demos(monkeypatch: pytest.MonkeyPatch) -> list[DemoOptions]:
    """The options of the demos that were requested. None of them runs."""
    asked: list[DemoOptions] = []

    def run(options: DemoOptions) -> int:
        asked.append(options)
        return 0

    monkeypatch.setattr(demo, "run", run)
    return asked


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(options: DemoOptions) -> int:
        raise error

    monkeypatch.setattr(demo, "run", run)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` prints the version and exits with 0."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"chronopype-mp {__version__}\n"


def test_no_command_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    """The usage shows the commands."""
    assert main([]) == EXIT_USAGE
    assert "COMMAND" in capsys.readouterr().err


def test_the_demo_runs_30_s_with_ticks_of_100_ms_unless_told_otherwise(
    demos: list[DemoOptions],
) -> None:
    """The options reach the demo."""
    assert main(["demo"]) == 0
    assert main(["demo", "--seconds", "5", "--tick-size", "0.05", "--plain"]) == 0
    assert demos == [
        DemoOptions(seconds=30.0, tick_size=0.1, plain=False),
        DemoOptions(seconds=5.0, tick_size=0.05, plain=True),
    ]


@pytest.mark.parametrize("option", ["--seconds", "--tick-size"])
@pytest.mark.parametrize(
    "value", ["nan", "0", "-1", "-0.5", "-1e3", "inf", "-inf", "-nan", "1e300", "1e-300", "x", ""]
)
def test_a_bad_number_is_turned_down_with_its_option_and_value(
    option: str, value: str, demos: list[DemoOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    """The last line has everything, and there is no traceback."""
    assert main(["demo", option, value]) == EXIT_USAGE
    assert demos == []
    last = capsys.readouterr().err.splitlines()[-1]
    assert option in last
    assert repr(value) in last
    assert "must be a number of seconds" in last


def test_a_tick_size_beyond_the_run_is_turned_down(
    demos: list[DemoOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    """No tick would be due."""
    assert main(["demo", "--seconds", "2", "--tick-size", "3"]) == EXIT_USAGE
    assert demos == []
    last = capsys.readouterr().err.splitlines()[-1]
    assert "--tick-size 3" in last
    assert "--seconds 2" in last


@pytest.mark.parametrize("status", [1, 2])
def test_a_demo_that_cannot_run_says_why_in_one_line(
    status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status is the error's."""
    raising(monkeypatch, DemoError("no such luck", status=status))
    assert main(["demo"]) == status
    assert capsys.readouterr().err == "chronopype-mp demo: no such luck\n"


def test_ctrl_c_is_status_130_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if nothing else catches it."""
    raising(monkeypatch, KeyboardInterrupt())
    assert main(["demo"]) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == "\n"  # after the ^C of the terminal


def test_the_demo_names_the_extra_when_a_dependency_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """aiohttp and websockets are not among the core dependencies."""
    real = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name == "websockets" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert main(["demo"]) == EXIT_USAGE
    assert capsys.readouterr().err == (
        "chronopype-mp demo: needs websockets; install with: pip install 'chronopype-mp[demo]'\n"
    )


def test_the_demo_says_that_it_needs_openssl(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The exchange makes its certificate with it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["demo"]) == EXIT_USAGE
    problem = "needs the command openssl; install it, e.g. with: apt install openssl"
    assert capsys.readouterr().err == f"chronopype-mp demo: {problem}\n"


def test_a_config_error_inside_the_demo_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The framework's error message reaches the user unchanged."""

    class Failing:
        def __init__(self, options: DemoOptions, view: object) -> None:
            raise ConfigError("ClockConfig", "tick_size", options.tick_size, "is not liked")

    monkeypatch.setattr(demo, "find_examples", lambda: None)
    monkeypatch.setattr(demo, "_Demo", Failing)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == (
        "chronopype-mp demo: ClockConfig.tick_size = 0.1: is not liked\n"
    )


def test_the_demo_does_not_run_inline(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of its processors segfaults, which would end the whole program."""
    monkeypatch.setenv("CHRONOPYPE_MP_LAUNCHER", "inline")
    assert main(["demo"]) == EXIT_USAGE
    assert "CHRONOPYPE_MP_LAUNCHER=inline" in capsys.readouterr().err


def test_the_examples_are_found_in_a_package_and_beside_it(tmp_path: Path) -> None:
    """A wheel has them inside the package, a checkout next to it. Inside takes precedence."""
    package = tmp_path / "chronopype_mp"
    inside, beside = package / "examples", tmp_path / "examples"
    package.mkdir()
    with pytest.raises(DemoError):
        demo_servers.examples_directory(package)
    for directory in (beside, inside):
        directory.mkdir()
        (directory / "servers.py").touch()
        assert demo_servers.examples_directory(package) == directory
