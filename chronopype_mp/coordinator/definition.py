"""Definitions of the main module: which names they use, and whether they are what is loaded."""

from __future__ import annotations

import ast
import builtins
import contextlib
import dis
import functools
import inspect
import os
import types
from collections.abc import Iterator
from typing import Any

import psutil

from chronopype_mp.processors.transfer import Statement, lines_of

__all__ = [
    "BLOCKS",
    "Definition",
    "Unit",
    "bound_by",
    "decorator_root",
    "layers",
    "literal_of",
    "names_in",
    "names_in_text",
    "own_code",
]

GLOBAL_NAMES = {
    dis.opmap[name]
    for name in (
        "LOAD_NAME",
        "LOAD_GLOBAL",
        "STORE_GLOBAL",
        "DELETE_GLOBAL",
        "LOAD_FROM_DICT_OR_GLOBALS",
    )
    if name in dis.opmap
}
"""Instructions whose argument is the name of a global."""

EDIT_MARGIN = 2.0
"""Seconds. The system knows the time of a process' start only to about a second."""

WRAPPED = (types.FunctionType, functools._lru_cache_wrapper)

BLOCKS = (ast.If, ast.Try, ast.With, ast.For, ast.While)
"""Statements of the main module in which definitions are looked for, too."""


def names_in(code: types.CodeType, *, deep: bool = True) -> Iterator[str]:
    """Yield the names of the globals that code uses.

    Args:
        deep: look into nested functions, too.
    """
    instructions, high = code.co_code, 0
    for i in range(0, len(instructions), 2):
        operation, argument = instructions[i], instructions[i + 1] | high
        high = argument << 8 if operation == dis.EXTENDED_ARG else 0
        if operation in GLOBAL_NAMES:
            yield code.co_names[argument >> (operation == dis.opmap["LOAD_GLOBAL"])]
    for constant in code.co_consts:
        if deep and isinstance(constant, types.CodeType):
            yield from names_in(constant)


def own_code(value: object) -> types.CodeType | None:
    """Return the code of a function, a method of any kind, or what wraps one."""
    for name in ("__func__", "fget", "func"):  # classmethod, property, cached_property
        value = getattr(value, name, None) or value
    with contextlib.suppress(ValueError):  # it wraps itself
        value = inspect.unwrap(value)  # type: ignore[arg-type]
    code = getattr(value, "__code__", None)
    return code if isinstance(code, types.CodeType) else None


class Unit:
    """A file, or a cell of a notebook.

    Attributes:
        is_suspect: the file was edited since the program started, so that only what can be compared
            with loaded code may be taken from it.
    """

    def __init__(self, filename: str, text: str, flags: int) -> None:
        self.filename = filename
        self.text = text
        self.is_suspect = _was_edited(filename)
        self.lines = lines_of(text)
        tree = ast.parse(text, filename)
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                for alias in node.names:
                    flags |= getattr(__import__("__future__"), alias.name).compiler_flag
        self.flags = flags
        self.body = tree.body

    @functools.cached_property
    def codes(self) -> set[types.CodeType]:
        """All code of the unit."""
        flags = self.flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        found, more = set(), [compile(self.text, self.filename, "exec", flags, dont_inherit=True)]
        while more:
            code = more.pop()
            found.add(code)
            more += (const for const in code.co_consts if isinstance(const, types.CodeType))
        return found


