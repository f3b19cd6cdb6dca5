"""
Importing the package reads nothing; its names are found when somebody asks.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

import fairway
import fairway.layers
import fairway.testing


@pytest.mark.parametrize("package", [fairway, fairway.layers, fairway.testing])
def test_every_public_name_is_found(package: object) -> None:
    """What a package lists as public is there, and in its directory."""
    public = package.__all__  # type: ignore[attr-defined] # every package here has one
    assert all(hasattr(package, name) for name in public)
    assert set(public) <= set(dir(package))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that is not public says which package it was looked for in."""
    with pytest.raises(AttributeError, match="module 'fairway' has no attribute 'broadcasts'"):
        getattr(fairway, "broadcasts")  # noqa: B009 - mypy knows that it is not there


def test_importing_fairway_imports_no_django() -> None:
    """Settings and models are far away when the package is imported."""
    check = (
        "import sys, fairway, fairway.layers, fairway.testing; sys.exit('django' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
