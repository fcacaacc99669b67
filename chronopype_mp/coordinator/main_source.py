"""The source of the main module: a file, a command, or the cells of a notebook."""

from __future__ import annotations

import ast
import builtins
import functools
import io
import linecache
import os
import pickle
import stat
import sys
import textwrap
import tokenize
import types
from collections.abc import Iterator
from typing import Any

from chronopype_mp.coordinator.definition import (
    BLOCKS,
    Definition,
    Unit,
    bound_by,
    decorator_root,
)
from chronopype_mp.processors.transfer import MAIN

__all__ = ["MainSource"]

FUTURES = functools.reduce(
    int.__or__,
    (
        value.compiler_flag
        for value in vars(__import__("__future__")).values()
        if hasattr(value, "compiler_flag")
    ),
)
"""The flags of the compiler that ``from __future__ import`` sets."""

MODULE_NAMES = ("__name__", "__file__", "__package__", "__spec__", "__loader__", "__doc__")
"""What a module has from the import system."""

INTERACTIVE = "<python-input-"
"""How the file names of Python's own interactive shell begin, since 3.13."""


class MainSource:
    """The source of the main module as far as it is known.

    Attributes:
        missing: why there is none; "" if there is one.
    """

    def __init__(self, main: types.ModuleType) -> None:
        self.missing = ""
        self._main = main
        self._units: dict[tuple[str, int], Unit] = {}
        self._bindings: dict[str, list[Definition]] = {}
        self._registrations: dict[str, list[Definition]] = {}
        self._known: list[tuple[str, int]] = []
        self._script: tuple[str, str] | None = None
        self._shell: Any = getattr(main, "get_ipython", getattr(builtins, "get_ipython", None))
        if self._shell is None:
            self._script = self._read()
        self._index()

    def bindings(self, name: str) -> list[Definition]:
        """Return the statements that bind a name, in the order of execution."""
        return self._bindings.get(name, [])

    def registrations(self, name: str) -> list[Definition]:
        """Return the statements that call ``name.register``."""
        return self._registrations.get(name, [])

    def owns(self, code: types.CodeType) -> bool:
        """Whether code is part of the source."""
        return any(
            unit.filename == code.co_filename and code in unit.codes
            for unit in self._units.values()
        )

    def texts(self, filenames: set[str]) -> dict[str, str]:
        """Return the texts that `linecache` has here, and that a worker cannot read from a file."""
        found = {}
        for filename in filenames:
            lines = linecache.getlines(filename, vars(self._main))
            text = "".join(lines or _lines_by_code(filename))
            if text and not os.path.isfile(filename):
                found[filename] = text
        return found

    @functools.cached_property
    def first_names(self) -> dict[str, Any]:
        """What the main module has from the import system, as far as it can be pickled."""
        found = {}
        for name in MODULE_NAMES:
            if name in vars(self._main):
                value = getattr(self._main, name)
                try:
                    pickle.dumps(value)
                except Exception:
                    value = None  # such as the loader of a debugger
                found[name] = value
        return found

    def update(self) -> None:
        """Read cells that were executed since."""
        if self._script is None:
            self._index()

    def _index(self) -> None:
        texts = list(self._texts())
        known = [(filename, number) for filename, number, _, _ in texts]
        if known == self._known:
            return
        self._known = known
        self._bindings, self._registrations = {}, {}
        for order, (filename, number, text, flags) in enumerate(texts):
            unit = self._units.get((filename, number))
            if unit is None:
                try:
                    unit = Unit(filename, text, flags)
                except (SyntaxError, ValueError):
                    continue  # a cell that was never executed
                self._units[filename, number] = unit
            self._add(unit, unit.body, order)

    def _add(self, unit: Unit, body: list[ast.stmt], order: int) -> None:
        for node in body:
            definition = Definition(unit, node, (order, node.lineno))
            for name in bound_by(node):
                self._bindings.setdefault(name, []).append(definition)
            for root in _registers_with(node):
                self._registrations.setdefault(root, []).append(definition)
            if isinstance(node, BLOCKS):
                for part in ("body", "handlers", "orelse", "finalbody"):
                    for inner in getattr(node, part, ()):
                        if isinstance(inner, ast.ExceptHandler):
                            self._add(unit, inner.body, order)
                        else:
                            self._add(unit, [inner], order)

    def _texts(self) -> Iterator[tuple[str, int, str, int]]:
        """Yield the file name, a number, the text and the compiler flags of each unit."""
        if self._script is not None:
            filename, text = self._script
            yield filename, 0, text, 0
            return
        shell: Any = None if self._shell is None else self._shell()
        if shell is not None:
            numbers = dict(getattr(shell.compile, "_filename_map", {}))
            flags = shell.compile.flags & FUTURES
        else:
            names = [name for name in linecache.cache if name.startswith(INTERACTIVE)]
            numbers = {name: int(name[len(INTERACTIVE) : -1]) for name in names}
            flags = 0
        for filename, number in sorted(numbers.items(), key=lambda pair: pair[1]):
            entry = linecache.cache.get(filename)
            if entry is not None and len(entry) > 1:
                yield filename, number, "".join(entry[2]), flags

    def _read(self) -> tuple[str, str] | None:
        """Return the name and the text of the script."""
        main = self._main
        filename = getattr(main, "__file__", None)
        if filename == "<stdin>":
            filename = None
        try:
            if filename is not None and os.path.isfile(filename):
                with open(filename, "rb") as file:
                    return filename, _decoded(file.read())
            if filename is not None:
                get_source = getattr(getattr(main, "__loader__", None), "get_source", None)
                text = None if get_source is None else get_source(MAIN)
                if text is None:
                    self.missing = f"the source {filename} cannot be read"
                    return None
                return filename, text
            first = sys.argv[0] if sys.argv else ""
            if first == "-c":
                return "<string>", _command(sys.orig_argv)
            if first in ("", "-") and stat.S_ISREG(os.fstat(0).st_mode):
                return "<stdin>", _decoded(os.pread(0, os.fstat(0).st_size, 0))
        except (OSError, ValueError, ImportError, SyntaxError) as error:
            self.missing = f"the source of the main module cannot be read ({error})"
            return None
        self.missing = "the program came through a pipe or a shell that keeps no source"
        return None


def _lines_by_code(filename: str) -> list[str]:
    """Return the lines that Python 3.14 keeps for code objects, such as those of ``python -c``."""
    entries = getattr(linecache, "_interactive_cache", {}).values()
    return next((lines for _, _, lines, name in entries if name == filename), [])


def _decoded(text: bytes) -> str:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(text).readline)
    decoded = io.TextIOWrapper(io.BytesIO(text), encoding, line_buffering=True).read()
    return decoded.removeprefix("\ufeff")


def _command(arguments: list[str]) -> str:
    """Return the program of ``python -c``."""
    for i, argument in enumerate(arguments[1:], 1):
        if argument.startswith("-") and not argument.startswith("--") and "c" in argument:
            flags, _, rest = argument.partition("c")
            if not set(flags) & set("XW"):
                text = rest or arguments[i + 1]
                return textwrap.dedent(text) if sys.version_info >= (3, 14) else text
    raise ValueError("no -c")


def _registers_with(node: ast.stmt) -> Iterator[str]:
    """Yield ``show`` for ``show.register(…)`` and for a definition that it decorates."""
    calls: list[ast.expr] = []
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        calls += node.decorator_list
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        calls.append(node.value)
    for call in calls:
        function = call.func if isinstance(call, ast.Call) else call
        if isinstance(function, ast.Attribute) and function.attr == "register":
            root = decorator_root(function)
            if root is not None:
                yield root
