"""
How ``scripts/docs`` builds these pages: Sphinx, MyST and furo, and nothing from the network.

Warnings are errors and every reference to a name of Fairway's must lead somewhere. What is made
from the code on the way is in ``_ext/``; prose is in the pages alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import django
from django.conf import settings

import fairway

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

# Some modules are to be imported that hold or need models.
settings.configure(
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "fairway",
    ],
    SECRET_KEY="documentation",  # noqa: S106 - nothing is signed with it.
)
django.setup()

project = "Fairway"
author = "Fairway contributors"
project_copyright = author
version = release = fairway.__version__

extensions = ["from_code", "myst_parser", "sphinx.ext.napoleon"]
exclude_patterns = ["_ext"]

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_default_options = {"show-inheritance": True}
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Other projects' inventories would have to be fetched; so only names of Fairway's are looked up,
# where they are written in full. The short ones, those of modules inside of public ones and
# variables of types come from signatures.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!fairway\.).*"),
    (r"py:.*", r"fairway\.(faults|options|types|\w+\.\w+)\..*|.*\.[A-Z]"),
]

html_theme = "furo"
html_title = "Fairway"
html_copy_source = False
html_show_sphinx = False
templates_path: list[str] = []
