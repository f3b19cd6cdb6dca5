"""
What is done to a queue within Redis, each in one step: adding a message, and taking some.

A queue is four keys with one hash tag, so that a cluster keeps them together. ``order`` has
the ids of its messages in their order, ``until`` the same by when they expire, ``body`` the
payloads by id; each process that reads has a ``held``: its last request with what it was
given. Times are the server's own, in microseconds: clocks of other machines do not matter.

A message stays in ``held`` until its process asks again, so a request whose answer was lost
with a link is repeated and gets the same answer. Nothing else here may be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any, Protocol, TypeVar

from fairway.layers.brokers.redis.commands import Refused

__all__ = ["ADD", "TAKE", "Executor", "Script", "keys_of"]

T = TypeVar("T")

REMEMBERED_SECONDS = 3600
"""
Time that ids outlive their payloads, so that messages nobody read in time can be counted.
"""

_COMMON = (
    """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- Throws away what has expired, and gives how many that were.
local function expire()
  local count = 0
  while true do
    local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1000)
    if #gone == 0 then return count end
    redis.call('ZREM', KEYS[1], unpack(gone))
    redis.call('ZREM', KEYS[2], unpack(gone))
    redis.call('HDEL', KEYS[3], unpack(gone))
    count = count + #gone
  end
end

-- Has a key live for some more milliseconds, at least.
local function keep(key, milliseconds)
  if redis.call('PTTL', key) < milliseconds then
    redis.call('PEXPIRE', key, milliseconds)
  end
end

local function store(id, order, expires, body)
  redis.call('ZADD', KEYS[1], order, id)
  redis.call('ZADD', KEYS[2], expires, id)
  redis.call('HSET', KEYS[3], id, body)
  local left = math.ceil((expires - now) / 1000) + 1000
  keep(KEYS[3], left)
  keep(KEYS[1], left + """
    + str(REMEMBERED_SECONDS * 1000)
    + """)
  keep(KEYS[2], left + """
    + str(REMEMBERED_SECONDS * 1000)
    + """)
end
"""
)

_ADD = """
-- KEYS order until body; ARGV id, payload, lifetime in microseconds, capacity, channel.
-- Gives whether there was room, and how many had expired.
local gone = expire()
local count = redis.call('ZCARD', KEYS[1])
if count >= tonumber(ARGV[4]) then return {0, gone} end
local order = now
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
if last[2] and tonumber(last[2]) >= order then order = tonumber(last[2]) + 1 end
store(ARGV[1], order, now + tonumber(ARGV[3]), ARGV[2])
-- Who reads goes on until there is nothing left, so only the first needs to be made known.
if count == 0 then redis.call('PUBLISH', ARGV[5], '') end
return {1, gone}
"""

_TAKE = """
-- KEYS order until body held; ARGV request, the last one whose messages came, how many
-- messages, how many bytes, channel; then id, order, expiry and body of each to put back.
-- Gives how many are left, had expired, or had lost their body; then messages likewise.
local request = tonumber(ARGV[1])
local held = redis.call('LRANGE', KEYS[4], 0, 0)[1]
if held then
  held = tonumber(held)
  if held == request then return redis.call('LRANGE', KEYS[4], 1, -1) end
  -- An old one that lay in an old connection, and was repeated since.
  if held > request then return {0, 0, 0} end
end
local lost, put_back = {}, #ARGV > 5
if held and held ~= tonumber(ARGV[2]) then
  -- Such a one again, that came when nothing was held: nobody ever got what it took.
  lost = redis.call('LRANGE', KEYS[4], 4, -1)
  put_back = true
end
-- First of all that writes, whether or not it is there: a server without memory refuses what
-- takes some, unless a script has written before. Reading is what makes room again.
redis.call('DEL', KEYS[4])
for i = 1, #lost, 4 do store(lost[i], lost[i + 1], tonumber(lost[i + 2]), lost[i + 3]) end
for i = 6, #ARGV, 4 do
  store(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3])
end
local gone = expire()

local taken, bytes, longest, evicted = {}, 0, 0, 0
while #taken < 4 * tonumber(ARGV[3]) and bytes < tonumber(ARGV[4]) do
  local first = redis.call('ZPOPMIN', KEYS[1])
  if #first == 0 then break end
  local id = first[1]
  local expires = redis.call('ZSCORE', KEYS[2], id)
  local body = redis.call('HGET', KEYS[3], id)
  redis.call('ZREM', KEYS[2], id)
  redis.call('HDEL', KEYS[3], id)
  if expires and body then
    local n = #taken
    taken[n + 1], taken[n + 2], taken[n + 3], taken[n + 4] = id, first[2], expires, body
    bytes = bytes + #body
    longest = math.max(longest, tonumber(expires))
  else
    evicted = evicted + 1
  end
end
local left = redis.call('ZCARD', KEYS[1])
if put_back and left > 0 then redis.call('PUBLISH', ARGV[5], '') end
if #taken > 0 then
  redis.call('RPUSH', KEYS[4], ARGV[1], left, gone, evicted)
  for i = 1, #taken, 4 do
    redis.call('RPUSH', KEYS[4], taken[i], taken[i + 1], taken[i + 2], taken[i + 3])
  end
  redis.call('PEXPIRE', KEYS[4], math.ceil((longest - now) / 1000) + 1000)
end
local answer = {left, gone, evicted}
for i = 1, #taken do answer[i + 3] = taken[i] end
return answer
"""


class Executor(Protocol):
    """
    What of a node's commands is needed here.
    """

    def execute(self, *parts: str | bytes | int, repeatable: bool = False) -> asyncio.Future[Any]:
        """
        See ``commands.Commands``.
        """


class Script:
    """
    A script, sent by its digest; the server is given all of it when it does not know that.
    """

    __slots__ = ("_digest", "_source")

    def __init__(self, source: str) -> None:
        self._source = source
        self._digest = sha1(source.encode(), usedforsecurity=False).hexdigest()

    def run(
        self,
        commands: Executor,
        parts: Sequence[str | bytes | int],
        convert: Callable[[Any], T],
        *,
        repeatable: bool = False,
    ) -> asyncio.Future[T]:
        """
        Have the script run; it takes its place among the commands now.

        Args:
            commands: Those of the node.
            parts: The number of keys, the keys and the arguments.
            convert: Makes the result of the answer, or raises.
            repeatable: Whether running it twice does no harm.

        Raises:
            ChannelLayerUnavailable: The node is away; here or by what is returned.
        """
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def finish(sent: asyncio.Future[Any]) -> None:
            if sent.cancelled():
                result.cancel()
                return
            error = sent.exception()
            if result.done():
                return  # Nobody waits any more.
            try:
                if isinstance(error, Refused) and error.code == "NOSCRIPT":
                    # It has done nothing, so this is no repetition.
                    again = commands.execute("EVAL", self._source, *parts, repeatable=repeatable)
                    again.add_done_callback(finish)
                elif error is not None:
                    result.set_exception(error)
                else:
                    result.set_result(convert(sent.result()))
            except Exception as refusal:  # noqa: BLE001 - it is the caller's
                result.set_exception(refusal)

        sent = commands.execute("EVALSHA", self._digest, *parts, repeatable=repeatable)
        sent.add_done_callback(finish)
        return result


ADD = Script(_COMMON + _ADD)
TAKE = Script(_COMMON + _TAKE)


def keys_of(prefix: str, queue: str) -> list[str]:
    """
    Give the keys ``order``, ``until`` and ``body`` of a queue.
    """
    return [f"{prefix}:queue:{{{queue}}}:{part}" for part in ("order", "until", "body")]