class Definition:
    """A statement of the main module that binds names.

    Attributes:
        place: in the order of execution.
        node: the statement.
        early: names that are used when it is executed.
        names: all names that it uses.
        calls: executing it calls something.
    """

    def __init__(self, unit: Unit, node: ast.stmt, place: tuple[int, int]) -> None:
        self.place = place
        self.node: Any = node
        self._unit = unit

    def __repr__(self) -> str:
        return f"{self._unit.filename}, line {self.node.lineno}"

    @property
    def is_compound(self) -> bool:
        """Whether it defines a class or a function."""
        return isinstance(self.node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)

    @functools.cached_property
    def _uses(self) -> tuple[frozenset[str], frozenset[str]]:
        module = ast.Module([self.node], [])
        code = compile(module, self._unit.filename, "exec", self._unit.flags, dont_inherit=True)
        annotations = set(_annotated_names(self.node))
        early, more = annotations, [code]
        while more:
            part = more.pop()
            nested = [const for const in part.co_consts if isinstance(const, types.CodeType)]
            early |= set(names_in(part, deep=False))
            # The bodies of classes, and what only looks like a function: comprehensions, generics.
            more += (
                const
                for const in nested
                if not const.co_flags & inspect.CO_OPTIMIZED or const.co_name.startswith("<")
            )
        return frozenset(early), frozenset(annotations | set(names_in(code)))

    @property
    def early(self) -> frozenset[str]:
        return self._uses[0]

    @property
    def names(self) -> frozenset[str]:
        return self._uses[1]

    def early_without(self, without: frozenset[str]) -> frozenset[str]:
        """Return what is used early if decorators are left out that begin with one of the names."""
        if not without:
            return self.early
        used: set[str] = set()
        for part in ast.iter_child_nodes(self.node):
            is_body = not isinstance(self.node, ast.ClassDef) and part in self.node.body
            if not is_body and decorator_root(part) not in without:
                used |= {inner.id for inner in ast.walk(part) if isinstance(inner, ast.Name)}
        return self.early - (without - used)

    @functools.cached_property
    def calls(self) -> bool:
        node = self.node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return True
        return bool(node.decorator_list) or any(
            isinstance(part, ast.Call) for part in ast.walk(node.args)
        )

    @functools.cached_property
    def attributes(self) -> frozenset[str]:
        """All names of attributes that it uses."""
        return frozenset(n.attr for n in ast.walk(self.node) if isinstance(n, ast.Attribute))

    def literal(self) -> Any:
        """Return the constant that an assignment assigns.

        Raises:
            ValueError: it is no constant, or this is no assignment of a single name.
        """
        return literal_of(self.node)

    def contains(self, code: types.CodeType) -> bool:
        """Whether code is part of it, as it stands in the source."""
        first = self.node.lineno
        if self.is_compound and self.node.decorator_list:
            first = self.node.decorator_list[0].lineno
        return (
            code.co_filename == self._unit.filename
            and first <= code.co_firstlineno <= self.node.end_lineno
            and code in self._unit.codes
        )

    def is_of(self, value: object) -> bool:
        """Whether executing it makes ``value`` again, as far as that can be known."""
        node, unit = self.node, self._unit
        code = own_code(value)
        if isinstance(value, type):
            if isinstance(node, ast.ClassDef):
                own = [
                    made
                    for made in map(own_code, vars(value).values())
                    if made is not None
                    and made.co_filename == unit.filename
                    and made.co_qualname.rpartition(".")[0] == value.__qualname__
                ]
                if own:
                    return all(made in unit.codes for made in own) and any(map(self.contains, own))
            elif not isinstance(node, ast.Assign | ast.AnnAssign) or not self.has_call:
                return False
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if code is not None:
                return self.contains(code)
        elif code is not None or isinstance(node, ast.ClassDef):
            return False
        return not unit.is_suspect

    @functools.cached_property
    def has_call(self) -> bool:
        """Whether something is called in it."""
        return any(isinstance(part, ast.Call) for part in ast.walk(self.node))

    def makes(self, function: Any) -> bool:
        """Whether it makes a function, whose code it contains, as it is: not wrapped by others."""
        code = getattr(function, "__code__", None)
        if code is not None and self.contains(code):
            return True
        if not self.is_compound or not self.node.decorator_list:
            return False
        if layers(function) > len(self.node.decorator_list):
            return False
        if code is None or code not in self._unit.codes:
            return True
        return code.co_qualname.partition(".")[0] in self.decorators

    def looks_like(self, value: object) -> bool:
        """Whether a class has all names that this definition of one gives it."""
        if not isinstance(self.node, ast.ClassDef):
            return True
        return set(self.class_names()) <= {*dir(value), *getattr(value, "__annotations__", ())}

    @property
    def decorators(self) -> list[str | None]:
        """The names with which its decorators begin."""
        return [decorator_root(d) for d in self.node.decorator_list] if self.is_compound else []

    @property
    def is_import(self) -> bool:
        """Whether it binds what a module has."""
        return isinstance(self.node, ast.Import | ast.ImportFrom)

    @property
    def filename(self) -> str:
        """Of the file or the cell in which it stands."""
        return self._unit.filename

    def is_empty_container(self, kind: type) -> bool:
        """Whether it assigns a new container of a type, such as ``defaultdict(list)``."""
        value = getattr(self.node, "value", None)
        if not isinstance(value, ast.Call):
            return False
        function = value.func
        name = function.attr if isinstance(function, ast.Attribute) else decorator_root(function)
        return name == kind.__name__

    def class_names(self) -> Iterator[str]:
        """Yield the names that the body of a class defines directly."""
        for node in self.node.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.Assign):
                yield from (t.id for t in node.targets if isinstance(t, ast.Name))
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                yield from bound_by(node)

    def imported(self, name: str, package: str | None) -> tuple[str, str] | None:
        """Return the module and the name in it from which ``from`` imports a name."""
        node = self.node
        if not isinstance(node, ast.ImportFrom):
            return None
        module = node.module or ""
        if node.level:
            parts = (package or "").split(".")
            module = ".".join(filter(None, [*parts[: len(parts) - node.level + 1], module]))
        for alias in node.names:
            if name in (alias.asname or alias.name, "*") or alias.name == "*":
                return module, name if alias.name == "*" else alias.name
        return None

    def sent(self, without: frozenset[str]) -> Statement:
        """Return what the worker executes.

        Args:
            without: leave out the decorators that begin with one of these names.
        """
        node, lines = self.node, self._unit.lines
        if not self.is_compound:
            text = ast.get_source_segment(self._unit.text, node) or ""
            return Statement(self._unit.filename, node.lineno, text, self._unit.flags)
        decorators = node.decorator_list
        first = decorators[0].lineno if decorators else node.lineno
        kept = lines[first - 1 : node.end_lineno]
        for decorator in decorators:
            if decorator_root(decorator) in without:
                for i in range(decorator.lineno - first, decorator.end_lineno - first + 1):
                    kept[i] = "\n"
        while kept[0] == "\n":
            del kept[0]
            first += 1
        return Statement(self._unit.filename, first, "".join(kept), self._unit.flags)


