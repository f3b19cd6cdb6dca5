"""
The command line: ``fairway module:app``, and what ``serve`` and ``runserver`` share with it.

Flags are made from ``ServerOptions``, so each setting has one. Nothing here
knows how to serve: options and callables are put together and handed to
``fairway.server``.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import platform
import re
import sys
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, get_type_hints

import django
from django.core.management.base import CommandError

import fairway
from fairway.asgi import describe_routes, resolve_application
from fairway.checks import require_shared_layers
from fairway.conf import resolve_server_options
from fairway.consumers.hints import describe
from fairway.exceptions import ConfigurationError, InvalidChannelLayerError
from fairway.faults import Fault
from fairway.layers.registry import bind, describe_default, get_channel_layer, release
from fairway.logs import configure_logging, show_warnings
from fairway.management import subcommands
from fairway.options import ServerOptions
from fairway.security.handshake import describe_hosts
from fairway.server import Server
from fairway.server.log import exit_status, say
from fairway.server.place import Seated
from fairway.server.supervisor import become_supervisor
from fairway.thread_connections import ThreadConnections
from fairway.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fairway.conf import Source
    from fairway.server.place import Place
    from fairway.server.run import Hook
    from fairway.threads import Ledger, Seat
    from fairway.types import ASGIApplication

    Resolved: TypeAlias = tuple[ServerOptions, dict[str, Source]]

__all__ = [
    "add_flags",
    "build_server",
    "describe_broken",
    "given_flags",
    "life_of",
    "main",
    "make_threads",
    "refuse_wrong_layer",
    "serve",
]


def add_flags(parser: argparse.ArgumentParser, skip: Sequence[str] = ()) -> None:
    """
    Give a parser one flag per server option; flags for yes and no have a ``--no-`` form.

    Args:
        parser: Any parser; ``None`` stands for "not given".
        skip: Options the command settles in its own way.
    """
    _explain_mistakes(parser)
    listening = parser.add_argument_group("where to listen")
    limits = parser.add_argument_group("limits and behaviour")
    hints = get_type_hints(ServerOptions)
    for spec in fields(ServerOptions):
        if spec.name in skip:
            continue
        rules: Any = spec.metadata
        group = limits if rules["setting"] else listening
        default = "none" if spec.default in (None, "", ()) else spec.default
        unit = f" {rules['unit']}" if rules["unit"] else ""
        keywords: dict[str, Any] = {
            "dest": spec.name,
            "default": None,
            "help": f"{rules['help']} Default: {default}{unit}.".replace("%", "%%"),
        }
        if hints[spec.name] is bool:
            keywords["action"] = argparse.BooleanOptionalAction
            # argparse would add the default, which is None, on its own.
            keywords["default"] = argparse.SUPPRESS
        else:
            keywords["type"] = _converter(hints[spec.name])
            keywords["choices"] = rules["choices"] or None
            keywords["metavar"] = rules["unit"].upper() or None if not rules["choices"] else None
        group.add_argument(f"--{spec.name.replace('_', '-')}", **keywords)


def describe_broken(error: Exception) -> str:
    """
    Say in one line why a project cannot be loaded.
    """
    return f"the project cannot be loaded: {describe(error)}"


def refuse_wrong_layer(alias: str) -> None:
    """
    Say in one line what is wrong with a channel layer without which a command cannot start.

    Raises:
        CommandError: Settings describe none.
    """
    try:
        get_channel_layer(alias)
    except InvalidChannelLayerError as error:
        raise CommandError(f"{error} [{Fault.LAYER_INVALID}]", returncode=2) from error


def given_flags(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """
    Pick the server options that were given on the command line.
    """
    names = {spec.name for spec in fields(ServerOptions)}
    return {name: value for name, value in namespace.items() if name in names and value is not None}


def build_server(
    resolved: Resolved,
    say: Callable[[str], None],
    *,
    application: str | None = None,
    static: bool | None = None,
    ready: Callable[[str], None] | None = None,
    place: Place | None = None,
) -> Server:
    """
    Put a server together from options and callables.

    Args:
        resolved: The options, with where each value came from.
        say: Prints one line for people.
        application: ``module:name``; None to go by the settings.
        static: Whether static files are served, as for ``resolve_application``.
        ready: Called with the address once it serves, after the lines of the start.
        place: Where it stands among others; None for on its own.
    """
    options, sources = resolved
    if place is not None and not place.speaks:
        say = _say_nothing
    notes: list[str] = []

    def load() -> ASGIApplication:
        show_warnings(deprecations=place is None or place.speaks)
        try:
            if os.environ.get("DJANGO_SETTINGS_MODULE"):
                django.setup()
            require_shared_layers(options)
            found = resolve_application(application, static=static)
        except ConfigurationError:
            raise
        except Exception as error:
            raise ConfigurationError(describe_broken(error), fault=Fault.PROJECT_BROKEN) from error
        # What was loaded may have configured logging anew and disabled our loggers.
        configure_logging(_logging_setting())
        notes[:] = (*found.notes, *describe_hosts(), *describe_routes(found.application))
        return found.application

    def on_ready(address: str) -> None:
        # Not before: a start that fails has one line to say.
        for line in (*notes, *_summary(options, sources)):
            say(line)
        if place is None:
            # Else a supervisor says it, once all serve.
            say(f"Serving on {address}")
        if ready is not None:
            ready(address)

    begin, end = life_of(make_threads(options))
    return Server(options, load, on_start=begin, on_stop=end, on_ready=on_ready, place=place)


def make_threads(
    options: ServerOptions, make_ledger: Callable[[Seat], Ledger] = ThreadConnections
) -> Threads:
    """
    Prepare the threads of a server as its options say.
    """
    return Threads(
        make_ledger,
        consumers=options.threads,
        pages=options.page_threads,
        page_queue=options.page_queue,
        close_timeout=options.application_close_timeout,
    )


def life_of(threads: Threads) -> tuple[Hook, Hook]:
    """
    Say what begins and ends with each server that serves a project, in a command or in a test.

    Returns:
        What is awaited on the server's loop at its start, and at its end.
    """

    async def begin(loop: asyncio.AbstractEventLoop) -> None:
        threads.start()
        await bind(loop)

    async def end(loop: asyncio.AbstractEventLoop) -> None:
        await release(loop)
        await threads.stop()

    return begin, end


def serve(flags: Mapping[str, Any], *, application: str | None = None) -> int:
    """
    Serve in the main thread of a command, or under a supervisor that takes this process over.

    Args:
        flags: Server options given on the command line.
        application: ``module:name``; None to go by the settings.

    Returns:
        The exit status: 2 after a wrong configuration, which is printed as one line.
    """

    def serve_or_supervise() -> int:
        place = Seated.take(os.environ)
        resolved = resolve_server_options(flags)
        if place is None and _is_supervised(*resolved):
            become_supervisor(resolved[0])
        return build_server(resolved, say, application=application, place=place).run()

    return exit_status(serve_or_supervise)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run ``fairway module:app``: serve any ASGI application, a Django project or not.

    ``fairway publish ...`` and other subcommands have their own arguments.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in subcommands.SUBCOMMANDS:
        return subcommands.main(arguments)
    parser = argparse.ArgumentParser(
        prog="fairway",
        # All flags are in the help; a mistake is to be seen at a glance.
        usage="%(prog)s [options] module:name",
        description="Serve an ASGI application.",
        epilog=subcommands.EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("application", help="the application, as module:name")
    parser.add_argument("--version", action="version", version=f"Fairway {fairway.__version__}")
    parser.add_argument("--app-dir", default=".", help="Directory to import from. Default: here.")
    add_flags(parser)
    namespace = vars(parser.parse_args(arguments))
    sys.path.insert(0, os.path.abspath(namespace.pop("app_dir")))  # noqa: PTH100 - a plain path
    application = namespace.pop("application")
    module, colon, _ = application.partition(":")
    _adopt_settings(module if colon else application.rpartition(".")[0])
    configure_logging()
    return serve(given_flags(namespace), application=application)


def _explain_mistakes(parser: argparse.ArgumentParser) -> None:
    """
    Have a parser end its complaints with the flag that was probably meant, and the fault's id.
    """
    complain = parser.error
    flags = [f"--{spec.name.replace('_', '-')}" for spec in fields(ServerOptions)]

    def error(message: str) -> NoReturn:
        unknown = re.findall(r"--[\w-]+", message) if message.startswith("unrecognized") else []
        near = [one for flag in unknown for one in get_close_matches(flag, flags, 1)]
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        complain(f"{message}{hint} [{Fault.UNKNOWN_FLAG}]")

    parser.error = error  # type: ignore[method-assign] # Django's own subclass of it has to stay


def _adopt_settings(path: str) -> None:
    """
    Set ``DJANGO_SETTINGS_MODULE`` as the application's module itself does, but before its imports.

    Else a module that imports models at its top would work under ``manage.py`` alone.
    """
    try:
        spec = importlib.util.find_spec(path)
        source = importlib.util.decode_source(Path(spec.origin or "").read_bytes()) if spec else ""
    except Exception:  # noqa: BLE001 - what is wrong, importing it says
        return
    found = re.search(
        r"""^os\.environ\.setdefault\(\s*["']DJANGO_SETTINGS_MODULE["'],\s*["']([\w.]+)["']""",
        source,
        re.MULTILINE,
    )
    if found:
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", found[1])


def _is_supervised(options: ServerOptions, sources: Mapping[str, str]) -> bool:
    """
    Whether processes are asked for, and not just one that serves.

    Raises:
        ConfigurationError: They cannot be had on this system.
    """
    asked = sources["workers"] != "default" or options.max_requests > 0
    if sys.platform == "win32" and asked:
        if options.workers == 1 and not options.max_requests:
            return False
        raise ConfigurationError(
            "workers: Windows has one process only; leave --workers and --max-requests out",
            fault=Fault.FLAGS_CONFLICT,
        )
    return asked


def _summary(options: ServerOptions, sources: Mapping[str, str]) -> list[str]:
    """
    Say what runs, with which layer, and each value that is not a default with its source.
    """
    versions = fairway.__version__, django.get_version(), platform.python_version()
    layer = f"Channel layer: {describe_default()}"
    lines = ["Fairway {}, Django {}, Python {}".format(*versions), layer]
    changed = [
        f"{name}={getattr(options, name)!r} ({source})"
        for name, source in sources.items()
        if source != "default"
    ]
    if changed:
        lines.append(f"Settings: {', '.join(changed)}")
    return lines


def _logging_setting() -> Mapping[str, Any] | None:
    """
    Give the project's ``LOGGING``, if there is a project.
    """
    from django.conf import settings

    return getattr(settings, "LOGGING", None) if settings.configured else None


def _converter(hint: Any) -> Callable[[str], Any]:
    """
    Find what turns a flag's text into its value.
    """
    kinds = {int: int, float: float, int | None: int, float | None: float}
    return kinds.get(hint, str)


def _say_nothing(line: str) -> None:
    """
    Leave it to the first worker to print what is the same for all.
    """
