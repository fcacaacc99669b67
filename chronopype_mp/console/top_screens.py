"""What ``chronopype-mp top`` shows on top of its table: a question, and the page about a worker."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

__all__ = ["Details", "Question"]


class Question(ModalScreen[bool]):
    """Asks whether to do something; the result is the answer."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "dismiss(True)", "yes"),
        Binding("n,escape", "dismiss(False)", "no"),
    ]
    CSS = """
    Question { align: center middle; }
    Question Static { width: auto; padding: 1 2; border: round $warning; background: $surface; }
    """

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        yield Static(f"{self._question}  y / n", markup=False)


class Details(ModalScreen[None]):
    """Shows the page about one worker. The arrow keys scroll it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "dismiss", "back"),
    ]
    CSS = """
    Details { background: $background; }
    Details #title { background: $primary; color: $text; }
    """

    def __init__(self, worker: str, text: str) -> None:
        super().__init__()
        self._worker = worker
        self._text = text

    def compose(self) -> ComposeResult:
        yield Static(self._worker, id="title", markup=False)
        with VerticalScroll():
            yield Static(self._text, id="details", markup=False)
        yield Footer()
