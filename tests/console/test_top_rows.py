"""The table of `chronopype-mp top`, on a screen without a terminal."""

from __future__ import annotations

import pytest

pytest.importorskip("textual", reason="needs the extra top")

from textual.app import App, ComposeResult

from chronopype_mp.console.top_rows import Heading, RowTable
from tests.waiting import run

HEADINGS = [
    Heading("name", 6, False),
    Heading("count\nof all", 6, True),
    Heading("text", 30, False),
]
SIZE = (30, 6)  # two lines of headings, one of the scroll bar, and three rows


class Shown(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.clicked: list[int] = []

    def compose(self) -> ComposeResult:
        yield RowTable()

    def on_row_table_heading_clicked(self, event: RowTable.HeadingClicked) -> None:
        self.clicked.append(event.column)

    @property
    def table(self) -> RowTable:
        return self.query_one(RowTable)

    @property
    def lines(self) -> list[str]:
        table = self.table
        height = table.scrollable_content_region.height
        return [table.render_line(y).text.rstrip() for y in range(height)]

    def show(self, *names: str) -> None:
        rows = [(name, [(name, ""), ("1", "dim"), ("日本" * 10, "")]) for name in names]
        self.table.show(HEADINGS, rows)


def test_the_first_column_and_the_headings_stay_when_the_rest_is_scrolled() -> None:
    """Texts are cut to their columns, also those of wide characters."""

    async def scroll() -> None:
        app = Shown()
        async with app.run_test(size=SIZE) as pilot:
            app.show("one", "two", "three", "four", "five")
            await pilot.pause()
            assert app.lines[:3] == [
                " name     count  text",
                "         of all",
                " one          1  日本日本日本",
            ]
            await pilot.press("right", "end")
            await pilot.pause()
            assert app.table.scroll_offset == (10, 2)
            starts = [line[:8].strip() for line in app.lines]
            assert starts == ["name", "", "three", "four", "five"]
            assert "count" not in app.lines[0]

    run(scroll())


def test_the_cursor_stays_on_its_row() -> None:
    """When the order changes; if the row is gone, it moves to the first one."""

    async def move() -> None:
        app = Shown()
        async with app.run_test(size=SIZE) as pilot:
            assert app.table.selected == ""
            await pilot.press("down")
            app.show("one", "two", "three", "four", "five")
            await pilot.press("down", "pagedown")
            assert app.table.selected == "five"
            app.show("five", "four", "three")
            assert app.table.selected == "five"
            await pilot.press("up", "up", "pageup", "home")
            assert app.table.selected == "five"
            app.show("two", "one")
            assert app.table.selected == "two"
            app.show()
            assert app.table.selected == ""
            assert app.lines[2] == ""

    run(move())


def test_clicks_select_rows_and_report_headings() -> None:
    async def click() -> None:
        app = Shown()
        async with app.run_test(size=SIZE) as pilot:
            app.show("one", "two", "three")
            await pilot.click(RowTable, offset=(3, 3))
            assert app.table.selected == "two"
            for x in (0, 8, 17):
                await pilot.click(RowTable, offset=(x, 1))
            await pilot.press("right")
            await pilot.pause()
            await pilot.click(RowTable, offset=(8, 0))  # 10 characters further to the right
            assert app.clicked == [0, 1, 2, 2]

    run(click())
