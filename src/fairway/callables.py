"""
What a project may hand over as an application, and how it comes to be called in one way.

An application is called once, with scope, receive and send. Projects that began with Channels 2
have others: consumer classes without ``.as_asgi()``, and ASGI 2's applications, which are
called with the scope and give what is called with receive and send. Both are wrapped here, with
a DeprecationWarning. What an application does is not looked at.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fairway.faults import Fault
from fairway.types import Receive, Scope, Send

__all__ = ["Application", "single_callable"]

Application = Callable[[Scope, Receive, Send], Awaitable[Any]]

INNER = ("inner", "application", "app")
"""
The names under which middleware keeps what it wraps.
"""


class DoubleCallable:
    """
    An application of ASGI 2 in the shape of the present one.

    Attributes:
        application: What it was; routers inside it are found by this name.
    """

    def __init__(self, application: Any) -> None:
        self.application = application
        _serve_both_ways(application)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """
        Call it twice.
        """
        return await self.application(scope)(receive, send)


class EitherCallable:
    """
    A present application that middleware of ASGI 2 may call with the scope alone, too.

    Attributes:
        inner: The application.
    """

    def __init__(self, inner: Application) -> None:
        self.inner = inner

    def __call__(
        self, scope: Scope, receive: Receive | None = None, send: Send | None = None
    ) -> Any:
        """
        Call the application, or give what is to be called with receive and send.
        """
        if receive is None or send is None:
            return partial(self.inner, scope)
        return self.inner(scope, receive, send)


def single_callable(application: Any, where: str) -> Application:
    """
    Give an application that is called once, with scope, receive and send.

    Consumer classes without ``.as_asgi()`` and the double callables of ASGI 2 are
    wrapped, with a warning; everything else is returned as it came.

    Args:
        application: What a project wrote into a router or around one.
        where: Names the place in the warning.
    """
    if inspect.isclass(application) and hasattr(application, "as_asgi"):
        _deprecate(f"{where}: write {application.__name__}.as_asgi() [{Fault.AS_ASGI_MISSING}]")
        consumer: Application = application.as_asgi()
        return consumer
    if _is_double_callable(application):
        name = getattr(application, "__name__", type(application).__name__)
        _deprecate(f"{where}: {name} is an ASGI 2 application; take scope, receive and send")
        return DoubleCallable(application)
    single: Application = application
    return single


def _serve_both_ways(application: Any) -> None:
    """
    Let middleware of ASGI 2 call what it wraps in its own way, down to the innermost.
    """
    for name in INNER:
        inner = getattr(application, name, None)
        if not callable(inner) or isinstance(inner, EitherCallable):
            continue
        is_consumer = inspect.isclass(inner) and hasattr(inner, "as_asgi")
        if _is_double_callable(inner) and not is_consumer:
            _serve_both_ways(inner)
        else:
            where = f"inside {type(application).__name__}"
            setattr(application, name, EitherCallable(single_callable(inner, where)))


def _is_double_callable(application: Any) -> bool:
    """
    Whether an application is to be called with the scope alone.
    """
    if inspect.isclass(application):
        return True
    if inspect.iscoroutinefunction(application) or not callable(application):
        return False
    try:
        # What a decorator wraps, such as the class of a consumer, is not what is called.
        inspect.signature(application, follow_wrapped=False).bind(None, None, None)
    except TypeError:
        return True
    except ValueError:  # A built-in tells nothing; Python's present protocol is the better guess.
        return False
    return False


def _deprecate(message: str) -> None:
    warnings.warn(message, DeprecationWarning, stacklevel=3)
