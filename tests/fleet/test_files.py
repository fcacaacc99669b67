"""Changing a running fleet by its files. Its workers run inline."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from chronopype_mp.exceptions import FleetError
from chronopype_mp.fleet import Changes, RunningFleet
from chronopype_mp.fleet.files import FleetFiles
from chronopype_mp.fleet.plan import plan_of, read_files
from tests.waiting import run

KIND = '"chronopype_mp.processors.base:TickProcessor"'

FLEET = f"""
launcher = "inline"
[supervision]
stop_grace = 7
[[processor]]
name = "a"
type = {KIND}
[[processor]]
name = "b"
type = {KIND}
depends_on = [{{ name = "a" }}]
"""


def entry(name: str, more: str = "") -> str:
    return f'[[processor]]\nname = "{name}"\ntype = {KIND}\n{more}\n'


class Bench:
    """A running fleet of one file.

    Attributes:
        file: its path.
        fleet: the fleet.
        files: changes it.
        said: what the changes have told, begin and end.
    """

    def __init__(self, directory: Path) -> None:
        self.file = directory / "fleet.toml"
        self.file.write_text(FLEET)
        tree = read_files(self.file)
        self.said: list[str] = []
        self.fleet = RunningFleet(plan_of(tree))
        self.files = FleetFiles(
            [str(self.file)],
            tree,
            self.fleet,
            lambda: self.said.append("begin"),
            lambda: self.said.append("end"),
        )

    @property
    def names(self) -> list[str]:
        return [handle.name for handle in self.fleet.clock.workers]

    def other(self, text: str) -> str:
        path = self.file.with_name("other.toml")
        path.write_text(text)
        return str(path)


@contextlib.asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Bench]:
    bench = Bench(directory)
    stop = asyncio.Event()
    task = asyncio.create_task(bench.fleet.run(stop))
    try:
        async with asyncio.timeout(10):
            await bench.fleet.wait_settled()
        yield bench
    finally:
        await bench.files.close()
        stop.set()
        await task


def on_bench(scenario: Callable[[Bench], Coroutine[Any, Any, None]], directory: Path) -> None:
    async def whole() -> None:
        async with running(directory) as bench:
            await scenario(bench)

    run(whole())


def test_a_preview_changes_nothing_and_a_reload_does_it(tmp_path: Path) -> None:
    """Of the file as it is now."""

    async def scenario(bench: Bench) -> None:
        bench.file.write_text(FLEET.replace('"b"', '"c"'))
        wanted = Changes(start=("c",), stop=("b",))
        assert await bench.files.preview() == wanted
        assert (bench.names, bench.said) == (["a", "b"], [])
        assert await bench.files.reload() == wanted
        assert (bench.names, bench.said) == (["a", "c"], ["begin", "end"])
        assert await bench.files.reload() == Changes()

    on_bench(scenario, tmp_path)


def test_what_is_added_has_the_settings_that_run_until_the_next_reload(tmp_path: Path) -> None:
    """Not those of a file that was edited meanwhile."""

    async def scenario(bench: Bench) -> None:
        bench.file.write_text("this is no TOML")
        other = bench.other(entry("new", 'depends_on = [{ name = "b" }]'))
        assert await bench.files.add(other, save=False) == Changes(start=("new",))
        assert bench.names == ["a", "b", "new"]
        assert bench.fleet.plan.workers[-1].supervision.stop_grace == 7.0
        bench.file.write_text(FLEET)
        assert await bench.files.reload() == Changes(stop=("new",))

    on_bench(scenario, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (entry("a"), r'other.toml:2: processor\[a\].name = "a": the worker "a" runs already'),
        (
            "stagger = 1\n" + entry("x"),
            r"other.toml:1: stagger: .* may have \[\[processor\]\] only",
        ),
        ("", r"there is no \[\[processor\]\]"),
        (entry("x", 'depends_on = [{ name = "aa" }]'), r'did you mean "a"'),
        ("x = ", r"other.toml:1: is not valid TOML"),
    ],
)
def test_a_wrong_file_adds_nothing(tmp_path: Path, text: str, message: str) -> None:
    """It says what and where."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(FleetError, match=message):
            await bench.files.add(bench.other(text), save=False)
        assert bench.names == ["a", "b"]

    on_bench(scenario, tmp_path)


def test_what_is_removed_comes_back_with_a_reload(tmp_path: Path) -> None:
    """A worker on which another one depends cannot be removed alone."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(FleetError, match=r'processor\[b\]: depends on "a"; remove it, too'):
            await bench.files.remove(["a"], save=False)
        assert await bench.files.remove(["a", "b"], save=False) == Changes(stop=("a", "b"))
        assert bench.names == []
        assert await bench.files.reload() == Changes(start=("a", "b"))

    on_bench(scenario, tmp_path)


def test_what_is_saved_stays(tmp_path: Path) -> None:
    """In the file as it is, with what was edited there meanwhile."""

    async def scenario(bench: Bench) -> None:
        await bench.files.add(bench.other(entry("unsaved")), save=False)
        edited = FLEET + entry("edited")
        bench.file.write_text(edited)
        await bench.files.add(bench.other(entry("new")), save=True)
        assert bench.names == ["a", "b", "unsaved", "new"]
        assert bench.file.read_text() == edited.rstrip() + "\n\n" + entry("new").strip() + "\n"
        await bench.files.remove(["b"], save=True)
        assert [w.name for w in plan_of(read_files(bench.file)).workers] == ["a", "edited", "new"]
        changes = await bench.files.reload()
        assert changes == Changes(stop=("unsaved",), start=("edited",))

    on_bench(scenario, tmp_path)


def test_what_cannot_be_saved_is_not_done(tmp_path: Path) -> None:
    """An entry of several workers; an entry that means something else in the other directory."""

    async def scenario(bench: Bench) -> None:
        many = FLEET + entry("many", "count = 2")
        bench.file.write_text(many)
        await bench.files.reload()
        with pytest.raises(FleetError, match=r"processor\[many-1\]: has no entry of its own"):
            await bench.files.remove(["many-1"], save=True)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        other = elsewhere / "other.toml"
        other.write_text(entry("new", 'depends_on = [{ name = "unsaved" }]'))
        await bench.files.add(bench.other(entry("unsaved")), save=False)
        with pytest.raises(FleetError, match=r'no such worker|did you mean|"unsaved"'):
            await bench.files.add(str(other), save=True)
        assert bench.names == ["a", "b", "many-1", "many-2", "unsaved"]
        assert bench.file.read_text() == many

    on_bench(scenario, tmp_path)


def test_a_change_goes_on_without_who_asked_for_it(tmp_path: Path) -> None:
    """Changes wait for each other."""

    async def scenario(bench: Bench) -> None:
        first = bench.files.add(bench.other(entry("new")), save=False)
        second = bench.files.remove(["new"], save=False)
        waiting = asyncio.ensure_future(asyncio.wait({second}))
        waiting.cancel()
        assert await first == Changes(start=("new",))
        assert await second == Changes(stop=("new",))
        assert bench.said == ["begin", "end"] * 2

    on_bench(scenario, tmp_path)
