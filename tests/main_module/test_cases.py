"""The table of `tests.main_module.cases`: what a worker sees is what the inline launcher sees."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shutil
import sys
import tempfile
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.main_module.cases import CASES, HEADER, Case
from tests.system.scripts import Scripts

RUN = "from case_runner import run\nrun(globals())\n"

pytestmark = pytest.mark.timeout(300)  # the first row of each way runs the program

Outcomes = dict[str, dict[str, str]]
"""By role and case."""

ROLES = ("inline", "worker")


def program(end: str = RUN) -> str:
    return "\n".join([HEADER, *(case.source for case in CASES), end])


def guarded() -> str:
    return program('if __name__ == "__main__":\n' + textwrap.indent(RUN, "    "))


def as_script(directory: Path) -> list[str]:
    (directory / "program.py").write_text(program())
    return [sys.executable, str(directory / "program.py")]


def as_guarded_script(directory: Path) -> list[str]:
    (directory / "program.py").write_text(guarded())
    return [sys.executable, "program.py"]


def as_module(directory: Path) -> list[str]:
    (directory / "package").mkdir(exist_ok=True)
    (directory / "package" / "__init__.py").write_text("")
    (directory / "package" / "sister.py").write_text("ONE = [1]\n")
    (directory / "package" / "program.py").write_text("from .sister import ONE\n" + program())
    return [sys.executable, "-m", "package.program"]


def as_command(directory: Path) -> list[str]:
    return [sys.executable, "-W", "error", "-c", program()]


def as_zipapp(directory: Path) -> list[str]:
    with zipfile.ZipFile(directory / "program.pyz", "w") as archive:
        archive.writestr("__main__.py", guarded())
    return [sys.executable, "program.pyz"]


def as_input(directory: Path) -> list[str]:
    (directory / "program.txt").write_text(program())
    return ["sh", "-c", f'exec {sys.executable} - "$1" < program.txt', "sh"]


def as_pipe(directory: Path) -> list[str]:
    (directory / "program.txt").write_text(program())
    return ["sh", "-c", f'cat program.txt | {sys.executable} - "$1"', "sh"]


NOTEBOOK = """
import json, sys
import nbformat
from nbclient import NotebookClient

cells = json.load(open("cells.json"))
cells += [
    "from case_runner import run_in_notebook\\n"
    f"await run_in_notebook(globals(), {sys.argv[-1]!r})\\n"
]
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
"""


def as_notebook(directory: Path) -> list[str]:
    (directory / "cells.json").write_text(json.dumps([HEADER, *(case.source for case in CASES)]))
    (directory / "notebook.py").write_text(NOTEBOOK)
    return [sys.executable, "notebook.py"]


WAYS: dict[str, Callable[[Path], list[str]]] = {
    "script": as_script,
    "guarded": as_guarded_script,
    "module": as_module,
    "notebook": as_notebook,
    "command": as_command,
    "zipapp": as_zipapp,
    "input": as_input,
    "pipe": as_pipe,
}


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcomes]:
    """Runs the program once in each way, whichever of pytest's processes asks for it first."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    @functools.cache
    def of(way: str) -> Outcomes:
        results = shared / f"main-module-{way}.json"
        with (shared / f"main-module-{way}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not results.exists():
                results.write_text(json.dumps(run_program(way, tmp_path_factory.mktemp(way))))
        found: Outcomes = json.loads(results.read_text())
        return found

    return of


def run_program(way: str, directory: Path) -> Outcomes:
    shutil.copy(Path(__file__).with_name("case_runner.py"), directory)
    for role in ROLES:
        (directory / role).mkdir()
    scripts = Scripts(directory)
    short = tempfile.mkdtemp(prefix="cp-")
    try:
        script = scripts.run(
            [*WAYS[way](directory), str(directory)],
            IPYTHONDIR=str(directory),
            PYTHONPATH=str(directory),
            TMPDIR=short,
        )
        assert script.wait(140) == 0, script.output
        left = [name for name in os.listdir(short) if not name.startswith("pymp-")]
        assert not left, "files left"
    finally:
        scripts.kill_all()
        shutil.rmtree(short)
    return {
        role: {path.name: path.read_text() for path in (directory / role).iterdir()}
        for role in ROLES
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("way", WAYS)
def test_code_of_the_main_module_means_the_same_in_a_worker(
    outcomes: Callable[[str], Outcomes], way: str, case: Case
) -> None:
    inline, worker = (outcomes(way)[role].get(f"C_{case.name}") for role in ROLES)
    refused = case.refused_without_source if way == "pipe" else case.refused
    assert worker == (inline if refused is None else f"refused: {refused}")
    assert refused is not None or (inline and not inline.startswith(("refused", "not ready")))
