"""
Who may open a WebSocket or reach an HTTP consumer: Fairway's own rule about Host and Origin.

It is the one of Django's ``CsrfViewMiddleware`` and needs no configuration. Sessions and users
are not looked at here.
"""

from __future__ import annotations

import json
import logging
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.signals import setting_changed
from django.http import HttpRequest
from django.http.request import split_domain_port
from django.utils.http import is_same_domain

from fairway import metrics
from fairway.faults import Fault
from fairway.security.origins import SHOWN_MAX, deny, parsed, shown
from fairway.types import Receive, Scope, Send

__all__ = [
    "Refusal",
    "admit",
    "admit_request",
    "describe_hosts",
    "refusal",
    "request_refusal",
]

logger = logging.getLogger("fairway.security")

# What Django's rules read, under the names in which it reads them.
_READ = {
    b"host": "HTTP_HOST",
    b"origin": "HTTP_ORIGIN",
    b"x-forwarded-host": "HTTP_X_FORWARDED_HOST",
    b"x-forwarded-port": "HTTP_X_FORWARDED_PORT",
}
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # As Django's CsrfViewMiddleware.
_ADMITTED_MAX = 1024
_ADMITTED_LENGTH_MAX = 1024


class Refusal(NamedTuple):
    """
    Why a handshake is refused.

    Attributes:
        kind: ``host`` or ``origin``, for the counter.
        reason: What was found and what was expected.
        fix: The line for the settings, if the peer is welcome after all.
    """

    kind: str
    reason: str
    fix: str

    @property
    def status(self) -> int:
        """
        What Django answers a request with for the same reason.
        """
        return 400 if self.kind == "host" else 403

    @property
    def fault(self) -> Fault:
        """
        Its id in the log.
        """
        return Fault.HOST_REFUSED if self.kind == "host" else Fault.ORIGIN_REFUSED

    @property
    def words(self) -> bytes:
        """
        What the client is told: in production not the reason, which is for the log.
        """
        if settings.DEBUG:
            return f"{self.reason}. If it is yours: {self.fix} [{self.fault}]\n".encode()
        return f"The {self.kind} of this request is not allowed here.\n".encode()


class Admitted(NamedTuple):
    """
    Handshakes that passed, and what two settings were then; replaced as a whole, from any thread.

    The rule costs a tenth of a handshake and depends on nothing but settings and what it reads,
    which the pages of a site repeat. So what it let pass is remembered until a setting changes:
    Django's signal says so, but not where a project adds a host as it runs, so the content of the
    two lists is compared. What is longer than any site's is not remembered, as it would be kept a
    thousand times. Kept as it came: to make it ready for Django's rules costs as much as these.

    Attributes:
        lists: Copies of ``ALLOWED_HOSTS`` and ``CSRF_TRUSTED_ORIGINS``.
        seen: What the rule read.
    """

    lists: list[Any]
    seen: set[tuple[Any, ...]]


_admitted = Admitted([], set())


class HandshakeRequest(HttpRequest):
    """
    As much of a request as Django's rules about hosts and schemes read.

    ``get_host()`` and ``is_secure()`` are Django's, so ``ALLOWED_HOSTS``,
    ``USE_X_FORWARDED_HOST``, ``USE_X_FORWARDED_PORT`` and ``SECURE_PROXY_SSL_HEADER``
    mean what they mean for pages. ``ws`` and ``wss`` are read as ``http`` and ``https``.
    """

    def __init__(self, scope: Scope) -> None:
        # A whole HttpRequest would hold a dozen objects that nobody asks for.
        server = scope.get("server") or ("unknown", 0)
        self._scheme = "https" if scope.get("scheme") in {"wss", "https"} else "http"
        self.META = {"SERVER_NAME": server[0], "SERVER_PORT": str(server[1])}
        read = _read()
        for name, value in scope["headers"]:
            if name in read:
                key, text = read[name], value.decode("latin1")
                self.META[key] = f"{self.META[key]},{text}" if key in self.META else text

    @property
    def names_host(self) -> bool:
        """
        Whether there is a Host: always behind HTTP/1.1 and 2, not in a test's bare scope.
        """
        forwarded = settings.USE_X_FORWARDED_HOST and "HTTP_X_FORWARDED_HOST" in self.META
        return "HTTP_HOST" in self.META or forwarded

    def _get_scheme(self) -> str:
        return self._scheme


