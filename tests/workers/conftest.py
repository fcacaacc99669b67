"""Ready-made processors run in real workers with real servers, and leave nothing behind either."""

from __future__ import annotations

import pytest

from tests.system.backends import Data
from tests.system.conftest import data, for_the_whole_session, nothing_left, scripts, short_path
from tests.workers.ordeal import Ordeal

__all__ = ["data", "for_the_whole_session", "nothing_left", "scripts", "short_path"]


@pytest.fixture
def ordeal(data: Data, caplog: pytest.LogCaptureFixture) -> Ordeal:
    """What every ready-made processor with a server has to survive."""
    caplog.set_level("DEBUG")
    return Ordeal(data, caplog)
