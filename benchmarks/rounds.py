"""Interleaved repeats: everything runs once, then everything again in the opposite order.

Disturbances of the machine therefore affect our runs, the references and the peers alike.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from benchmarks.peers import ask
from benchmarks.report import OURS, Result, Row, Sample, rows

__all__ = ["QUICK_REPEATS", "REPEATS", "Rounds", "Runs", "SkipError", "peer"]

REPEATS = 5
QUICK_REPEATS = 1

Run = tuple[str, str]
"""The case and the subject: `OURS`, or the name of a reference or a peer."""

Runs = dict[Run, Callable[[], Sample]]
"""The functions to run. Each returns a sample."""


class SkipError(Exception):
    """This run is not possible here. The message says why."""


class Rounds:
    """Runs everything several times.

    Args:
        runs: the functions to run. One that raises `SkipError` is skipped from then on, and its
            earlier samples are discarded.
        repeats: the number of repeats.
    """

    def __init__(self, runs: Runs, repeats: int) -> None:
        self._samples: dict[Run, list[Sample]] = {run: [] for run in runs}
        self._skipped: dict[Run, str] = {}
        for repeat in range(repeats):
            for run in list(runs)[:: -1 if repeat % 2 else 1]:
                if run not in self._skipped:
                    _tell(f"{repeat + 1} of {repeats}: {', '.join(run)}")
                    self._run(run, runs[run])
        _tell("")

    def _run(self, run: Run, measure: Callable[[], Sample]) -> None:
        try:
            self._samples[run].append(measure())
        except SkipError as reason:
            self._skipped[run] = str(reason)
            self._samples[run].clear()

    @property
    def skipped(self) -> dict[str, str]:
        """The names of the skipped runs, with the reasons."""
        measured = {subject for (_, subject), samples in self._samples.items() if samples}
        return {
            f"{case}, {subject}" if subject in measured else subject: reason
            for (case, subject), reason in self._skipped.items()
        }

    def of(self, case: str, subject: str = OURS) -> list[Sample]:
        """Return the samples of a run, one per repeat, or an empty list if it was skipped."""
        return self._samples[case, subject]

    def others(self, case: str) -> dict[str, list[Sample]]:
        """Return the samples of a case's references and peers, in the order of the runs."""
        return {
            subject: samples
            for (of_case, subject), samples in self._samples.items()
            if of_case == case and subject != OURS
        }

    def rows(self, case: str, units: Mapping[str, str]) -> list[Row]:
        """Return the rows of a case, see `report.rows`."""
        return rows(case, units, self.of(case), self.others(case))

    def result(self, units: Mapping[str, str]) -> Result:
        """Return the rows of all cases."""
        cases = dict.fromkeys(case for case, _ in self._samples)
        return Result([row for case in cases for row in self.rows(case, units)], self.skipped)


def peer(
    quick: bool, program: str, *arguments: str, names: Mapping[str, str]
) -> Callable[[], Sample]:
    """Return a function that runs a peer's program.

    Args:
        quick: skip the peer, because it takes seconds to start.
        program: the program's name, see `benchmarks.peers`.
        arguments: the program's arguments.
        names: the metric for each expected figure.
    """

    def run() -> Sample:
        if quick:
            raise SkipError("a quick run skips peers; ./scripts/bench-peers installs them")
        answer = ask(program, *arguments)
        if answer.skipped is not None:
            raise SkipError(answer.skipped)
        missing = names.keys() - answer.figures.keys()
        if missing:
            raise SkipError(f"{program} did not print {', '.join(sorted(missing))}")
        return {metric: answer.figures[figure] for figure, metric in names.items()}

    return run


def _tell(line: str) -> None:
    """Show on a terminal what is running."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
