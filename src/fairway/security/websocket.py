"""
Channels' validators of Origins, for projects that write their stack themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any
from urllib.parse import SplitResult, urlsplit

from django.conf import settings
from django.utils.http import is_same_domain

from fairway import metrics
from fairway.callables import single_callable
from fairway.consumers.websocket import AsyncWebsocketConsumer
from fairway.faults import Fault
from fairway.security.origins import deny, origin_header, parsed, shown
from fairway.types import Receive, Scope, Send

__all__ = ["AllowedHostsOriginValidator", "OriginValidator", "WebsocketDenier"]

logger = logging.getLogger("fairway.security")

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


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
        self.application = single_callable(application, "OriginValidator")
        self.allowed_origins = allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """
        Run the application, or refuse the handshake and say why in the log.

        Raises:
            ValueError: The scope is not that of a WebSocket.
        """
        if scope["type"] != "websocket":
            raise ValueError("You cannot use OriginValidator on a non-WebSocket connection")
        origin = origin_header(scope)
        if self.valid_origin(parsed(origin)):
            return await self.application(scope, receive, send)
        metrics.refusals.add("origin")
        logger.warning(
            "WebSocket %s refused with 403: origin %s is not in the allowed origins %r [%s]",
            shown(scope.get("path", "")),
            shown(origin) if origin is not None else "(none)",
            self.allowed_origins,
            Fault.ORIGIN_REFUSED,
            extra={"status_code": 403},
        )
        return await deny(receive, send)

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
