"""
The pages under docs name what exists: options, settings, counters, checks, files.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import runpy
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from django.conf import global_settings

import fairway
from fairway.management.subcommands import SUBCOMMANDS
from fairway.options import AREAS, ServerOptions
from fairway.wire.codes import CLOSE_CODES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FRONT = [*sorted(ROOT.glob("*.md")), ROOT / "scripts" / "README.md"]
NAMES = (DOCS / "reference" / "api.md").read_text()
SOURCES = "".join(path.read_text() for path in sorted((ROOT / "src").rglob("*.py")))

FLAGS_OF_OTHERS = {
    "--changed",
    "--database",
    "--deploy",
    "--help",
    "--http-timeout",
    "--include",
    "--json",
    "--layer",
    "--pid",
    "--ping-timeout",
    "--preload",
    "--proxy-headers",
    "--tag",
    "--urlconf",
    "--websocket",
    "--websocket-max-message-size",
    "--traceback",
}
"""
Options of other programs and of subcommands that the pages mention.
"""

SETTINGS_OF_OTHERS = {
    "ASGI_APPLICATION",
    "ASGI_THREADS",
    "ATOMIC_REQUESTS",
    "CHANNEL_LAYERS",
    "CONN_HEALTH_CHECKS",
    "CONN_MAX_AGE",
    "DEFAULT_CHANNEL_LAYER",
    "DJANGO_SETTINGS_MODULE",
    "REDIS_URL",
    "REMOTE_ADDR",
    "ROOT_URLCONF",
    "WEB_CONCURRENCY",
}
"""
Settings, variables and keys that are none of ours and in no list of Django's.
"""

KEYS = {
    AREAS[area] + spec.name.upper(): spec
    for area in AREAS
    for spec in fields(area)
    if spec.metadata["setting"]
}

SUBMODULES = {module.name for module in pkgutil.iter_modules(fairway.__path__)}

PRIVATE = {
    "fairway": {"__version__"},
    "fairway.asgi": {
        "Application",
        "Pages",
        "Resolution",
        "describe_routes",
        "import_application",
        "resolve_application",
    },
    "fairway.auth": {"UserLazyObject", "identify"},
    "fairway.consumers": {"await_many_dispatch", "get_handler_name"},
    "fairway.db": {"cleanup_due", "close_old_connections"},
    "fairway.layers": {"ChannelLayerManager"},
    "fairway.routing": {"Match", "UrlconfRouter", "single_callable"},
    "fairway.security": {
        "Refusal",
        "WebsocketDenier",
        "admit",
        "admit_request",
        "refusal",
        "request_refusal",
    },
    "fairway.sessions": {"InstanceSessionWrapper", "OwnSession", "open_session", "read_cookies"},
}
"""
Names of public modules that other modules of Fairway use, or that are there since Channels has
them: nobody is told of these. Whatever else such a module offers is on the page of names.
"""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
each_text = pytest.mark.parametrize("page", [*PAGES, *FRONT], ids=lambda page: page.stem)


@pytest.fixture(scope="module")
def from_code() -> dict[str, Any]:
    """
    What the build of the pages takes from the code.
    """
    return runpy.run_path(str(DOCS / "_ext" / "from_code.py"))


def documented() -> dict[str, set[str]]:
    """
    The names that the page of names describes, for each module.
    """
    found: dict[str, set[str]] = {}
    for module, members in re.findall(
        r"^\.\. automodule:: (\S+)\n   :members:(.*)$", NAMES, re.MULTILINE
    ):
        names = members.replace(" ", "").split(",") if members else []
        found[module] = set(names or importlib.import_module(module).__all__)
    for module, name in re.findall(r"^\.\. autoclass:: (\S+)\.(\w+)$", NAMES, re.MULTILINE):
        found.setdefault(module, set()).add(name)
    return found


@pytest.mark.parametrize("module", sorted({*documented(), *PRIVATE}))
def test_names(module: str) -> None:
    """
    Every public name is on the page of names, with a docstring.
    """
    imported = importlib.import_module(module)
    described = {id(getattr(imported, name)) for name in documented()[module]}
    if module == "fairway":
        consumers = importlib.import_module("fairway.consumers")
        described |= {id(getattr(consumers, name)) for name in consumers.__all__}
    public = set(imported.__all__) - PRIVATE.get(module, set())
    assert {name for name in public if id(getattr(imported, name)) not in described} == set()
    for name in public:
        value = getattr(imported, name)
        assert not callable(value) or value.__doc__, name


def test_options(from_code: dict[str, Any]) -> None:
    """
    The reference of settings shows each option: key, flag, variables, default, bounds, help.
    """
    assert "<!-- options -->" in (DOCS / "reference" / "settings.md").read_text()
    table = from_code["options"]()
    for area, prefix in AREAS.items():
        for spec in fields(area):
            assert f"`FAIRWAY_{prefix}{spec.name.upper()}` |" in table
    drain, port = "Time over which a stopping server", "Port to listen on; 0 takes a free one."
    for row in (
        f"| `DRAIN`<br>`--drain`<br>`FAIRWAY_DRAIN` | number, from 0 to 3600 | `25.0` s | {drain}",
        f"| `--port`<br>`PORT`<br>`FAIRWAY_PORT` | whole number, from 0 to 65535 | `8000` | {port}",
        "| `ACCESS_LOG`<br>`--access-log`<br>`FAIRWAY_ACCESS_LOG` | yes or no | no | Log one",
        (
            "| `COMPRESS_BYTES_MIN`<br>`--compress-bytes-min`<br>`FAIRWAY_COMPRESS_BYTES_MIN` | "
            "whole number, from 1 to `COMPRESS_BYTES_MAX` | `512` bytes | Smaller"
        ),
    ):
        assert f"\n{row}" in table
    assert {cell.count(" | ") for cell in table.splitlines() if cell.startswith("|")} == {3}


def test_close_codes(from_code: dict[str, Any]) -> None:
    """
    The page of consumers shows each close code.
    """
    assert "<!-- close codes -->" in (DOCS / "consumers.md").read_text()
    rows = from_code["close_codes"]().splitlines()[2:]
    assert [row.split()[1] for row in rows] == [str(code) for code in CLOSE_CODES]
    assert "| 1012 | the server restarts | yes |" in rows


def test_commands(from_code: dict[str, Any]) -> None:
    """
    The page of commands has each of them, those below ``manage.py fairway`` too.
    """
    text = (DOCS / "reference" / "commands.md").read_text()
    assert "<!-- subcommands -->" in text
    commands = (ROOT / "src" / "fairway" / "management" / "commands").glob("[!_]*.py")
    assert {path.stem for path in commands} <= set(re.findall(r"`manage\.py (\w+)", text))
    rows = from_code["subcommands"]().splitlines()[2:]
    assert rows == [f"| `fairway {name}` | {each.help} |" for name, each in SUBCOMMANDS.items()]


def test_contents(from_code: dict[str, Any]) -> None:
    """
    A part of the index becomes a table of contents with its heading; every page is in one, once.
    """
    made = from_code["with_contents"]((DOCS / "index.md").read_text())
    parts = re.findall(r"```\{toctree\}\n:hidden:\n:caption: [^\n]+\n\n(.*?)\n```", made, re.DOTALL)
    listed = sorted(entry for part in parts for entry in part.splitlines())
    assert listed == sorted(
        str(page.relative_to(DOCS).with_suffix("")) for page in PAGES if page.stem != "index"
    )


@pytest.mark.parametrize(
    ("depth", "text", "shown"),
    [
        (0, "see [it](../README.md).", "see it."),
        (0, "see [it](layers.md).", "see [it](layers.md)."),
        (1, "see [it](../layers.md).", "see [it](../layers.md)."),
        (1, "see [it](../../README.md).", "see it."),
    ],
)
def test_links_out(from_code: dict[str, Any], depth: int, text: str, shown: str) -> None:
    """
    A link to what is no page becomes its text.
    """
    assert from_code["without_links_out"](text, depth) == shown


def test_titles(from_code: dict[str, Any]) -> None:
    """
    A link that shows a file's name shows the title there; others stay.
    """
    text = "[a.md](a.md) [../a.md](../a.md#b-c) [this](a.md) [R101](a.md#r101)"
    shown = "[](a.md) [](../a.md#b-c) [this](a.md) [R101](a.md#r101)"
    assert from_code["with_titles"](text) == shown


@each_page
def test_flags(page: Path) -> None:
    """
    Every flag is one of the server's.
    """
    names = [spec.name.replace("_", "-") for spec in fields(ServerOptions)]
    known = {f"--{name}" for name in [*names, "no-access-log"]}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text()))
    assert named <= known | FLAGS_OF_OTHERS


@each_text
def test_settings(page: Path) -> None:
    """
    Every key of FAIRWAY and every variable exists.
    """
    text = page.read_text()
    named = [
        *re.findall(r"FAIRWAY(?:\[| = \{)\"(\w+)\"", text),
        *re.findall(r"\bFAIRWAY_([A-Z_]+)\b", text),
        *re.findall(r"\b(?:IPC|LAYER|REDIS(?!_URL))_[A-Z_]+\b", text),
    ]
    assert set(named) <= KEYS.keys()
    words = set(re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)`", text)) - SETTINGS_OF_OTHERS
    names = {word.removeprefix("FAIRWAY_") for word in words if not hasattr(global_settings, word)}
    assert names <= KEYS.keys()


@each_page
def test_defaults(page: Path) -> None:
    """
    A default behind a setting or flag, in a table, is the one in the code.
    """
    units = {"s": 1, "MiB": 1 << 20, "KiB": 1 << 10, "": 1}
    flags = {f"--{spec.name.replace('_', '-')}": spec for spec in fields(ServerOptions)}
    rows = re.findall(
        r"^\| `([\w-]+)(?: [A-Z]+)?` \| ([\d.]+) ?(\w*) \|", page.read_text(), re.MULTILINE
    )
    for name, number, unit in rows:
        default = {**KEYS, **flags}[name].default
        assert default is not MISSING
        assert float(number) * units[unit] == default, name


@each_page
def test_counters(page: Path) -> None:
    """
    Every counter exists, and so does every reason that is given for its rise.
    """
    text = page.read_text()
    known = set(re.findall(r'"(fairway_\w+)"', SOURCES))
    assert set(re.findall(r"\bfairway_[a-z_]+\b", text)) <= known
    for reason in re.findall(r'reason="(\w+)"', text):
        kind = reason.removeprefix("link_")
        assert f'"{reason}"' in SOURCES or f'"{kind}"' in SOURCES, reason


@each_text
def test_checks(page: Path) -> None:
    """
    Every check exists, and the page of checks has every one there is.
    """
    named = set(re.findall(r"\bfairway\.[EW]\d{3}\b", page.read_text()))
    known = set(re.findall(r'id="(fairway\.\w\d{3})"', SOURCES))
    assert named <= known
    if page.stem == "checks":
        assert named == known


@each_text
def test_code(page: Path) -> None:
    """
    Python on a page is Python, and what it imports from Fairway, or names of it, is there.
    """
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        tree = compile(block, page.name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fairway"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), block
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "fairway":
                assert hasattr(fairway, node.attr) or node.attr in SUBMODULES, block


@each_text
def test_mentions(page: Path) -> None:
    """
    What is named in full, as in ``fairway.layers.IPCChannelLayer``, is there.
    """
    for name in re.findall(r"`(fairway(?:\.[a-zA-Z_]\w*)+)(?=[`( ])", page.read_text()):
        if not re.fullmatch(r"fairway\.[EWR]\d{3}", name):
            assert pkgutil.resolve_name(name) is not None


@each_text
def test_links(page: Path) -> None:
    """
    Every file that is linked to exists.
    """
    linked = re.findall(r"\]\(([^)#:]+)[^)]*\)", page.read_text())
    assert [link for link in linked if not (page.parent / link).exists()] == []
