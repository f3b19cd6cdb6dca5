"""
System checks: what is wrong in a project's settings, what follows, and the fix.

Each has an id, ``fairway.E001`` and on for errors and ``fairway.W001`` and on for
warnings, and the tag ``fairway``; ``docs/checks.md`` lists them. A check looks at settings
and environment; it opens a database only where Django hands one over, and asks Redis servers only
for ``check --deploy``, which ``checks_redis`` does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import checks
from django.db import DatabaseError, connections

from fairway import conf
from fairway.exceptions import ConfigurationError, InvalidChannelLayerError
from fairway.faults import Fault
from fairway.options import AREAS, ServerOptions
from fairway.server.cpus import granted_cpus

__all__ = [
    "check_databases",
    "check_deployment",
    "check_redis",
    "check_settings",
    "register",
    "require_shared_layers",
]

PLATFORM_VARIABLES = {
    "DYNO": "Heroku",
    "ECS_CONTAINER_METADATA_URI_V4": "Amazon ECS",
    "FLY_APP_NAME": "Fly.io",
    "KUBERNETES_SERVICE_HOST": "Kubernetes",
    "K_SERVICE": "Cloud Run",
    "RAILWAY_ENVIRONMENT_NAME": "Railway",
    "RENDER": "Render",
    "WEBSITE_INSTANCE_ID": "Azure App Service",
}
PLATFORM_FILES = {
    "/.dockerenv": "Docker",
    "/run/.containerenv": "Podman",
}
"""
What shows that this is a container, of which there may be several.
"""

TYPO = 0.85
"""
How similar two names are of which one is taken for the other, mistyped: two letters of seven
swapped are.
"""

CONNECTION_LIMITS = """
SELECT current_setting('max_connections')::int
    - current_setting('superuser_reserved_connections')::int
    - coalesce(current_setting('reserved_connections', true), '0')::int,
    (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),
    (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user)
