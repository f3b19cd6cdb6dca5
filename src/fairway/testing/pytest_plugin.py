"""
What pytest loads in every environment that has Fairway, whatever is tested there.

Hence nothing is imported here, Django least of all. Where pytest-django is at work, the fixtures
of ``pytest_fixtures`` are added; where it is not, nothing happens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest import Config  # noqa: PT013 - pytest itself is not imported either

__all__ = ["pytest_configure"]


def pytest_configure(config: Config) -> None:
    """
    Add the fixtures, now that all plugins are known.
    """
    manager = config.pluginmanager
    if manager.hasplugin("django"):
        manager.import_plugin("fairway.testing.pytest_fixtures")
