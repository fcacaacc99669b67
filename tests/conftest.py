"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# Another process' turn on a shared machine says nothing about the code under test.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")