@cache
def _read() -> dict[bytes, str]:
    """
    Name the fields that Django's rules read, by their names on the wire.
    """
    if not settings.SECURE_PROXY_SSL_HEADER:
        return _READ
    key = settings.SECURE_PROXY_SSL_HEADER[0]
    name = key.removeprefix("HTTP_").replace("_", "-").lower().encode()
    return {**_READ, name: key}


def _forget_admitted(**kwargs: Any) -> None:
    """
    Judge anew after a change of settings.
    """
    global _admitted  # noqa: PLW0603 - see Admitted
    _admitted = Admitted([], set())
    _read.cache_clear()


setting_changed.connect(_forget_admitted)


async def admit(scope: Scope, receive: Receive, send: Send) -> bool:
    """
    Let a handshake pass by Fairway's rule, or refuse it and say why in the log.
    """
    found = refusal(scope)
    if found is None:
        return True
    metrics.refusals.add(found.kind)
    logger.warning(
        "WebSocket %s refused with 403: %s. If it is yours: %s [%s]",
        shown(scope.get("path", "")),
        found.reason,
        found.fix,
        found.fault,
        extra={"status_code": 403},
    )
    extensions = scope.get("extensions") or {}
    may_tell = settings.DEBUG and "websocket.http.response" in extensions
    await deny(receive, send, found.words if may_tell else b"")
    return False


def request_refusal(scope: Scope) -> Refusal | None:
    """
    Apply Fairway's rule to a request for an HTTP consumer, and say in the log why not.

    What only reads needs no Origin: no browser shows a page what another site answers. All
    other methods need what a handshake needs, which is the part of Django's CSRF protection
    that asks for no token.

    Returns:
        Why not, or None if the request may pass.
    """
    found = refusal(scope)
    if found is None or (found.kind == "origin" and scope["method"] in _SAFE_METHODS):
        return None
    metrics.refusals.add(found.kind)
    logger.warning(
        "%s %s refused with %d: %s. If it is yours: %s [%s]",
        scope["method"],
        shown(scope.get("path", "")),
        found.status,
        found.reason,
        found.fix,
        found.fault,
        extra={"status_code": found.status},
    )
    return found


async def admit_request(scope: Scope, receive: Receive, send: Send) -> bool:
    """
    Let a request for an HTTP consumer pass by Fairway's rule, or refuse it.
    """
    found = request_refusal(scope)
    if found is None:
        return True
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": found.status, "headers": headers})
    await send({"type": "http.response.body", "body": found.words})
    return False


def describe_hosts() -> list[str]:
    """
    Say in a line for people that no Host can pass, where a project has named none.
    """
    if not settings.configured or settings.DEBUG or settings.ALLOWED_HOSTS:
        return []
    line = (
        "ALLOWED_HOSTS is empty and DEBUG is off: every page is answered with 400 and every "
        f"WebSocket with 403 until the settings name the site's hosts [{Fault.HOST_REFUSED}]"
    )
    return [line]


def refusal(scope: Scope) -> Refusal | None:
    """
    Apply Fairway's rule to a handshake.

    The Host must be in ``ALLOWED_HOSTS``. The Origin must be the site itself, scheme and
    port included, or be in ``CSRF_TRUSTED_ORIGINS``. Without an Origin it is no browser,
    and passes; ``null`` is a page that hides where it is from, and does not.

    Returns:
        Why not, or None if the handshake may pass.
    """
    read = _read()
    fields = [part for name, value in scope["headers"] if name in read for part in (name, value)]
    # All that the rule reads of it; the scheme that a proxy names is in a field.
    seen = (scope.get("scheme"), *(scope.get("server") or ()), *fields)
    admitted = _admitted
    if seen in admitted.seen and admitted.lists == _lists():
        return None
    lists = _plain_lists()
    request = HandshakeRequest(scope)
    try:
        host = request.get_host() if request.names_host else ""
    except DisallowedHost:
        return _host_refusal(request)
    origin = request.META.get("HTTP_ORIGIN")
    site = f"{request.scheme}://{host}"
    if origin is None or (host and origin == site) or _is_trusted(origin):
        if lists is not None and sum(map(len, request.META.values())) <= _ADMITTED_LENGTH_MAX:
            _remember(admitted, lists, seen)
        return None
    return _origin_refusal(origin, site)


