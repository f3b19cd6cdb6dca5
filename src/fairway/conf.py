"""
Where each option's value comes from: default, ``FAIRWAY`` setting, environment or flag.

Later ones win, in that order. ``FAIRWAY = {"HEAD_TIMEOUT": 5}`` and the variable
``FAIRWAY_HEAD_TIMEOUT=5`` name the same field; variables that people set anyway
(``PORT``, ``WEB_CONCURRENCY``) are read too. What an option means, its bounds and
its help are in ``options``; nothing is looked up before somebody asks.
"""

from __future__ import annotations

import difflib
import os
import types
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from django.conf import settings

from fairway.exceptions import ConfigurationError
from fairway.options import (
    AREAS,
    Options,
    ServerOptions,
    conflicts,
    validate,
    validate_value,
)

__all__ = [
    "Reading",
    "Source",
    "UnknownSetting",
    "changed_options",
    "django_setting",
    "readings",
    "resolve_options",
    "resolve_server_options",
    "unknown_settings",
    "unknown_variables",
]

Source = Literal["default", "settings", "environment", "flag"]

FAMILIAR_VARIABLES = {
    "ASGI_THREADS": "threads",
    "PORT": "port",
    "WEB_CONCURRENCY": "workers",
}
"""
Variables that are set for any server, and the option each one means. (``HOST`` is not among
them: some shells and package managers keep the machine's name or kind in it.)
"""

Area = TypeVar("Area", bound=Options)


class UnknownSetting(NamedTuple):
    """
    A key of the ``FAIRWAY`` dict that means nothing: what ``fairway.E001`` reports.

    Attributes:
        key: As written.
        nearest: The known key that was probably meant, or None.
    """

    key: str
    nearest: str | None


class Reading(NamedTuple):
    """
    One option as it is at present.

    Attributes:
        key: Its key in the ``FAIRWAY`` dict, and behind ``FAIRWAY_`` in the environment.
        value: What holds; what was written, if that is wrong.
        unit: What a number counts.
        source: Where the value came from.
        where: The setting or variable that holds it; empty for a default.
        variables: The variables that are read for it.
        problem: What is wrong with it; empty for nothing.
    """

    key: str
    value: Any
    unit: str
    source: Source
    where: str
    variables: list[str]
    problem: str


def resolve_server_options(
    flags: Mapping[str, Any] | None = None,
) -> tuple[ServerOptions, dict[str, Source]]:
    """
    Fill the server's options.

    Args:
        flags: Values by field name, as a command line gave them; None means not given.

    Returns:
        The options, and for each field where its value came from.

    Raises:
        ConfigurationError: A value has the wrong type or is out of bounds.
    """
    return resolve_options(ServerOptions, flags)


def resolve_options(
    area: type[Area], flags: Mapping[str, Any] | None = None
) -> tuple[Area, dict[str, Source]]:
    """
    Fill one area's options, as far as nothing closer to their use says otherwise.

    Returns:
        The options, and for each field where its value came from.

    Raises:
        ConfigurationError: A value has the wrong type or is out of bounds.
    """
    configured = _fairway()
    hints = get_type_hints(area)
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {spec.name: "default" for spec in fields(area)}
    for spec in fields(area):
        found = _find(spec, AREAS[area], configured, flags or {})
        if found is not None:
            source, where, value = found
            values[spec.name] = _convert(value, hints[spec.name], where)
            sources[spec.name] = source
    options = area(**values)
    validate(options)
    return options, sources


def changed_options(area: type[Options]) -> dict[str, Any]:
    """
    Give the options of one area that settings or environment change.

    Raises:
        ConfigurationError: A value has the wrong type or is out of bounds.
    """
    options, sources = resolve_options(area)
    return {name: getattr(options, name) for name, source in sources.items() if source != "default"}


def readings(area: type[Options]) -> list[Reading]:
    """
    Read the options of one area one by one, so that a wrong value hides no other.

    Raises:
        ConfigurationError: ``FAIRWAY`` is no dict.
    """
    configured = _fairway()
    hints = get_type_hints(area)
    found = {spec.name: _read(area, spec, hints[spec.name], configured) for spec in fields(area)}
    right = {name: each.value for name, each in found.items() if not each.problem}
    for name, problem in conflicts(area(**right)).items():
        if name in right:
            found[name] = found[name]._replace(problem=problem)
    return list(found.values())


def unknown_variables() -> list[UnknownSetting]:
    """
    Find the variables that begin like Fairway's and mean nothing, each with the nearest that does.
    """
    known = sorted(
        f"FAIRWAY_{AREAS[area]}{spec.name.upper()}" for area in AREAS for spec in fields(area)
    )
    return [
        UnknownSetting(name, next(iter(difflib.get_close_matches(name, known, 1)), None))
        for name in sorted(os.environ)
        if name.startswith("FAIRWAY_") and name not in known
    ]


