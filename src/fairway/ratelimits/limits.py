"""
Which limits the settings and a consumer set, and who is counted.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import fields
from functools import cache
from ipaddress import IPv6Address
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from django.core.signals import setting_changed

from fairway.conf import resolve_options
from fairway.options import RateOptions, overridden
from fairway.ratelimits.buckets import Buckets
from fairway.types import Scope

__all__ = ["Limits", "address_of", "connect_limits", "message_limits", "user_of"]

NAME_MAX = 64
"""
Characters of an address that is none, as a proxy may send it.
"""


class Limits(NamedTuple):
    """
    How often something may be done.

    Attributes:
        address: By one address; None for any number.
        user: By one user; None for any number.
    """

    address: Buckets | None
    user: Buckets | None


@cache
def connect_limits() -> Limits | None:
    """
    Give the limits on connects; None if there is none, which is to be cheap to find out.

    Raises:
        ConfigurationError: A setting is out of bounds.
    """
    options = _options()
    return _limits(options, "connects")


def message_limits(consumer_class: type[Any]) -> Limits | None:
    """
    Give the limits on messages to a consumer; None if there is none.

    A class with limits of its own counts for itself; all others count together.

    Raises:
        ConfigurationError: A setting, or an attribute of the class, is out of bounds.
    """
    try:
        return _by_class[consumer_class]
    except KeyError:
        found = _by_class[consumer_class] = _limits_of_class(consumer_class)
        return found


def address_of(scope: Scope) -> Hashable:
    """
    Give what stands for the client's address; None behind a Unix socket without a proxy's word.

    An IPv6 network of 64 bits is what one customer gets, so all of it counts as one.
    """
    client = scope.get("client")
    host: str = client[0] if client else ""
    if ":" not in host:
        return host[:NAME_MAX] or None
    try:
        address = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host[:NAME_MAX]
    return str(address.ipv4_mapped) if address.ipv4_mapped else address.packed[:8]


def user_of(scope: Scope) -> Hashable:
    """
    Give what stands for the user who is logged in; None if nobody is.
    """
    user = scope.get("user")
    if user is None or not getattr(user, "is_authenticated", False):
        return None
    key = getattr(user, "pk", None)
    return None if key is None else str(key)


# Classes may come and go, as in tests.
_by_class: WeakKeyDictionary[type[Any], Limits | None] = WeakKeyDictionary()


@cache
def _options() -> RateOptions:
    options, _ = resolve_options(RateOptions)
    return options


@cache
def _common_message_limits() -> Limits | None:
    return _limits(_options(), "messages")


def _limits_of_class(consumer_class: type[Any]) -> Limits | None:
    """
    See whether a class has limits of its own.
    """
    names = [spec.name for spec in fields(RateOptions) if spec.name.startswith("messages_")]
    options = overridden(_options(), consumer_class, names)
    if options is None:
        return _common_message_limits()
    return _limits(options, "messages")


def _limits(options: RateOptions, what: str) -> Limits | None:
    """
    Make the buckets of one kind.
    """
    burst = getattr(options, f"{what}_burst")

    def make(whom: str) -> Buckets | None:
        rate = getattr(options, f"{what}_per_{whom}")
        return Buckets(rate, burst or rate, options.rate_entries_max) if rate else None

    limits = Limits(make("address"), make("user"))
    return limits if any(each is not None for each in limits) else None


def _forget(**kwargs: Any) -> None:
    """
    Count anew after a change of settings.
    """
    for cached in (connect_limits, _options, _common_message_limits):
        cached.cache_clear()
    _by_class.clear()


setting_changed.connect(_forget)
