"""
The rolls of this process, one for each event loop that has connections with logins.

A roll is here from its first connection to its last, and then rests, as the next may come soon: a
roll made for each request would cost more than the request. The functions here find the one that
is meant; what a roll does is its own business.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

from django.core.signals import setting_changed

from fairway.revocation.members import Member
from fairway.revocation.roll import Roll
from fairway.types import Scope

__all__ = ["enter", "exist", "hear_everywhere", "is_on", "leave", "refresh"]


def enter(scope: Scope, channel: str | None, layer: str) -> None:
    """
    Put a connection on the roll of the running loop. Must be followed by ``leave``.

    Args:
        scope: The connection's; it must live until then.
        channel: The consumer's channel, if there is a channel layer.
        layer: That layer's alias.
    """
    loop = asyncio.get_running_loop()
    for roll in _rolls:
        if roll.loop is loop:
            break
    else:
        roll = _begin(loop)
    roll.enter(scope, Member(scope, channel, layer))


def leave(scope: Scope) -> None:
    """
    Take a connection off the roll, if it is on one. From its loop, or when that has ended.
    """
    for roll in _rolls:
        if roll.leave(id(scope)):
            _end(roll)


def refresh(scope: Scope) -> None:
    """
    Note that another user or session is in a scope. From any thread.
    """
    for roll in _rolls:
        member = roll.members.get(id(scope))
        if member is not None:
            roll.run(roll.place, member, scope)


def is_on(scope: Scope) -> bool:
    """
    Whether a connection is on a roll. From any thread.
    """
    return any(id(scope) in roll.members for roll in _rolls)


def hear_everywhere(order: dict[str, Any]) -> None:
    """
    Follow an order in this process. From any thread.
    """
    for roll in _rolls:
        roll.run(roll.hear, order)


def exist() -> bool:
    """
    Whether any connection of this process is on a roll.
    """
    return bool(_rolls)


def _begin(loop: asyncio.AbstractEventLoop) -> Roll:
    global _rolls, _resting  # noqa: PLW0603 - replaced as a whole, so that readers need no lock
    with _lock:
        roll, _resting = _resting, None
    if roll is None or roll.loop is not loop:
        # Needed where "fairway" is not in INSTALLED_APPS; it imports this module by way of orders.
        from fairway.revocation import watch

        watch.begin()
        roll = Roll(loop)
    with _lock:
        _rolls = (*(each for each in _rolls if not each.loop.is_closed()), roll)
    return roll


def _end(roll: Roll) -> None:
    global _rolls, _resting  # noqa: PLW0603 - as above
    with _lock:
        _rolls = tuple(each for each in _rolls if each is not roll)
        _resting = roll


def _forget(**kwargs: Any) -> None:
    """
    Have the next roll made by the settings as they are now.
    """
    global _resting  # noqa: PLW0603 - as above
    _resting = None


def _at_fork() -> None:
    """
    Run in a forked child, which has none of the connections.
    """
    global _rolls, _resting, _lock  # noqa: PLW0603 - as above
    _rolls, _resting = (), None
    _lock = threading.Lock()


_rolls: tuple[Roll, ...] = ()
_resting: Roll | None = None
_lock = threading.Lock()

setting_changed.connect(_forget)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_at_fork)
