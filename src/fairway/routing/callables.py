"""
What a project may write into a router, and what of it is a consumer.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from fairway.faults import Fault
from fairway.types import Receive, Scope, Send

__all__ = [
    "Application",
    "consumer_class_of",
    "get_default_application",
    "is_http_consumer",
    "is_socket_consumer",
    "single_callable",
]

Application = Callable[[Scope, Receive, Send], Awaitable[Any]]


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


def single_callable(application: Any, where: str) -> Application:
    """
    Give an application that is called once, with scope, receive and send.

    Consumer classes without ``.as_asgi()`` and the double callables of ASGI 2 are
    wrapped, with a warning; everything else is returned as it came.

    Args:
        application: What a project wrote into a router.
        where: Names the place in the warning.
    """
    if inspect.isclass(application) and hasattr(application, "as_asgi"):
        _deprecate(f"{where}: write {application.__name__}.as_asgi() [{Fault.AS_ASGI_MISSING}]")
        consumer: Application = application.as_asgi()
        return consumer
    if _is_double_callable(application):
        name = getattr(application, "__name__", type(application).__name__)
        _deprecate(f"{where}: {name} is an ASGI 2 application; take scope, receive and send")

        async def wrapped(scope: Scope, receive: Receive, send: Send) -> Any:
            return await application(scope)(receive, send)

        return wrapped
    single: Application = application
    return single


def _deprecate(message: str) -> None:
    warnings.warn(message, DeprecationWarning, stacklevel=2)


def _is_double_callable(application: Any) -> bool:
    """
    Whether an application is to be called with the scope alone.
    """
    if inspect.isclass(application):
        return True
    if inspect.iscoroutinefunction(application):
        return False
    try:
        # What a decorator wraps, such as the class of a consumer, is not what is called.
        inspect.signature(application, follow_wrapped=False).bind(None, None, None)
    except TypeError:
        return True
    except ValueError:  # A built-in tells nothing; Python's present protocol is the better guess.
        return False
    return False


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
    """
    consumer_class = consumer_class_of(callback)
    return consumer_class is not None and (
        hasattr(consumer_class, "websocket_connect") or not hasattr(consumer_class, "http_request")
    )
