"""
WebSockets: echo, handshakes, and one message to many.
"""

from __future__ import annotations

from benchmarks.harness.blocks.common import (
    CHANNELS,
    MEMBERS,
    MESSAGE,
    SERVERS,
    beside,
    fan_out,
    table,
)
from benchmarks.harness.rows import Block, Condition, Row, Task

__all__ = ["BLOCKS"]

FLOOR = "C, floor"
BARE = "P, bare protocol"
BROADCAST = "Fairway, broadcast"
HANDLER = "Fairway, a handler per socket"
PLAIN = "Fairway, plain loop"
# The layer in memory looks at all channels for each delivery: to 5,000 a message takes seconds.
LONG_ROUNDS = ("--patience", "120", "--warmup", "0")

ECHO = (
    Task("asgi", "asgi", "echo", title="Fairway, ASGI application"),
    Task("consumer", "site", "echo", "/consumer-echo", title="Fairway, consumer"),
    Task("bare", "bare", "echo", title=BARE),
    Task("floor", "floor", "echo", title=FLOOR),
    *beside(("picows", *SERVERS), "echo"),
    *beside(CHANNELS, "echo", "/echo"),
)

CONNECT = (
    Task("asgi", "asgi", "connect", title="Fairway, ASGI application"),
    Task("consumer", "site", "connect", "/consumer-echo", title="Fairway, consumer"),
    Task("bare", "bare", "connect", title=BARE),
    Task("floor", "floor", "connect", title=FLOOR),
    *beside(("picows", *SERVERS), "connect"),
    *beside(CHANNELS, "connect", "/echo"),
)

BROADCASTS = (
    fan_out("broadcast", "site", "/broadcast", title=BROADCAST),
    fan_out("bare", "bare", title=BARE),
    fan_out("floor", "floor", title=FLOOR),
    fan_out("handler", "site", "/handler", title=HANDLER, rounds=3),
    fan_out("plain", "asgi", "/members", title=PLAIN, rounds=3),
    *beside(("picows", *SERVERS), "fanout", "/members", MEMBERS, MESSAGE),
    *beside(CHANNELS, "fanout", "/handler", MEMBERS, MESSAGE),
)


def other_size(members: int, rounds: int) -> tuple[Task, ...]:
    """
    Return the tasks of a fan-out to another number of members.
    """
    prefix = f"{members:,} "
    return (
        fan_out(f"{prefix}broadcast", "site", "/broadcast", 1, members, title=BROADCAST),
        fan_out(f"{prefix}handler", "site", "/handler", 1, members, title=HANDLER),
        fan_out(f"{prefix}bare", "bare", "/", 1, members, title=BARE),
        fan_out(f"{prefix}floor", "floor", "/", 1, members, title=FLOOR),
        *beside(
            ("picows", *SERVERS),
            "fanout",
            "/members",
            members,
            MESSAGE,
            prefix=prefix,
            rounds=rounds,
        ),
        *beside(
            CHANNELS,
            "fanout",
            "/handler",
            members,
            (*MESSAGE, *LONG_ROUNDS),
            prefix=prefix,
            rounds=rounds,
            seconds=0.5,
        ),
    )


def bursts(burst: int) -> tuple[Task, ...]:
    """
    Return the tasks that publish several messages in one turn of the loop.
    """
    options = (*MESSAGE, "--burst", str(burst))
    prefix = "" if burst == 4 else f"{burst} "
    return (
        fan_out(f"{prefix}broadcast", "site", "/broadcast", burst, title=BROADCAST),
        fan_out(f"{prefix}bare", "bare", "/", burst, title=BARE),
        *beside(
            ("picows", "uvicorn", "granian-asgi"),
            "fanout",
            "/members",
            MEMBERS,
            options,
            prefix=prefix,
            rounds=2,
        ),
        *beside(
            CHANNELS,
            "fanout",
            "/handler",
            MEMBERS,
            (*options, *LONG_ROUNDS),
            prefix=prefix,
            rounds=1,
            seconds=0.5,
        ),
    )


SMALL, LARGE = other_size(100, 2), other_size(5000, 1)
FOUR, SIXTEEN = bursts(4), bursts(16)
# One message is what a delivery of the burst is compared with.
ONE = fan_out("floor", "floor", title="C, one message")

HANDLERS = (
    fan_out("handler", "site", "/handler", title=HANDLER),
    fan_out("floor", "floor", title=FLOOR),
    *beside(CHANNELS, "fanout", "/handler", MEMBERS, MESSAGE, rounds=2),
)

