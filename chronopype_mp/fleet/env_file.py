"""Files of environment variables: one ``NAME=value`` on each line, as for systemd and Docker."""

from __future__ import annotations

from chronopype_mp.exceptions import FleetProblem
from chronopype_mp.fleet.document import Node, resolved

__all__ = ["read_env_file"]


def read_env_file(node: Node, file: str, path: str, problems: list[FleetProblem]) -> dict[str, str]:
    """Read a file of variables. Empty lines and those with ``#`` in front are skipped.

    Values may be in quotes, and nothing in them is replaced. A message shows no line of the file.

    Args:
        node: names the file, whose path is relative to that of the fleet file.
        file: the path of the file.
        path: the setting that names it.
        problems: where mistakes are noted.
    """
    file = resolved(node, file)
    try:
        with open(file, encoding="utf-8") as lines:
            text = lines.read()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        problems.append(node.problem(path, f"cannot be read: {reason}"))
        return {}
    variables = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not name or name.startswith("#"):
            continue
        if not equals or not name.strip().isidentifier():
            problems.append(FleetProblem(file, number, "", None, "must look like NAME=value"))
            continue
        variables[name.strip()] = _unquoted(value.strip())
    return variables


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