def unknown_settings() -> list[UnknownSetting]:
    """
    Find the keys of the ``FAIRWAY`` dict that mean nothing, each with the nearest that does.
    """
    known = sorted(key for area in AREAS for key in _keys(area))
    unknown = [str(key) for key in _fairway() if key not in known]
    return [
        UnknownSetting(key, next(iter(difflib.get_close_matches(key.upper(), known, 1)), None))
        for key in unknown
    ]


def django_setting(name: str, default: Any) -> Any:
    """
    Give one of Django's settings, or the default in a process that uses no Django settings.
    """
    if not settings.configured and not os.environ.get("DJANGO_SETTINGS_MODULE"):
        return default
    return getattr(settings, name, default)


def _find(
    spec: Field[Any], prefix: str, configured: Mapping[str, Any], flags: Mapping[str, Any]
) -> tuple[Source, str, Any] | None:
    """
    Find the value that wins for one field, and where it was written.
    """
    if flags.get(spec.name) is not None:
        return "flag", f"--{spec.name.replace('_', '-')}", flags[spec.name]
    key = prefix + spec.name.upper()
    for variable in _variables(spec, prefix):
        if os.environ.get(variable):
            return "environment", variable, os.environ[variable]
    if spec.metadata["setting"] and key in configured:
        return "settings", f"FAIRWAY[{key!r}]", configured[key]
    return None


def _variables(spec: Field[Any], prefix: str) -> list[str]:
    """
    Name the variables that are read for one field, the one that wins first.
    """
    familiar = [name for name, field in FAMILIAR_VARIABLES.items() if field == spec.name]
    return [f"FAIRWAY_{prefix}{spec.name.upper()}", *(() if prefix else familiar)]


def _read(
    area: type[Options], spec: Field[Any], kind: Any, configured: Mapping[str, Any]
) -> Reading:
    """
    Read one option.
    """
    found = _find(spec, AREAS[area], configured, {})
    source, where, value = found or ("default", "", spec.default)
    problem = ""
    try:
        value = _convert(value, kind, where)
        validate_value(spec, value)
    except ConfigurationError as error:
        problem = str(error)
    key = AREAS[area] + spec.name.upper()
    variables = _variables(spec, AREAS[area])
    return Reading(key, value, spec.metadata["unit"], source, where, variables, problem)


def _convert(value: Any, kind: Any, where: str) -> Any:
    """
    Bring a value to a field's type: text from outside is read, other types must fit.

    Raises:
        ConfigurationError: It cannot be read as that type.
    """
    alternatives = get_args(kind) if get_origin(kind) in {Union, types.UnionType} else (kind,)
    if value is None and type(None) in alternatives:
        return None
    if callable(value) and any(get_origin(one) is Callable for one in alternatives):
        return value
    wanted = next(one for one in alternatives if one is not type(None))
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    if get_origin(wanted) is tuple:
        if isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
            return tuple(value)
        wanted = tuple
    if type(value) is wanted:
        return value
    if isinstance(value, str) and wanted in _READERS:
        try:
            return _READERS[wanted](value.strip())
        except (KeyError, ValueError):
            pass
    raise ConfigurationError(f"{where} must be {_NAMES.get(wanted, wanted)}, not {value!r}")


def _fairway() -> dict[str, Any]:
    """
    Give the ``FAIRWAY`` dict of Django's settings, empty without one.

    Raises:
        ConfigurationError: It is something else.
    """
    configured = django_setting("FAIRWAY", {})
    if not isinstance(configured, dict):
        raise ConfigurationError(f"FAIRWAY must be a dict, not {type(configured).__name__}")
    return configured


def _keys(area: type[Options]) -> list[str]:
    """
    Name the ``FAIRWAY`` keys of one area.
    """
    return [AREAS[area] + spec.name.upper() for spec in fields(area) if spec.metadata["setting"]]


def _words(text: str) -> tuple[str, ...]:
    """
    Read a list as environment and flags write it, with commas.
    """
    return tuple(word.strip() for word in text.split(",") if word.strip())


_WORDS = {
    "1": True, "true": True, "yes": True, "on": True,
    "0": False, "false": False, "no": False, "off": False,
}  # fmt: skip
_READERS: dict[Any, Any] = {
    bool: lambda text: _WORDS[text.lower()],
    float: float,
    int: int,
    tuple: _words,
}
_NAMES = {
    bool: "true or false",
    float: "a number",
    int: "a whole number",
    str: "text",
    tuple: "a list of texts",
}
