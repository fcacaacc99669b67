"""The hook by which PyInstaller knows what a frozen program needs of this package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["hook_directories"]


def hook_directories() -> list[str]:
    """Return where PyInstaller finds the hook."""
    return [str(Path(__file__).parent)]
