"""The table of ``chronopype-mp top``, drawn line by line.

textual's DataTable draws all cells anew when one has changed, each through rich. That took several
times the CPU time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

__all__ = ["Heading", "RowTable"]

HEADING_LINES = 2
SIDEWAYS = 10
"""Characters by which a key scrolls sideways."""


class Heading(NamedTuple):
    """The heading of a column.

    Attributes:
        text: of up to two lines.
        width: of the column, in characters.
        is_number: whether the column is aligned to the right.
    """

    text: str
    width: int
    is_number: bool


class RowTable(ScrollView, can_focus=True):
    """Rows with names, of which one is selected. The first column and the headings stay in place.

    Attributes:
        selected: the name of the row under the cursor; empty without rows.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"heading", "cursor"}
    DEFAULT_CSS = """
    RowTable { height: 1fr; }
    RowTable .heading { text-style: bold; background: $panel; }
    RowTable .cursor { background: $primary-muted; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "move_page(-1)", show=False),
        Binding("pagedown", "move_page(1)", show=False),
        Binding("home", "move(-100000)", show=False),
        Binding("end", "move(100000)", show=False),
        Binding("left", "sideways(-1)", show=False),
        Binding("right", "sideways(1)", show=False),
    ]

    class HeadingClicked(Message):
        """A heading was clicked; ``column`` is its number."""

        def __init__(self, column: int) -> None:
            super().__init__()
            self.column = column

    def __init__(self) -> None:
        super().__init__()
        self.selected = ""
        self._headings: Sequence[Heading] = ()
        self._rows: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()

    @property
    def rows(self) -> list[list[str]]:
        """The texts of all rows."""
        return [[text for text, _ in cells] for _, cells in self._rows]

    def show(
        self,
        headings: Sequence[Heading],
        rows: Sequence[tuple[str, Sequence[tuple[str, str]]]],
    ) -> None:
        """Show other rows. The cursor stays on its row, or moves to the first one without it.

        Args:
            headings: of the columns.
            rows: name and cells of each row; a cell is a text and its style.
        """
        self._headings, self._rows = headings, rows
        names = [name for name, _ in rows]
        if self.selected not in names:
            self.selected = names[0] if names else ""
        width = sum(heading.width + 2 for heading in headings)
        self.virtual_size = Size(width, len(rows) + HEADING_LINES)
        self.refresh()

    def reveal(self) -> None:
        """Scroll to the cursor, if it is out of sight."""
        at, page = self._position, self._page
        if at < self.scroll_offset.y:
            self.scroll_to(y=at, animate=False)
        elif at >= self.scroll_offset.y + page:
            self.scroll_to(y=at - page + 1, animate=False)

    @property
    def _position(self) -> int:
        return next((n for n, (name, _) in enumerate(self._rows) if name == self.selected), 0)

    @property
    def _page(self) -> int:
        return max(1, self.scrollable_content_region.height - HEADING_LINES)

    def render_line(self, y: int) -> Strip:
        """Return a line of the screen; textual calls this."""
        scroll_x, scroll_y = self.scroll_offset
        if y < HEADING_LINES:
            base = self.get_component_rich_style("heading")
            lines = [(heading.text + "\n").split("\n")[y] for heading in self._headings]
            cells: Sequence[tuple[str, str]] = [(text, "") for text in lines]
        else:
            at = y - HEADING_LINES + scroll_y
            if at >= len(self._rows):
                return Strip.blank(self.size.width, self.rich_style)
            name, cells = self._rows[at]
            is_selected = name == self.selected
            base = self.get_component_rich_style("cursor") if is_selected else self.rich_style
        segments = [
            Segment(_fitted(text, heading), base + Style.parse(style))
            for (text, style), heading in zip(cells, self._headings, strict=True)
        ]
        first, rest = Strip(segments[:1]), Strip(segments[1:])
        width = max(0, self.size.width - first.cell_length)
        shown = rest.crop(scroll_x, scroll_x + width).extend_cell_length(width, base)
        return Strip.join([first, shown])

    def action_move(self, rows: int) -> None:
        """Move the cursor down by rows, or up."""
        if self._rows:
            at = min(max(0, self._position + rows), len(self._rows) - 1)
            self.selected = self._rows[at][0]
            self.reveal()
            self.refresh()

    def action_move_page(self, pages: int) -> None:
        """Move the cursor down by pages, or up."""
        self.action_move(pages * self._page)

    def action_sideways(self, steps: int) -> None:
        """Scroll to the right, or left."""
        self.scroll_relative(x=steps * SIDEWAYS, animate=False)

    def on_click(self, event: events.Click) -> None:
        """Select a row, or report the click on a heading."""
        if event.y >= HEADING_LINES:
            self.action_move(event.y - HEADING_LINES + self.scroll_offset.y - self._position)
            return
        x, end = event.x, 0
        if self._headings and x >= self._headings[0].width + 2:
            x += self.scroll_offset.x
        for number, heading in enumerate(self._headings):
            end += heading.width + 2
            if x < end:
                self.post_message(self.HeadingClicked(number))
                return


def _fitted(text: str, heading: Heading) -> str:
    """Return a text as wide as its column, with a space on both sides."""
    padding = " " * (heading.width - cell_len(text)) if heading.is_number else ""
    return f" {set_cell_size(padding + text, heading.width)} "