CROWD = (
    fan_out("broadcast", "site", "/broadcast", 1, 15_000, title=BROADCAST),
    fan_out("bare", "bare", "/", 1, 15_000, title=BARE),
    fan_out("floor", "floor", "/", 1, 15_000, title=FLOOR),
    *beside(
        ("picows", "uvicorn"),
        "fanout",
        "/members",
        15_000,
        (*MESSAGE, "--patience", "30"),
        rounds=1,
    ),
    *beside(
        ("channels-daphne",),
        "fanout",
        "/handler",
        15_000,
        (*MESSAGE, *LONG_ROUNDS),
        rounds=1,
        seconds=0.1,
    ),
)


JSON = ("--bytes", "1000")
DEFLATE = (
    Task("deflate", "site", "fanout", "/compressed-prices", MEMBERS, (*JSON, "--deflate")),
    Task("plain", "site", "fanout", "/prices", MEMBERS, (*JSON, "--same")),
)

BLOCKS = (
    Block(
        "echo",
        "message",
        ECHO,
        (
            Row("echo through ASGI", "asgi", "floor", "C", bar=2.2, aim=1.8),
            Row("echo through a consumer", "consumer", "floor", "C", bar=3.2, aim=2.2),
            Row("echo, bare protocol", "bare", "floor", "C"),
        ),
        (table("Echo of 128 bytes, 100 WebSockets", ECHO, plot=True),),
    ),
    Block(
        "connect",
        "connection",
        CONNECT,
        (
            Row("connect + close through ASGI", "asgi", "floor", "C", bar=3.5, aim=2.8),
            Row("connect + close through a consumer", "consumer", "floor", "C", bar=5.0, aim=4.0),
            Row("connect + close, bare protocol", "bare", "floor", "C"),
        ),
        (table("Connect, upgrade, close", CONNECT, plot=True),),
    ),
    Block(
        "broadcast",
        "delivery",
        BROADCASTS,
        (
            Row("broadcast, 1,000 sockets, against P", "broadcast", "bare", "P", bar=1.15),
            Row(
                "broadcast, 1,000 sockets, against C",
                "broadcast",
                "floor",
                "C",
                bar=1.5,
                aim=1.3,
                condition=Condition("bare", "floor", 1.3),
            ),
            Row("write loop of the bare protocol (P)", "bare", "floor", "C"),
        ),
        (table("A message to 1,000 WebSockets, per delivery", BROADCASTS, plot=True),),
    ),
    Block(
        "fanout",
        "delivery",
        (*SMALL, *LARGE),
        (
            Row("broadcast, 100 sockets", "100 broadcast", "100 floor", "C"),
            Row("broadcast, 5,000 sockets", "5,000 broadcast", "5,000 floor", "C"),
        ),
        (
            table("A message to 100 WebSockets, per delivery", SMALL, "100 ", "100 floor"),
            table("A message to 5,000 WebSockets, per delivery", LARGE, "5,000 ", "5,000 floor"),
        ),
        repeat=3,
    ),
    Block(
        "burst",
        "delivery",
        (*FOUR, *SIXTEEN, ONE),
        (
            Row("4 messages in one loop turn, each", "broadcast", "floor", "C", bar=0.5, aim=0.4),
            Row("the same, joined by the bare protocol", "bare", "floor", "C"),
            Row("16 messages in one loop turn, each", "16 broadcast", "floor", "C"),
            Row("the same, joined by the bare protocol (16)", "16 bare", "floor", "C"),
        ),
        (
            table("4 messages at once to 1,000 WebSockets, per delivery", (*FOUR, ONE), plot=True),
            table("16 messages at once to 1,000 WebSockets, per delivery", (*SIXTEEN, ONE), "16 "),
        ),
    ),
    Block(
        "handler",
        "delivery",
        HANDLERS,
        (
            Row(
                "group message, a Python handler per socket",
                "handler",
                "floor",
                "C",
                bar=3.5,
                aim=2.5,
            ),
        ),
        (table("A message through a Python handler for each of 1,000 WebSockets", HANDLERS),),
    ),
    Block(
        "crowd",
        "delivery",
        CROWD,
        (
            Row("broadcast, 15,000 sockets on one process", "broadcast", "floor", "C"),
            Row("the same, bare protocol", "bare", "floor", "C"),
        ),
        (table("A message to 15,000 WebSockets of one process, per delivery", CROWD),),
        repeat=3,
    ),
    Block(
        "deflate",
        "delivery",
        DEFLATE,
        (Row("1 KB of JSON to 1,000 sockets, compressed", "deflate", "plain", "x", bar=1.3),),
    ),
)