def layers(function: Any) -> int:
    """Return how many wrappers there are around a function."""
    count = 0
    while isinstance(function, WRAPPED) and "__wrapped__" in vars(function) and count < 100:
        count += 1
        function = vars(function)["__wrapped__"]
    return count


def decorator_root(node: ast.AST) -> str | None:
    """Return the name with which an expression begins, such as ``app`` of ``app.route("/")``."""
    while isinstance(node, ast.Call | ast.Attribute | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def literal_of(node: Any) -> Any:
    """Return the constant that a statement assigns to one name.

    Raises:
        ValueError: it is no constant, or this is no such statement.
    """
    targets: list[ast.expr] = []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    elif isinstance(node, ast.Assign):
        targets = node.targets
    if len(targets) != 1 or not isinstance(targets[0], ast.Name) or node.value is None:
        raise ValueError(node)
    value = node.value
    if (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name)
        and value.func.id in ("dict", "list", "set")
        and not value.args
        and not value.keywords
    ):
        return getattr(builtins, value.func.id)()
    try:
        return ast.literal_eval(value)
    except (TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(node) from error


def _annotated_names(node: ast.AST) -> Iterator[str]:
    """Yield the names in annotations, which may be strings."""
    for part in ast.walk(node):
        annotation = getattr(part, "annotation", None) or getattr(part, "returns", None)
        for inner in ast.walk(annotation) if isinstance(annotation, ast.AST) else ():
            if isinstance(inner, ast.Name):
                yield inner.id
            elif isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                yield from names_in_text(inner.value)


def names_in_text(annotation: str) -> set[str]:
    """Return the names in an annotation that is a string."""
    try:
        parsed = ast.parse(annotation, mode="eval")
    except (SyntaxError, ValueError):
        return set()
    return {node.id for node in ast.walk(parsed) if isinstance(node, ast.Name)}


def bound_by(node: ast.stmt) -> set[str]:
    """Return the names that a statement of the module binds."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, BLOCKS):
        return set()
    bound: set[str] = set()
    more: list[ast.AST] = [node]
    while more:
        part: Any = more.pop()
        if isinstance(part, ast.Lambda):
            continue
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            bound.add(part.id)
        more += ast.iter_child_nodes(part)
    return bound


def _was_edited(filename: str) -> bool:
    """Whether a file was changed since this process started."""
    try:
        started_at: float = psutil.Process().create_time()
        return os.stat(filename).st_mtime > started_at + EDIT_MARGIN
    except (OSError, psutil.Error):
        return False  # it is no file
