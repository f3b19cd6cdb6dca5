"""
Who may open a WebSocket or reach an HTTP consumer: the rules about Host and Origin.

Browsers send cookies with a WebSocket handshake from any page, and no other rule of
theirs protects it, so the server has to look at the Origin. ``admit()`` is Fairway's
own rule, the one of Django's ``CsrfViewMiddleware``, and needs no configuration;
``OriginValidator`` and ``AllowedHostsOriginValidator`` are Channels', for projects that
write their stack themselves. Sessions and users are not looked at here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.signals import setting_changed
from django.http import HttpRequest
from django.http.request import split_domain_port
from django.utils.http import is_same_domain

from fairway import metrics
from fairway.consumers.websocket import AsyncWebsocketConsumer
from fairway.faults import Fault
from fairway.types import Receive, Scope, Send

__all__ = [
    "AllowedHostsOriginValidator",
    "OriginValidator",
    "Refusal",
    "WebsocketDenier",
    "admit",
    "refusal",
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
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
# The rule costs a tenth of a handshake and depends on nothing but settings and what it reads, which
# the pages of a site repeat. So what it let pass is remembered, until a setting changes.
_ADMITTED_MAX = 1024
_admitted: set[tuple[Any, ...]] = set()
_SHOWN_MAX = 200  # Characters of what the peer sent that go into the log.


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
        What the client is told: not the reason, which is for the log.
        """
        return f"The {self.kind} of this request is not allowed here.\n".encode()


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
        read = _READ
        if settings.SECURE_PROXY_SSL_HEADER:
            key = settings.SECURE_PROXY_SSL_HEADER[0]
            name = key.removeprefix("HTTP_").replace("_", "-").lower().encode()
            read = {**read, name: key}
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


def _forget_admitted(**kwargs: Any) -> None:
    """
    Judge anew after a change of settings.
    """
    _admitted.clear()


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
        _shown(scope.get("path", "")),
        found.reason,
        found.fix,
        found.fault,
        extra={"status_code": 403},
    )
    await _deny(receive, send)
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
        _shown(scope.get("path", "")),
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


def refusal(scope: Scope) -> Refusal | None:
    """
    Apply Fairway's rule to a handshake.

    The Host must be in ``ALLOWED_HOSTS``. The Origin must be the site itself, scheme and
    port included, or be in ``CSRF_TRUSTED_ORIGINS``. Without an Origin it is no browser,
    and passes; ``null`` is a page that hides where it is from, and does not.

    Returns:
        Why not, or None if the handshake may pass.
    """
    request = HandshakeRequest(scope)
    # All that the rule reads of it; the scheme that a proxy names is in META.
    seen = (request._get_scheme(), *request.META.items())  # noqa: SLF001 - our own class
    if seen in _admitted:
        return None
    try:
        host = request.get_host() if request.names_host else ""
    except DisallowedHost:
        return _host_refusal(request)
    origin = request.META.get("HTTP_ORIGIN")
    site = f"{request.scheme}://{host}"
    if origin is None or (host and origin == site) or _is_trusted(origin):
        if len(_admitted) >= _ADMITTED_MAX:
            _admitted.clear()
        _admitted.add(seen)
        return None
    return _origin_refusal(origin, site)


class OriginValidator:
    """
    Lets a WebSocket pass if its Origin is in a list, else refuses it with 403.

    An entry is ``*``, a host (``example.com``; ``.example.com`` with its subdomains), or
    an origin with scheme and perhaps port (``https://example.com:8443``). Without an
    Origin only ``*`` lets it pass.

    Attributes:
        application: What runs behind it.
        allowed_origins: The list.
    """

    def __init__(self, application: Any, allowed_origins: Iterable[str]) -> None:
        self.application = application
        self.allowed_origins = allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """
        Run the application, or refuse the handshake and say why in the log.

        Raises:
            ValueError: The scope is not that of a WebSocket.
        """
        if scope["type"] != "websocket":
            raise ValueError("You cannot use OriginValidator on a non-WebSocket connection")
        origin = _origin_header(scope)
        if self.valid_origin(_parsed(origin)):
            return await self.application(scope, receive, send)
        metrics.refusals.add("origin")
        logger.warning(
            "WebSocket %s refused with 403: origin %s is not in the allowed origins %r [%s]",
            _shown(scope.get("path", "")),
            _shown(origin) if origin is not None else "(none)",
            self.allowed_origins,
            Fault.ORIGIN_REFUSED,
            extra={"status_code": 403},
        )
        return await _deny(receive, send)

    def valid_origin(self, parsed_origin: SplitResult | None) -> bool:
        """
        Whether an Origin may pass; None stands for a missing or unreadable one.
        """
        if parsed_origin is None and "*" not in self.allowed_origins:
            return False
        return self.validate_origin(parsed_origin)

    def validate_origin(self, parsed_origin: SplitResult | None) -> bool:
        """
        Whether an Origin matches an entry of the list.
        """
        return any(
            pattern == "*" or self.match_allowed_origin(parsed_origin, pattern)
            for pattern in self.allowed_origins
        )

    def match_allowed_origin(self, parsed_origin: SplitResult | None, pattern: str) -> bool:
        """
        Whether an Origin matches one entry.
        """
        if parsed_origin is None:
            return False
        host = parsed_origin.hostname or ""
        has_scheme = "://" in pattern
        allowed = urlsplit(pattern.lower() if has_scheme else f"//{pattern.lower()}")
        if has_scheme and allowed.scheme != parsed_origin.scheme:
            return False
        # Without a scheme or a port of its own, a pattern stands for any port.
        port = self.get_origin_port(allowed)
        if port is not None and port != self.get_origin_port(parsed_origin):
            return False
        return bool(is_same_domain(host, allowed.hostname or ""))

    def get_origin_port(self, origin: SplitResult) -> int | None:
        """
        Find an origin's port: its own, that of its scheme, or None.
        """
        return origin.port or _DEFAULT_PORTS.get(origin.scheme)