"""
"""
Asks PostgreSQL how many connections the server, the database and the role may have; -1 is any.
"""

CONNECTION_LIMIT_NAMES = (
    "max_connections",
    "CONNECTION LIMIT of the database",
    "CONNECTION LIMIT of the role",
)


def register() -> None:
    """
    Have ``manage.py check`` run the checks, each when what it looks at is there.
    """
    checks.register(check_settings, "fairway")
    checks.register(check_databases, "fairway", checks.Tags.database)
    checks.register(check_deployment, "fairway", deploy=True)
    checks.register(check_redis, "fairway", deploy=True)


def check_settings(**options: Any) -> list[checks.CheckMessage]:
    """
    Check what Fairway reads from the settings.
    """
    return [*_fairway(), *_asgi_application(), *_routes(), *_channel_layers(), *_processes()]


def check_databases(
    *, databases: Iterable[str] | None = None, **options: Any
) -> list[checks.CheckMessage]:
    """
    Compare the connections that this project may open with what its databases take.

    Args:
        databases: Aliases that may be looked at, as ``check --database`` and ``migrate`` name
            them.
        options: Of no interest here.
    """
    return [message for alias in databases or () for message in _connections(alias)]


def check_deployment(**options: Any) -> list[checks.CheckMessage]:
    """
    Check what is wrong only where the project is deployed, as ``check --deploy`` does.
    """
    return [*_containers(), *_rates(), *_static_files()]


def check_redis(**options: Any) -> list[checks.CheckMessage]:
    """
    Ask the Redis servers of the channel layers, as ``check --deploy`` does; for a few seconds.
    """
    from fairway.layers.registry import REDIS, channel_layers

    layers = {}
    for alias in _layers_of(REDIS):
        try:
            layers[alias] = channel_layers[alias]
        except InvalidChannelLayerError:  # Told with the settings.
            continue
    if not layers:
        return []
    # Needs the library of Redis, which a project without such a layer may not have.
    from fairway.checks_redis import check_layers

    processes, _ = _size()
    return list(check_layers(layers, processes))


def require_shared_layers(options: ServerOptions) -> None:
    """
    Refuse to serve with several processes over a layer of one, as flags may ask for.

    Raises:
        ConfigurationError: Some layer is of that kind.
    """
    for message in _memory_layers(options.workers or granted_cpus()):
        raise ConfigurationError(
            f"{message.msg} {message.hint} ({message.id})", fault=Fault.LAYER_NOT_SHARED
        )


def _fairway() -> Iterator[checks.CheckMessage]:
    """
    Look at the keys and values of ``FAIRWAY``, and of the variables that override them.
    """
    try:
        for key, nearest in conf.unknown_settings():
            yield checks.Error(
                f"FAIRWAY has no key {key!r}. It changes nothing.",
                hint=f"Did you mean {nearest!r}?" if nearest else "Remove it.",
                id="fairway.E001",
            )
        for area in AREAS:
            conf.resolve_options(area)
    except ConfigurationError as error:
        yield checks.Error(
            f"{error}. Neither runserver nor serve can start.",
            hint="Correct the value, or remove it for the default.",
            id="fairway.E002",
        )


def _asgi_application() -> Iterator[checks.CheckMessage]:
    """
    Look whether ``ASGI_APPLICATION`` leads to an application.
    """
    spec = getattr(settings, "ASGI_APPLICATION", None)
    if spec is None:
        return
    # Every command of the project imports this module, and few run the checks.
    from fairway.asgi import import_application

    try:
        import_application(spec, "ASGI_APPLICATION")
    except ConfigurationError as error:
        end = "" if str(error).endswith("?") else "."
        yield checks.Warning(
            f"{error}{end} Neither runserver nor serve can start.",
            hint="Correct ASGI_APPLICATION, or remove it: Fairway serves pages and the "
            "consumers in urls.py without it.",
            id="fairway.W001",
        )


def _routes() -> Iterator[checks.CheckMessage]:
    """
    Look for consumers in ``urls.py`` that were not made views, and where else they are looked for.
    """
    # As above; and checks of settings alone need no routes.
    from django.urls import get_resolver

    from fairway.routing.hosts import chooser

    try:
        chooser()
    except ConfigurationError as error:
        # One of a wrong type is told with the other options.
        if error.fault is Fault.URLCONF_INVALID:
            yield checks.Error(
                f"{error}. Neither runserver nor serve can start.",
                hint="Correct it, or remove it for ROOT_URLCONF.",
                id="fairway.E003",
            )
    if not getattr(settings, "ROOT_URLCONF", None):
        return
    routed = list(_routed_classes(get_resolver().url_patterns))
    for where, callback, cls in routed:
        if callback is cls:
            yield checks.Warning(
                f"The route {where!r} has the class {cls.__name__} itself. WebSockets reach it, "
                "with a warning; under other servers a request for it fails.",
                hint=f"Write {cls.__name__}.as_asgi().",
                id="fairway.W003",
            )
    for cls in dict.fromkeys(cls for _, _, cls in routed):
        yield from _names_of(cls)


def _routed_classes(entries: Iterable[Any], before: str = "") -> Iterator[tuple[str, Any, Any]]:
    """
    Find the consumers that are routed: each route, what it has, and the class.
    """
    # As above.
    from fairway.routing.callables import consumer_class_of

    for entry in entries:
        where = f"{before}{entry.pattern}"
        if hasattr(entry, "url_patterns"):
            yield from _routed_classes(entry.url_patterns, where)
        elif (cls := consumer_class_of(entry.callback)) is not None:
            yield where, entry.callback, cls


def _names_of(cls: type[Any]) -> Iterator[checks.CheckMessage]:
    """
    Look for names in a consumer class that nothing reads since they are written wrongly.
    """
    if isinstance(groups := getattr(cls, "groups", None), str):
        yield checks.Error(
            f"{cls.__name__}.groups is a text, each of whose letters would be a group.",
            hint=f"Write groups = [{groups!r}].",
            id="fairway.E005",
        )
    ours = [one for one in cls.__mro__ if one.__module__.startswith("fairway.")]
    known = sorted({name for one in ours for name in vars(one) if not name.startswith("_")})
    for name in vars(cls) if cls not in ours else ():
        near = get_close_matches(name, known, 1, cutoff=TYPO)
        # One within the other is meant as it is: reconnect, disconnected, group.
        if near and near[0] not in name and name not in near[0]:
            yield checks.Warning(
                f"{cls.__name__} has {name}, which Fairway neither reads nor calls.",
                hint=f"Did you mean {near[0]!r}? Else silence this.",
                id="fairway.W004",
            )


def _channel_layers() -> Iterator[checks.CheckMessage]:
    """
    Look for layers that are described wrongly, and for options that Fairway accepts and ignores.
    """
    from fairway.layers.registry import (
        IPC,
        MEMORY,
        OTHER_NAMES,
        REDIS,
        channel_layers,
        described_layers,
    )

    try:
        layers = described_layers()
    except InvalidChannelLayerError as error:
        yield checks.Error(
            f"{error}. Neither runserver nor serve can start.",
            hint="Correct it, or remove it: there is a layer without one.",
            id="fairway.E004",
        )
        return
    for alias, layer in layers.items():
        path = str(layer.get("BACKEND", ""))
        backend = OTHER_NAMES.get(path, path)
        if backend in {IPC, MEMORY, REDIS}:
            try:
                channel_layers[alias]
            except InvalidChannelLayerError as error:
                yield checks.Warning(
                    f"{error}. Whoever uses this layer gets that as an exception; where it is "
                    "the 'default' one, no server starts.",
                    hint="Correct CHANNEL_LAYERS.",
                    id="fairway.W005",
                )
        if backend.startswith("fairway.") and "group_expiry" in (layer.get("CONFIG") or {}):
            yield checks.Warning(
                f"CHANNEL_LAYERS[{alias!r}] sets group_expiry, which is ignored: a member "
                "leaves its groups when its connection ends, and not after a time.",
                hint="Remove group_expiry.",
                id="fairway.W002",
            )


def _processes() -> Iterator[checks.CheckMessage]:
    """
    Look for layers that know one process while several are to serve.
    """
    processes, _ = _size()
    return _memory_layers(processes)


def _memory_layers(processes: int) -> Iterator[checks.CheckMessage]:
    """
    Look for layers that know one process, if there are to be several outside of tests.
    """
    from fairway.layers.namespace import in_tests
    from fairway.layers.registry import MEMORY

    if processes == 1 or in_tests():
        return
    for alias in _layers_of(MEMORY):
        yield checks.Error(
            f"CHANNEL_LAYERS[{alias!r}] keeps messages within one process, and {processes} "
            "processes are to serve. A broadcast reaches only the sockets of the process it is "
            "made in.",
            hint='Use "BACKEND": "fairway.layers.IPCChannelLayer", which is the default, or let '
            "one process serve.",
            id="fairway.E202",
        )


def _connections(alias: str) -> Iterator[checks.CheckMessage]:
    """
    Ask one database for its limits; one that is away is for others to report.
    """
    connection = connections[alias]
    if connection.vendor != "postgresql":
        return
    try:
        with connection.cursor() as cursor:
            cursor.execute(CONNECTION_LIMITS)
            limits = zip(cursor.fetchone(), CONNECTION_LIMIT_NAMES, strict=True)
    except DatabaseError:
        return
    limit, name = min(found for found in limits if found[0] >= 0)
    processes, threads = _size()
    if processes * threads > limit:
        yield checks.Warning(
            f"{processes} processes with {threads} threads each (THREADS and PAGE_THREADS) may "
            f"open {processes * threads} connections to database {alias!r}, which takes {limit} "
            f'({name}). What comes after that fails with "too many connections".',
            hint="Lower WORKERS, THREADS or PAGE_THREADS, raise that limit, or put a connection "
            "pooler in between and silence this.",
            id="fairway.W201",
        )


def _containers() -> Iterator[checks.CheckMessage]:
    """
    Look for layers that know one machine where it may be one container of several.
    """
    from fairway.layers.registry import IPC

    sign = _container()
    for alias in _layers_of(IPC) if sign else ():
        yield checks.Warning(
            f"The channel layer {alias!r} reaches the processes of one machine, and this seems "
            f"to be a container ({sign}). Where several run, a broadcast ends at the border of "
            "the one it is made in.",
            hint="For several containers, name a channel layer with a broker in CHANNEL_LAYERS. "
            "For one, silence this with SILENCED_SYSTEM_CHECKS.",
            id="fairway.W203",
        )


def _rates() -> Iterator[checks.CheckMessage]:
    """
    Look whether anything limits how often one client connects.
    """
    from fairway.ratelimits import connect_limits

    try:
        limits = connect_limits()
    except ConfigurationError:  # Told with the other options.
        return
    if limits is None:
        yield checks.Warning(
            "Nothing limits how often one address or one user connects. A single client may take "
            "up connections and the database's time until others get none.",
            hint='Set FAIRWAY["CONNECTS_PER_ADDRESS"], with TRUSTED_PROXIES where a proxy is in '
            "front, or limit it in that proxy and silence this.",
            id="fairway.W204",
        )


def _static_files() -> Iterator[checks.CheckMessage]:
    """
    Look for static files that nobody can be serving; what a proxy does is not to be seen.
    """
    # Django's handlers need settings, which not every command has that imports this module.
    from fairway.pages.static import collected, unserved_path

    try:
        path = unserved_path()
    except Exception:  # noqa: BLE001 - URLs that cannot be read are reported by Django's checks
        return
    if path is not None and not collected():
        what = "is empty or missing" if settings.STATIC_ROOT else "is not set"
        yield checks.Warning(
            f"Nothing serves the static files at {path}: no middleware and no view is there for "
            f"them, and STATIC_ROOT {what}, so that no proxy can. Pages, those of the admin too, "
            "come without style.",
            hint="Set STATIC_ROOT, run collectstatic, and add WhiteNoise's middleware or have a "
            "proxy serve that folder.",
            id="fairway.W205",
        )


def _container() -> str | None:
    """
    Name the platform whose container this is, with what shows it.
    """
    for variable, platform in PLATFORM_VARIABLES.items():
        if os.environ.get(variable):
            return f"{variable} is set: {platform}"
    for file, platform in PLATFORM_FILES.items():
        if Path(file).exists():
            return f"{file} exists: {platform}"
    return None


def _layers_of(backend: str) -> list[str]:
    """
    Name the layers that are of one kind, under whichever of its names.
    """
    from fairway.layers.registry import OTHER_NAMES, channel_layers

    try:
        configs = channel_layers.configs
    except InvalidChannelLayerError:  # Told where layers are looked at one by one.
        return []
    paths = {alias: str(layer.get("BACKEND", "")) for alias, layer in configs.items()}
    return [alias for alias, path in paths.items() if OTHER_NAMES.get(path, path) == backend]


def _size() -> tuple[int, int]:
    """
    Count the processes that settings and environment ask for, and all threads of each.

    One and none if they are wrong, which another check says.
    """
    try:
        options, _ = conf.resolve_server_options()
    except ConfigurationError:
        return 1, 0
    return options.workers or granted_cpus(), options.threads + options.page_threads
