"""
What a project may write into a router, and what of it is a consumer.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from fairway.callables import Application, single_callable
from fairway.exceptions import ConfigurationError
from fairway.faults import Fault

__all__ = [
    "Application",
    "consumer_class_of",
    "get_default_application",
    "is_http_consumer",
    "is_socket_consumer",
    "single_callable",
]


def get_default_application() -> Any:
    """
    Import what ``ASGI_APPLICATION`` names.

    Raises:
        ImproperlyConfigured: The setting, its module or the name in it is missing.
    """
    setting = getattr(settings, "ASGI_APPLICATION", None)
    if not isinstance(setting, str) or "." not in setting:
        raise ImproperlyConfigured("Cannot find ASGI_APPLICATION setting.")
    path, name = setting.rsplit(".", 1)
    try:
        module = import_module(path)
    except ImportError as error:
        raise ImproperlyConfigured(f"Cannot import ASGI_APPLICATION module {path!r}") from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise ImproperlyConfigured(
            f"Cannot find {name!r} in ASGI_APPLICATION module {path}"
        ) from error


def consumer_class_of(callback: Any) -> Any:
    """
    Give the consumer class of a callback found in ``urls.py``; None if it is a view.
    """
    if inspect.isclass(callback) and hasattr(callback, "as_asgi"):
        return callback
    return getattr(callback, "consumer_class", None)


def is_http_consumer(callback: Any) -> bool:
    """
    Whether a callback found in ``urls.py`` is a consumer of requests.
    """
    return hasattr(consumer_class_of(callback), "http_request")


def is_socket_consumer(callback: Any) -> bool:
    """
    Whether a callback found in ``urls.py`` is a consumer of anything else, or of both.

    Raises:
        ConfigurationError: It is an instance, which all connections would share, or ``as_asgi``
            that was not called.
    """
    consumer_class = consumer_class_of(callback)
    if inspect.ismethod(callback) and callback.__name__ == "as_asgi":
        name = getattr(callback.__self__, "__name__", "Consumer")
        raise ConfigurationError(
            f"a route has {name}.as_asgi, which was not called; write {name}.as_asgi()",
            fault=Fault.AS_ASGI_MISSING,
        )
    if consumer_class is None and hasattr(type(callback), "as_asgi"):
        name = type(callback).__name__
        raise ConfigurationError(
            f"a route has {name}(), which all connections would share; write {name}.as_asgi()",
            fault=Fault.AS_ASGI_MISSING,
        )
    return consumer_class is not None and (
        hasattr(consumer_class, "websocket_connect") or not hasattr(consumer_class, "http_request")
    )
