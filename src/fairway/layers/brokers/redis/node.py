"""
One Redis server, or what Sentinels call one: a link for commands and a link to listen.

Both are kept open by a ``Keeper`` each, independent of one another. Where the master is, is
asked before every attempt and all the time, since a master that stands still ends no
connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from fairway.exceptions import ChannelLayerUnavailable, ConfigurationError
from fairway.faults import Fault
from fairway.layers.brokers.redis.commands import Commands, Refused
from fairway.layers.brokers.redis.hosts import Address, Host
from fairway.layers.brokers.redis.keeper import Keeper
from fairway.layers.brokers.redis.link import Link, open_link
from fairway.layers.brokers.redis.listener import Listener
from fairway.layers.brokers.redis.probe import Probe, look_at
from fairway.layers.brokers.redis.sentinel import Sentinel
from fairway.layers.notices import Notices
from fairway.options import RedisOptions

__all__ = ["Node"]

logger = logging.getLogger("fairway.layers")

READ_ONLY_SECONDS = 1.0
"""
The shortest time between two searches for a server that takes writes.
"""

COURTESY_SECONDS_MAX = 0.5
"""
The longest time that a publish waits, once a server is back, for those who listen to it.
"""

MASTER_SECONDS = 0.5
"""
Time between two questions to the Sentinels where the master is.
"""

OTHERS_MAX = 256
"""
Nodes of one cluster that are connected to, each for the queues it has.
"""

CLOSING_SECONDS = 0.25
"""
Time for each link to end when the node is closed, after its commands were answered.
"""


class Node:
    """
    A server that is used. Belongs to the loop it was made on.

    Attributes:
        host: Which one.
        commands: What is asked of it.
        listener: What is heard from it.
    """

    def __init__(
        self,
        host: Host,
        options: RedisOptions,
        prefix: bytes,
        *,
        project: str,
        hear: Callable[[str, bytes], None],
        on_gap: Callable[[str], None],
        on_state: Callable[[], bool],
        notices: Notices,
    ) -> None:
        """
        Make a node that begins with ``open``.

        Args:
            host: Where it is.
            options: The limits.
            prefix: What the names of channels begin with, before the subject.
            project: What the probe and the names of connections tell of who this is; may be empty.
            hear: Called with subject and payload of each message.
            on_gap: Called with each subject that may have missed messages.
            on_state: Called when ``connected`` may have changed; says whether that was told.
            notices: Where faults are told.
        """
        self.host = host
        self._options = options
        self._prefix = prefix
        self._project = project
        self._tell_heard = hear
        self._tell_gap = on_gap
        self._on_state = on_state
        self._notices = notices
        self._troubles: dict[str, Exception | None] = {}
        self._begun = False
        self._loop = asyncio.get_running_loop()
        self._following: asyncio.Task[None] | None = None
        self._says_role = True
        self._read_only_at = 0.0
        self._heard_since = 0.0
        self._sentinel = Sentinel(host, options.connect_timeout) if host.sentinels else None
        self._master = host.address
        self.commands = Commands(
            host.name,
            options.command_timeout,
            options.link_bytes_max,
            self._on_read_only,
            self._elsewhere,
        )
        self._others: dict[str, tuple[Commands, Keeper]] = {}
        self.listener = Listener(
            host.name,
            prefix,
            self._hear,
            self._on_gap,
            self._on_refusal,
            delay=options.unsubscribe_delay,
            timeout=options.command_timeout,
        )
        pause = options.retry_delay_max
        # A link for commands may end while nobody needs it, and is opened anew without a word.
        self._commanding = Keeper(
            self._open_commands,
            self.commands,
            pause,
            self._note_commands,
            tell_lost=False,
        )
        self._listening = Keeper(
            self._open_listener,
            self.listener,
            pause,
            self._note_listener,
            tell_lost=True,
        )
        self._probe = Probe(
            project,
            options,
            self.listener,
            self.publish,
            lambda: self._listening.link,
            self._ask_role,
        )
        self._probe_subject = self._probe.subject

    @property
    def connected(self) -> bool:
        """
        Whether messages get through.
        """
        return len(self._troubles) == 2 and self.trouble is None

    @property
    def trouble(self) -> Exception | None:
        """
        Give why a link is missing, if one is.
        """
        return next(filter(None, self._troubles.values()), None)

    async def open(self) -> None:
        """
        Begin; returns once everything wanted is confirmed, or it is clear that this takes longer.

        Raises:
            ConfigurationError: It can never work as configured.
        """
        # Asked for last, so confirmed last.
        own = self.listener.subscribe(self._probe_subject)
        if own is not None:
            own.add_done_callback(look_at)
        attempts = [self._commanding.start(), self._listening.start()]
        # Twice as long: where Sentinels are asked first, each step has its own deadline.
        await asyncio.wait(attempts, timeout=2 * self._options.connect_timeout)
        for attempt in attempts:
            error = attempt.result() if attempt.done() else None
            if isinstance(error, ConfigurationError):
                raise error
        if own is not None:
            if self._listening.link is not None:
                await asyncio.wait([own], timeout=self._options.connect_timeout)
            refusal = own.exception() if own.done() else None
            if isinstance(refusal, Refused):
                raise ConfigurationError(str(refusal), fault=Fault.LAYER_INVALID)
        self._begun = True
        self._probe.start()
        if self._sentinel is not None:
            self._following = asyncio.create_task(self._follow_for_ever())

    async def close(self, timeout: float) -> None:
        """
        End after everything was answered, in bounded time.
        """
        self._stop_looking()
        await self.commands.settle(timeout)
        self.commands.close()
        self.listener.close()
        closing = [keeper.close(CLOSING_SECONDS) for keeper in self._keepers()]
        for commands, _ in self._others.values():
            commands.close()
        if self._sentinel is not None:
            closing.append(self._sentinel.close(CLOSING_SECONDS))
        await asyncio.gather(*closing)

    def abandon(self) -> None:
        """
        Tell nobody anything any more, and end the links of a loop that has ended or stands still.

        From any thread.
        """
        self._tell_heard = self._tell_gap = _nothing
        self._on_state = bool
        try:
            self._loop.call_soon_threadsafe(self._stop)
        except RuntimeError:
            self._stop_keepers()

    def _stop(self) -> None:
        """
        End at once, on a loop that stood still.
        """
        self._stop_looking()
        self._stop_keepers()
        self.commands.close()
        self.listener.close()

    def _stop_looking(self) -> None:
        """
        Look no more whether the subscriptions live, and where the master is.
        """
        self._probe.stop()
        if self._following is not None:
            self._following.cancel()

    def _stop_keepers(self) -> None:
        for keeper in self._keepers():
            keeper.abandon()
        if self._sentinel is not None:
            self._sentinel.abandon()

    def _keepers(self) -> list[Keeper]:
        others = [keeper for _, keeper in self._others.values()]
        return [self._commanding, self._listening, *others]

    def publish(self, subject: str, payload: bytes) -> asyncio.Future[Any]:
        """
        Send a message to whoever listens to a subject. Hot path.

        It is sent again where the answer was lost with a link: receivers know by the numbers
        on messages what they have heard already.
        """
        return self.commands.execute(
            b"PUBLISH", self._prefix + subject.encode(), payload, repeatable=True
        )

    def channel(self, subject: str) -> bytes:
        """
        Give the name under which Redis knows a subject.
        """
        return self._prefix + subject.encode()

    @property
    def reached(self) -> list[Commands]:
        """
        The commands, and those to other nodes of its cluster that keys of queues have led to.
        """
        return [self.commands, *(commands for commands, _ in self._others.values())]

    # --- Links -------------------------------------------------------------------------------

    async def _locate(self) -> Address:
        """
        Find out where the server is; when it moved, have both links go there.
        """
        if self._sentinel is None:
            return self.host.address
        master = await self._sentinel.master()
        if master.name != self._master.name:
            self._master = master
            for keeper in (self._commanding, self._listening):
                if keeper.link is not None and keeper.link.address.name != master.name:
                    keeper.lose(f"the master is at {master.name} now")
                keeper.hurry()
        return self._master

    async def _open_commands(self) -> Link:
        link = await self._open(self.commands.on_reply, "pub")
        courtesy = min(self._options.retry_delay_max, COURTESY_SECONDS_MAX)
        if self._begun and self._was_deaf(courtesy):
            # Who listens elsewhere is back a little later, and would miss what waits here.
            self.commands.expect_link()
            try:
                await asyncio.wait([link.lost], timeout=courtesy)
            except BaseException:  # It is closed meanwhile, and the link is nobody's yet.
                link.lose("closed")
                raise
        return link

    def _was_deaf(self, seconds: float) -> bool:
        """
        Whether nothing could be heard at some time in the last seconds: the server was away.
        """
        return (
            self._troubles.get("listener") is not None
            or self._loop.time() - self._heard_since < seconds
        )

    async def _open_listener(self) -> Link:
        return await self._open(self.listener.on_reply, "sub")

    async def _open(self, on_reply: Callable[[Any], None], use: str) -> Link:
        address = await self._locate()
        role = None if self._sentinel is None else b"master"
        name = ":".join(filter(None, ("fairway", self._project, str(os.getpid()), use)))
        timeout = self._options.connect_timeout
        link = await open_link(address, on_reply, timeout, role=role, name=name)
        if self._sentinel is not None and address.name != self._master.name:
            # One that stood still while another took over believes itself the master for a while.
            link.lose("the master moved")
            raise ChannelLayerUnavailable(
                f"the master is at {self._master.name} now, and not at {address.name}"
            )
        return link

    def _elsewhere(self, place: str) -> Commands:
        """
        Give the commands to another node of a cluster, to which keys of queues have led.

        Raises:
            ChannelLayerUnavailable: There are too many of them.
        """
        found = self._others.get(place)
        if found is not None:
            return found[0]
        if len(self._others) >= OTHERS_MAX:
            raise ChannelLayerUnavailable(f"redis at {self.host.name} has too many nodes")
        host, _, port = place.rpartition(":")
        address = self.host.address.at(host or self._master.arguments["host"], int(port))
        options = self._options
        commands = Commands(address.name, options.command_timeout, options.link_bytes_max, _nothing)
        keeper = Keeper(
            partial(open_link, address, commands.on_reply, options.connect_timeout),
            commands,
            options.retry_delay_max,
            _nothing,
            tell_lost=False,
        )
        self._others[place] = commands, keeper
        keeper.start()
        return commands

    def _note(self, link: str, error: Exception | None) -> None:
        """
        Take the news of one link: open, or not to be opened for this reason.
        """
        self._troubles[link] = error
        if error is None:
            self.commands.expect_link()
            # Where one gets through, the other needs not wait. One that is open is in no hurry,
            # or it would come back without a pause as often as it is ended at once.
            for other, keeper in (("commands", self._commanding), ("listener", self._listening)):
                if self._troubles.get(other) is not None:
                    keeper.hurry()
            self._on_state()
            return
        self.commands.explain(error)
        self.listener.explain(error)
        kind = f"{type(error).__name__} {self.host.name}"
        if self._on_state():
            self._notices.hold(kind)
        elif self._begun or not isinstance(error, ConfigurationError):  # Else it is raised.
            self._notices.say(kind, "%s; trying again [%s]", error, Fault.REDIS_AWAY)

    def _note_commands(self, error: Exception | None) -> None:
        """
        Take the news of the link for commands.
        """
        if error is None:
            # What ended the one before may have left the other half dead.
            self._probe.hurry()
        self._note("commands", error)

    def _note_listener(self, error: Exception | None) -> None:
        """
        Take the news of the link to listen, which counts once it has confirmed a subject.
        """
        if error is not None:
            self._note("listener", error)
            return
        known = self.listener.subscriptions.get(self._probe_subject)
        if known is not None:
            known.broken = True  # So that its confirmation is told.

    def _on_refusal(self, error: Refused) -> None:
        """
        Take a refusal to be listened to, as after a change of the user's rights.
        """
        known = self.listener.subscriptions.get(self._probe_subject)
        if self._begun and known is not None and not known.confirmed:  # Else it is raised.
            self._note("listener", error)

    def _on_read_only(self) -> None:
        """
        Look for the master again, now and then: this server takes no writes any more.
        """
        now = self._loop.time()
        if now - self._read_only_at < READ_ONLY_SECONDS:
            return
        self._read_only_at = now
        self._notices.say(
            "read only",
            "redis at %s takes no writes; looking for the master [%s]",
            self._master.name,
            Fault.REDIS_AWAY,
        )
        if self._sentinel is None:
            # Its name may mean another server by now.
            self._commanding.lose("the server takes no writes")

    async def _ask_role(self) -> None:
        """
        See whether the server that takes commands has become a replica meanwhile.

        What is published to one is heard there alone. Where Sentinels are asked, they say it; a
        server that must not say it is asked once.
        """
        if self._sentinel is not None or not self._says_role:
            return
        try:
            role = await self.commands.execute("ROLE", repeatable=True)
        except Refused:
            self._says_role = False
        else:
            if role[0] == b"slave":
                self._on_read_only()

    async def _follow_for_ever(self) -> None:
        """
        Ask the Sentinels again and again whether the master is another one.
        """
        while True:
            await asyncio.sleep(MASTER_SECONDS)
            try:
                await self._locate()
            except (ChannelLayerUnavailable, ConfigurationError) as error:
                self._notices.say("sentinel", "%s [%s]", error, Fault.REDIS_AWAY)
            except Exception:
                logger.exception("the Sentinels could not be asked")

    # --- What is heard ------------------------------------------------------------------------

    def _hear(self, subject: str, payload: bytes) -> None:
        """
        Take a message. Hot path.
        """
        if subject == self._probe_subject:
            self._probe.heard()
        else:
            self._tell_heard(subject, payload)

    def _on_gap(self, subject: str) -> None:
        if subject == self._probe_subject:
            self._heard_since = self._loop.time()
            self._note("listener", None)
        else:
            self._tell_gap(subject)


def _nothing(*told: object) -> None:
    """
    Hear what does not matter here.
    """
