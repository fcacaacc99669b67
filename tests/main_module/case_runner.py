"""Runs the cases of `tests.main_module.cases` in the program that defines them.

The program imports this as ``case_runner``. Each processor calls its ``check`` in ``start``, and
writes the outcome to a file: once with the inline launcher, and once in a worker. All cases share
one worker, which forks a process for the payload of each. A worker for each case would take ten
times as long.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chronopype_mp import ClockConfig, ClockMode, ProcessorSpec, Supervision, TickProcessor
from chronopype_mp.clocks import RealtimeClock
from chronopype_mp.coordinator.payload import pack
from chronopype_mp.exceptions import TransferError
from chronopype_mp.worker.payload import load

__all__ = ["Check", "run"]

SHARED: dict[str, int] = {"n": 1}
"""For ``from case_runner import SHARED``."""


class Settings:
    """Has a setting."""

    url = "default"


SETTINGS = Settings()


class Check(TickProcessor):
    """A processor of a case."""

    directory: str = ""

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        name = getattr(self, "case_name", None) or type(self).__name__
        try:
            outcome = repr(self.check())  # type: ignore[attr-defined]
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        _note(f"{self.directory}/{name}", outcome)


def _note(path: str, outcome: str) -> None:
    Path(path).write_text(outcome)


class Loader(TickProcessor):
    """Loads the payloads of all cases in its worker, each in a process of its own."""

    def __init__(self, payloads: dict[str, bytes]) -> None:
        super().__init__()
        self.payloads = payloads

    def start(self, timestamp: float) -> None:
        super().start(timestamp)
        for path, payload in self.payloads.items():
            pid = os.fork()
            if pid == 0:
                try:
                    load(payload).start(timestamp)
                except BaseException as error:
                    cause = error.__cause__ or error
                    _note(path, f"not loaded: {type(cause).__name__}: {cause}")
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)


def _processors(names: dict[str, Any]) -> Iterator[tuple[str, TickProcessor | ProcessorSpec]]:
    for name, made in list(names.items()):
        if name.startswith("C_"):
            yield name, made() if callable(made) else made


def _write_to(directory: str, name: str, processor: TickProcessor | ProcessorSpec) -> None:
    if isinstance(processor, ProcessorSpec):
        processor.options["directory"] = directory
    else:
        processor.directory = directory  # type: ignore[attr-defined]
        processor.case_name = name  # type: ignore[attr-defined]


async def _run(names: dict[str, Any], directory: str) -> None:
    processors = dict(_processors(names))
    payloads = {}
    for name, processor in processors.items():
        path = f"{directory}/worker/{name}"
        _write_to(f"{directory}/worker", name, processor)
        try:
            payloads[path] = pack(processor).payload
        except TransferError as error:
            _note(path, f"refused: {error}")
    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.1)
    supervision = Supervision(start_timeout=100.0)
    # Packed before, because what the inline workers do changes the main module.
    async with RealtimeClock(config, launcher="inline") as clock:
        handles = {}
        for name, processor in processors.items():
            _write_to(f"{directory}/inline", name, processor)
            with contextlib.suppress(TransferError):
                handles[name] = clock.add_processor(processor, name=name)
        for handle in handles.values():
            await handle.wait_ready()
    async with RealtimeClock(config, supervision=supervision) as clock:
        await clock.add_processor(Loader(payloads)).wait_ready()


def run(names: dict[str, Any]) -> None:
    """Run all cases. The program's last argument is the directory for the outcomes."""
    logging.disable(logging.CRITICAL)
    asyncio.run(_run(names, sys.argv[-1]))


async def run_in_notebook(names: dict[str, Any], directory: str) -> None:
    """Run all cases in a cell."""
    logging.disable(logging.CRITICAL)
    await _run(names, directory)
