"""
Why a path leads nowhere: the route that was probably meant, and what about it does not fit.

Asked for only when a WebSocket is refused, so nothing here is on the way of one that is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from fairway.routing.matching import Route

__all__ = ["describe"]

GROUP = re.compile(r"\(\?P<(\w+)>")
VALUE_MAX = 100
"""
Characters of the path that are repeated.
"""


class Loose(NamedTuple):
    """
    A route's expression that takes anything up to the next slash for its named parts.

    Attributes:
        expression: Itself.
        parts: What the named parts take really.
    """

    expression: re.Pattern[str]
    parts: dict[str, re.Pattern[str]]


def describe(shown: str, path: str, routes: Iterable[Route], reaches: Callable[[str], bool]) -> str:
    """
    Say that a path leads nowhere, and what is probably meant.

    Args:
        shown: The path as the client sent it.
        path: As the routes see it.
        routes: Those that do not fit.
        reaches: Whether another path would lead somewhere.
    """
    message = f"No route found for path {shown!r}."
    if not path.strip("/"):
        return message
    if reaches(_other_end(path)):
        return f"{message} Did you mean {_other_end(shown)!r}?"
    single = _single_slashes(path)
    # Nested routers see a path without the first.
    if reaches(single) or reaches(single.removeprefix("/")):
        return f"{message} Did you mean {_single_slashes(shown)!r}?"
    for where, name, value in _near(routes, path):
        return (
            f"{message} Route {where!r} does not take {value[:VALUE_MAX]!r} for {name!r}; "
            f"<str:{name}> would."
        )
    return message


def _other_end(path: str) -> str:
    """
    Add the slash at the end, or leave it out.
    """
    return path.removesuffix("/") if path.endswith("/") else f"{path}/"


def _single_slashes(path: str) -> str:
    """
    Write one slash where an address was put together with several.
    """
    return re.sub("/{2,}", "/", path)


def _near(routes: Iterable[Route], path: str, before: str = "") -> Iterator[tuple[str, str, str]]:
    """
    Find routes that would fit if their named parts took anything, each with one that does not.
    """
    for route in routes:
        loose = _loosen(route.pattern.regex.pattern)
        found = loose and loose.expression.search(path)
        if not loose or not found:
            continue
        where = f"{before}{route.pattern}".removeprefix("^/")
        misfit = next(_misfits(route.pattern, loose, found.groupdict()), None)
        rest = path[found.end() :]
        if route.application is None:
            for deeper in _near(route.children, rest, where):
                yield (where + deeper[0].removeprefix(where), *(misfit or deeper[1:]))
        elif misfit:
            yield (where, *misfit)


def _misfits(pattern: Any, loose: Loose, values: dict[str, str]) -> Iterator[tuple[str, str]]:
    """
    Name the parts of a path that a pattern does not take.
    """
    converters = getattr(pattern, "converters", {})
    for name, value in values.items():
        if not loose.parts[name].fullmatch(value) or not _converts(converters.get(name), value):
            yield name, value


def _converts(converter: Any, value: str) -> bool:
    try:
        return converter is None or converter.to_python(value) is not converter
    except ValueError:
        return False


@lru_cache(maxsize=1024)
def _loosen(source: str) -> Loose | None:
    """
    Have the named parts of an expression take anything; None if it is too clever for that.
    """
    text, parts, position = "", {}, 0
    try:
        while group := GROUP.search(source, position):
            end = _end_of_group(source, group.end())
            name = group[1]
            parts[name] = re.compile(source[group.end() : end])
            text += f"{source[position : group.start()]}(?P<{name}>[^/]+)"
            position = end + 1
        return Loose(re.compile(text + source[position:]), parts)
    except (re.error, IndexError):
        return None


def _end_of_group(source: str, position: int) -> int:
    """
    Find the parenthesis that closes a group, past escapes, classes and groups inside.
    """
    depth, in_class = 1, False
    while depth:
        character = source[position]
        if character == "\\":
            position += 1
        elif in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character in "()":
            depth += 1 if character == "(" else -1
        position += 1
    return position - 1
