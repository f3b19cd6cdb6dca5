"""
The roll: whose connections are open on one event loop, and closing them when told to.

Connections stand in it by text ids only, with the server's end or the channel by which each is
closed; an entry goes with its connection. A loop that has any hears the orders of all processes
(``hearing``), and has the database asked now and then (``recheck``). A roll belongs to its loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any, TypeVar

from fairway import conf
from fairway.faults import Fault
from fairway.layers.notices import Notices
from fairway.layers.registry import get_channel_layer
from fairway.options import IdentityOptions
from fairway.revocation import recheck
from fairway.revocation.hearing import Hearing
from fairway.revocation.members import Index, Member
from fairway.revocation.names import unseal
from fairway.threads import own_context
from fairway.types import Scope
from fairway.wire import codes

__all__ = ["Roll"]

logger = logging.getLogger("fairway.auth")

Key = TypeVar("Key", str, bytes)

GRACE_SECONDS = 0.4
"""
Time for who changed their own password to get the session saved that goes on.
"""

ROTATION_SECONDS = 5.0
"""
Time that a session under a new key gets to be saved.
"""

RECENT_SECONDS = 10.0
RECENT_MAX = 1024
"""
For how long, and how many, ended sessions and changed users are remembered: for connections that
looked at theirs just before, and enter the roll just after.
"""


class Roll:
    """
    The connections of one event loop whose scope has, or may get, a user or a session.

    Attributes:
        loop: The loop.
        members: All of them, by the identity of their scopes.
        users: Those of each user, by name.
        sessions: Those of each session, by digest.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.members: dict[int, Member] = {}
        self.users: Index[str] = Index()
        self.sessions: Index[bytes] = Index()
        options, _ = conf.resolve_options(IdentityOptions)
        self._interval = options.recheck_interval
        self._context: Context
        self._notices = Notices(logger)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._hearing = Hearing(self.hear, self._look_at_all, self._notices, self._spawn)
        self._to_look_at: set[str] = set()
        self._ended: OrderedDict[bytes, float] = OrderedDict()
        self._changed: OrderedDict[str, float] = OrderedDict()
        self._rotated: OrderedDict[bytes, float] = OrderedDict()
        self._ticking = False
        self._looking: asyncio.Task[None] | None = None

    # --- Who is here -------------------------------------------------------------------------

    def enter(self, scope: Scope, member: Member) -> None:
        """
        Add a connection.
        """
        if not self.members:
            # A loop may have one server after another, each with threads of its own.
            self._context = own_context()
            self._looking = None
        if self._interval and not self._ticking:
            self._tick()
        self.members[id(scope)] = member
        self.place(member, scope)

    def leave(self, scope_id: int) -> bool:
        """
        Take a connection out, if it is in; whether none is left.
        """
        member = self.members.pop(scope_id, None)
        if member is None:
            return False
        self._unplace(member)
        if self.members:
            return False
        self._close()
        return True

    def place(self, member: Member, scope: Scope) -> None:
        """
        Note whose a connection is now.
        """
        self._unplace(member)
        member.read(scope)
        if member.user is not None:
            self.users.add(member.user, member)
            if member.known and self._is_recent(self._changed, member.user, RECENT_SECONDS):
                self._look_at(member.user)
        if member.session is not None:
            self.sessions.add(member.session, member)
            if self._is_recent(self._ended, member.session, RECENT_SECONDS):
                self.loop.call_soon(self._end, member, codes.UNAUTHENTICATED, "")
        if self.users or self.sessions:
            self._hearing.start()

    def _unplace(self, member: Member) -> None:
        if member.user is not None:
            self.users.discard(member.user, member)
        if member.session is not None:
            self.sessions.discard(member.session, member)

    # --- Orders ------------------------------------------------------------------------------

    def hear(self, order: dict[str, Any]) -> None:
        """
        Follow one order.
        """
        match order:
            case {"do": "close", "user": str(user), "code": int(code), "reason": str(reason)}:
                if code == codes.UNAUTHENTICATED:
                    self._remember(self._changed, user)
                self._end_all(self.users.of(user), code, reason)
            case {"do": "close", "session": bytes(key), "code": int(code), "reason": str(reason)}:
                if code == codes.UNAUTHENTICATED:
                    self._remember(self._ended, key)
                self._end_all(self.sessions.of(key), code, reason)
            case {"do": "look", "user": str(user)}:
                self._remember(self._changed, user)
                self._look_at(user)
            case {"do": "move", "session": bytes(old), "sealed": bytes(sealed)}:
                self._rotate(old, unseal(sealed))

    def _look_at(self, user: str) -> None:
        """
        Have the database asked about one user, soon, together with others.
        """
        if self.users.of(user):
            if not self._to_look_at:
                self._later(GRACE_SECONDS, self._look)
            self._to_look_at.add(user)

    def _look(self) -> None:
        users, self._to_look_at = self._to_look_at, set()
        members = [member for user in users for member in self.users.of(user)]
        self._spawn(self._check(members, final=True))

    def _rotate(self, old: bytes, key: str | None) -> None:
        """
        Have a session's connections go on under its new key.
        """
        for member in self.sessions.of(old):
            self.sessions.discard(old, member)
            member.rotate(key)
            if member.session is not None:
                self.sessions.add(member.session, member)
                self._remember(self._rotated, member.session)

    # --- Closing -----------------------------------------------------------------------------

    def _end_all(self, members: list[Member], code: int, reason: str) -> None:
        for member in members:
            self._end(member, code, reason)

    def _end(self, member: Member, code: int, reason: str) -> None:
        """
        Close one connection: by the server's own end, else through its channel.
        """
        if member.outbox is not None:
            member.outbox.close(code, reason)
        elif member.channel is not None:
            self._spawn(self._tell(member, code, reason))

    async def _tell(self, member: Member, code: int, reason: str) -> None:
        """
        Have a consumer close its own connection, as a group would.
        """
        message = {"type": "websocket.close", "code": code, "reason": reason}
        try:
            await get_channel_layer(member.layer).send(member.channel, message)
        except Exception as error:  # noqa: BLE001 - of any layer; the next re-check tries again
            self._notices.say(
                "tell",
                f"a connection whose login ended could not be told: %s [{Fault.ORDER_NOT_SENT}]",
                error,
            )

    # --- The database ------------------------------------------------------------------------

    def _recheck(self) -> None:
        """
        Have the database asked about everybody, and again after the interval.

        A database that is slower than the interval is not asked again before it has answered.
        """
        self._ticking = False
        if not self.members:
            return
        self._tick()
        if self.users or self.sessions:
            self._hearing.start()
        if self._looking is None or self._looking.done():
            self._look_at_all()

    def _tick(self) -> None:
        """
        Ask after the interval. That goes on when everybody leaves: others may come soon.
        """
        self._ticking = True
        self.loop.call_later(self._interval, self._recheck, context=self._context)

    def _look_at_all(self) -> None:
        """
        Have the database asked about everybody who has a user or a session.
        """
        if self.sessions or any(member.known for member in self.members.values()):
            members = list(self.members.values())
            self._looking = self._spawn(self._check(members, final=False))

    async def _check(self, members: list[Member], *, final: bool) -> None:
        """
        Ask the database about some connections, and close those that have to end.

        Args:
            members: Which.
            final: Whether one answer is enough; otherwise who is to be closed is asked about
                again after the grace, as a session may just have been given a new key.
        """
        try:
            ended = await recheck.find_ended(members)
        except Exception as error:  # noqa: BLE001 - a database that is away ends no connection
            self._notices.say(
                "recheck",
                f"logins could not be checked: %s: %s [{Fault.RECHECK_FAILED}]",
                type(error).__name__,
                error,
            )
            return
        again = [each for each, old in ended.items() if old and self._may_yet_be_saved(each)]
        if again:
            self._later(ROTATION_SECONDS, partial(self._check_again, again))
        closing = [member for member in ended if member not in again and member in self]
        if final:
            self._end_all(closing, codes.UNAUTHENTICATED, "")
        elif closing:
            self._later(GRACE_SECONDS, partial(self._check_again, closing))

    def _check_again(self, members: list[Member]) -> None:
        here = [each for each in members if each in self]
        if here:
            self._spawn(self._check(here, final=True))

    def __contains__(self, member: Member) -> bool:
        return member.scope_id in self.members

    def _may_yet_be_saved(self, member: Member) -> bool:
        """
        Whether a connection's session was given a new key so recently that it is still at work.
        """
        key = member.session
        return key is not None and self._is_recent(self._rotated, key, ROTATION_SECONDS)

    def _close(self) -> None:
        """
        Stop whatever is under way: nobody is here any more, for now.
        """
        self._hearing.stop()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._to_look_at.clear()

    # --- Helpers -----------------------------------------------------------------------------

    def run(self, function: Callable[..., None], *args: Any) -> None:
        """
        Call a function on the loop: at once if this is it. From any thread.
        """
        if _running_loop() is self.loop:
            function(*args)
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(function, *args)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work, context=self._context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        """
        Call a function after a time, unless everybody has left by then.
        """

        def run() -> None:
            self._timers.discard(timer)
            function()

        timer = self.loop.call_later(seconds, run, context=self._context)
        self._timers.add(timer)

    def _remember(self, moments: OrderedDict[Key, float], key: Key) -> None:
        moments[key] = self.loop.time()
        moments.move_to_end(key)
        while len(moments) > RECENT_MAX:
            moments.popitem(last=False)

    def _is_recent(self, moments: OrderedDict[Key, float], key: Key, seconds: float) -> bool:
        return self.loop.time() - moments.get(key, -seconds) < seconds


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