def _lists() -> list[Any]:
    """
    Give the settings that a project may change as it runs.
    """
    return [settings.ALLOWED_HOSTS, settings.CSRF_TRUSTED_ORIGINS]


def _plain_lists() -> list[Any] | None:
    """
    Copy these settings; None if one is more than a list of texts, and may hold anything any time.
    """
    lists = _lists()
    if all(
        type(each) in (list, tuple) and all(type(text) is str for text in each) for each in lists
    ):
        return [each[:] for each in lists]
    return None


def _remember(admitted: Admitted, lists: list[Any], seen: tuple[Any, ...]) -> None:
    """
    Remember what passed, in place of all before if that passed by other lists, or is too much.
    """
    global _admitted  # noqa: PLW0603 - see Admitted
    if lists != admitted.lists or len(admitted.seen) >= _ADMITTED_MAX:
        _admitted = admitted = Admitted(lists, set())
    admitted.seen.add(seen)


def _host_refusal(request: HttpRequest) -> Refusal:
    """
    Explain a Host that Django does not take.
    """
    host = request.META.get("HTTP_HOST", "")
    if settings.USE_X_FORWARDED_HOST:
        host = request.META.get("HTTP_X_FORWARDED_HOST", host)
    domain, _ = split_domain_port(host)
    fix = _addition("ALLOWED_HOSTS", domain) if domain else "send a valid Host header"
    return Refusal("host", f"host {shown(host)} is not in ALLOWED_HOSTS", fix)


def _origin_refusal(origin: str, site: str) -> Refusal:
    """
    Explain an Origin that is neither the site nor trusted.

    Where only the scheme differs, the page came by TLS and the handshake is believed not
    to: a proxy ends TLS and Django has not been told.
    """
    name = shown(origin)
    if origin == site.replace("http://", "https://", 1):
        return Refusal(
            "origin",
            f"origin {name} is not this site {site!r}, which differs by its scheme: "
            "a proxy in front seems to end TLS",
            'SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")',
        )
    reason = f"origin {name} is neither this site {site!r} nor in CSRF_TRUSTED_ORIGINS"
    if _is_opaque(origin):
        return Refusal("origin", reason, "serve the page from an origin of its own")
    return Refusal("origin", reason, _addition("CSRF_TRUSTED_ORIGINS", origin))


def _is_opaque(origin: str) -> bool:
    """
    Whether an Origin names no site: ``null``, or what is no origin at all.
    """
    parts = parsed(origin)
    return parts is None or not (parts.scheme and parts.netloc)


def _is_trusted(origin: str) -> bool:
    """
    Whether an Origin is in ``CSRF_TRUSTED_ORIGINS``, itself or below a ``*.`` entry.
    """
    parts = parsed(origin)
    if parts is None or _is_opaque(origin):
        return False
    return any(_is_covered(origin, parts, entry) for entry in settings.CSRF_TRUSTED_ORIGINS)


def _is_covered(origin: str, parts: SplitResult, entry: str) -> bool:
    """
    Whether one entry of ``CSRF_TRUSTED_ORIGINS`` covers an Origin.
    """
    if "*" not in entry:
        return origin == entry
    trusted = urlsplit(entry)
    below = bool(is_same_domain(parts.netloc, trusted.netloc.lstrip("*")))
    return below and parts.scheme == trusted.scheme


def _addition(setting: str, entry: str) -> str:
    """
    Write the line that adds an entry at the end of the settings.
    """
    operator = "+=" if settings.is_overridden(setting) else "="  # type: ignore[misc] # its stubs
    return f"{setting} {operator} [{json.dumps(entry if len(entry) <= SHOWN_MAX else '…')}]"