def AllowedHostsOriginValidator(application: Any) -> OriginValidator:  # noqa: N802 - Channels' name
    """
    Let WebSockets pass whose Origin is a host in ``ALLOWED_HOSTS``.
    """
    allowed_hosts = settings.ALLOWED_HOSTS
    if settings.DEBUG and not allowed_hosts:
        allowed_hosts = list(_LOCAL_HOSTS)
    return OriginValidator(application, allowed_hosts)


class WebsocketDenier(AsyncWebsocketConsumer):
    """
    Refuses every WebSocket.
    """

    async def connect(self) -> None:
        """
        Refuse the handshake.
        """
        await self.close()


async def _deny(receive: Receive, send: Send) -> None:
    """
    Refuse a handshake, which the server answers with 403.
    """
    if (await receive())["type"] == "websocket.connect":
        await send({"type": "websocket.close"})


def _host_refusal(request: HttpRequest) -> Refusal:
    """
    Explain a Host that Django does not take.
    """
    host = request.META.get("HTTP_HOST", "")
    if settings.USE_X_FORWARDED_HOST:
        host = request.META.get("HTTP_X_FORWARDED_HOST", host)
    domain, _ = split_domain_port(host)
    fix = _addition("ALLOWED_HOSTS", domain) if domain else "send a valid Host header"
    return Refusal("host", f"host {_shown(host)} is not in ALLOWED_HOSTS", fix)


def _origin_refusal(origin: str, site: str) -> Refusal:
    """
    Explain an Origin that is neither the site nor trusted.

    Where only the scheme differs, the page came by TLS and the handshake is believed not
    to: a proxy ends TLS and Django has not been told.
    """
    shown = _shown(origin)
    if origin == site.replace("http://", "https://", 1):
        return Refusal(
            "origin",
            f"origin {shown} is not this site {site!r}, which differs by its scheme: "
            "a proxy in front seems to end TLS",
            'SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")',
        )
    reason = f"origin {shown} is neither this site {site!r} nor in CSRF_TRUSTED_ORIGINS"
    if _is_opaque(origin):
        return Refusal("origin", reason, "serve the page from an origin of its own")
    return Refusal("origin", reason, _addition("CSRF_TRUSTED_ORIGINS", origin))


def _is_opaque(origin: str) -> bool:
    """
    Whether an Origin names no site: ``null``, or what is no origin at all.
    """
    parsed = _parsed(origin)
    return parsed is None or not (parsed.scheme and parsed.netloc)


def _is_trusted(origin: str) -> bool:
    """
    Whether an Origin is in ``CSRF_TRUSTED_ORIGINS``, itself or below a ``*.`` entry.
    """
    parsed = _parsed(origin)
    if parsed is None or _is_opaque(origin):
        return False
    return any(_is_covered(origin, parsed, entry) for entry in settings.CSRF_TRUSTED_ORIGINS)


def _is_covered(origin: str, parsed: SplitResult, entry: str) -> bool:
    """
    Whether one entry of ``CSRF_TRUSTED_ORIGINS`` covers an Origin.
    """
    if "*" not in entry:
        return origin == entry
    trusted = urlsplit(entry)
    below = bool(is_same_domain(parsed.netloc, trusted.netloc.lstrip("*")))
    return below and parsed.scheme == trusted.scheme


def _origin_header(scope: Scope) -> str | None:
    """
    Read the Origin of a scope.
    """
    for name, value in scope.get("headers", ()):
        if name == b"origin":
            return str(value, "latin1")
    return None


def _parsed(origin: str | None) -> SplitResult | None:
    """
    Split an Origin; None if there is none or it is no origin.
    """
    if origin is None or not origin.isascii():
        return None
    try:
        parsed = urlsplit(origin)
        parsed.port  # noqa: B018 - raises for a port that is none
    except ValueError:
        return None
    return parsed


def _shown(text: str) -> str:
    """
    Quote what the peer sent so that it can neither end a line nor fill the log.
    """
    return repr(text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 1]}…")


def _addition(setting: str, entry: str) -> str:
    """
    Write the line that adds an entry at the end of the settings.
    """
    operator = "+=" if settings.is_overridden(setting) else "="
    return f"{setting} {operator} [{json.dumps(entry if len(entry) <= _SHOWN_MAX else '…')}]"
