"""
What the pages take from the code while they are built, so that it is written down once.

- ``<!-- options -->`` becomes a table for each area of options.
- ``<!-- close codes -->`` becomes the table of close codes, ``<!-- subcommands -->`` that of what
  ``manage.py fairway`` can do.
- Each list of links below a heading of the index becomes a part of the table of contents.
- A link to a file of the project that is no page becomes its name, and one that shows the name
  of a page shows its title.
- What a module says at its top is for those who work on it and left out, but for the tree of
  exceptions.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from fairway.conf import FAMILIAR_VARIABLES
from fairway.management.subcommands import SUBCOMMANDS
from fairway.options import AREAS, ServerOptions
from fairway.wire.codes import CLOSE_CODES

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["close_codes", "options", "setup", "with_contents", "with_titles", "without_links_out"]


def setup(app: Sphinx) -> dict[str, Any]:
    """
    Have Sphinx call this module for every page it reads.
    """
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("source-read", _complete)
    app.connect("autodoc-process-docstring", _shorten)
    return {"parallel_read_safe": True}


def options() -> str:
    """
    Describe every option there is, area by area.
    """
    return "\n\n".join(_area(area, prefix) for area, prefix in AREAS.items())


def close_codes() -> str:
    """
    List every close code, with what it means and whether to come back.
    """
    rows = (
        (str(code), known.meaning, "yes" if known.reconnect else "no")
        for code, known in CLOSE_CODES.items()
    )
    return _table(("Code", "Means", "Comes back"), rows)


def subcommands() -> str:
    """
    List what ``manage.py fairway`` can do.
    """
    rows = ((f"`fairway {name}`", found.help) for name, found in SUBCOMMANDS.items())
    return _table(("Command", "Does"), rows)


TABLES = {
    "<!-- options -->": options,
    "<!-- close codes -->": close_codes,
    "<!-- subcommands -->": subcommands,
}
"""
What stands in a page where a table is to be.
"""


def with_contents(index: str) -> str:
    """
    Put the links of each part of the index into a table of contents that carries its heading.
    """
    parts = re.split(r"^(?=## )", index, flags=re.MULTILINE)
    return "".join(part + _contents(part) for part in parts)


def without_links_out(text: str, depth: int) -> str:
    """
    Leave the names of files outside of the pages, which a built site does not hold.

    Args:
        text: A page.
        depth: How many folders it is below the first page.
    """
    out = r"\.\./" * (depth + 1)
    return re.sub(rf"\[([^]]*)\]\({out}[^)]*\)", r"\1", text)


def with_titles(text: str) -> str:
    """
    Have links that show the name of a page's file show the title that they lead to.
    """
    return re.sub(r"\[[\w/.-]+\.md\](?=\([\w/.-]+\.md(?:#[\w-]+)?\))", "[]", text)


def _complete(app: Sphinx, page: str, source: list[str]) -> None:
    """
    Complete the source of one page.
    """
    text = source[0]
    if page == "index":
        text = with_contents(text)
    text = with_titles(without_links_out(text, page.count("/")))
    for mark, table in TABLES.items():
        text = text.replace(mark, table())
    source[0] = text


def _shorten(
    app: Sphinx, kind: str, name: str, documented: Any, given: Any, lines: list[str]
) -> None:
    if kind == "module" and name != "fairway.exceptions":
        lines.clear()


def _contents(part: str) -> str:
    pages = re.findall(r"^- \[[^]]*\]\(([\w/-]+)\.md\)", part, re.MULTILINE)
    if not pages:
        return ""
    heading = part.splitlines()[0].removeprefix("## ")
    entries = "\n".join(pages)
    return f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{entries}\n```\n\n"


def _area(area: type[Any], prefix: str) -> str:
    """
    Describe the options of one dataclass.
    """
    hints = get_type_hints(area)
    heading = area.__name__.removesuffix("Options") or area.__name__
    rows = (_row(area, prefix, spec, hints[spec.name]) for spec in fields(area))
    columns = ("Key, flag, variable", "Takes", "Default", "Meaning")
    return f"## {heading}\n\n{inspect.getdoc(area)}\n\n{_table(columns, rows)}"


def _row(area: type[Any], prefix: str, spec: Field[Any], hint: Any) -> tuple[str, ...]:
    rules = spec.metadata
    return (
        "<br>".join(f"`{name}`" for name in _names(area, prefix, spec)),
        ", ".join(filter(None, [_kind(hint), _bounds(rules)])),
        _default(spec.default, rules["unit"]),
        rules["help"].replace("<", "\\<"),
    )


def _names(area: type[Any], prefix: str, spec: Field[Any]) -> Iterator[str]:
    """
    Give every way to say one option: key, flag, variables.
    """
    key = prefix + spec.name.upper()
    if spec.metadata["setting"]:
        yield key
    if area is ServerOptions:
        yield f"--{spec.name.replace('_', '-')}"
        yield from (name for name, meant in FAMILIAR_VARIABLES.items() if meant == spec.name)
    yield f"FAIRWAY_{key}"


def _default(value: Any, unit: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in {None, "", ()} else f"`{value}` {unit}".strip()


def _kind(hint: Any) -> str:
    if get_origin(hint) is tuple:
        return "list of texts"
    words = {bool: "yes or no", int: "whole number", float: "number", str: "text"}
    return next(words[one] for one in get_args(hint) or (hint,) if one in words)


def _bounds(rules: Any) -> str:
    """
    Say which values are accepted.
    """
    if rules["choices"]:
        return " or ".join(f"`{choice}`" for choice in rules["choices"])
    if rules["pattern"]:
        return str(rules["pattern"][1])
    low, high = rules["minimum"], rules["maximum"]
    if rules["at_most"]:
        # Its own largest value, if it has one, is that of the other.
        return f"from {low or 0:.10g} to `{rules['at_most'].upper()}`"
    if high is not None:
        return f"from {low or 0:.10g} to {high:.10g}"
    return "" if low is None else f"from {low:.10g}"


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """
    Write a table in Markdown.
    """
    columns = tuple(columns)
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )
