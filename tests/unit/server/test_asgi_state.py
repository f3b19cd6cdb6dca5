"""
The ASGI state machines: every state with every message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fairway.exceptions import ClientDisconnected, LocalProtocolError
from fairway.server.asgi_state import HTTP, LIFESPAN, WEBSOCKET, Machine, State, Table
from fairway.server.exchange import Exchange, HttpExchange
from fairway.server.lifespan import LIFESPAN_MACHINE, Lifespan
from fairway.server.websocket import WebSocketExchange

MESSAGES = [
    "http.response.start",
    "http.response.body",
    "http.response.trailers",
    "http.disconnect",
    "websocket.accept",
    "websocket.send",
    "websocket.close",
    "websocket.http.response.start",
    "websocket.http.response.body",
    "websocket.connect",
    "lifespan.startup.complete",
    "lifespan.startup.failed",
    "lifespan.shutdown.complete",
    "lifespan.shutdown.failed",
    "",
    None,
]

# What the ASGI specification allows, written down a second time: state, message, state after.
# None where the content of the message decides, or the method enters the state itself.
ALLOWED: dict[str, dict[tuple[State, str], State | None]] = {
    "http": {
        (State.WAITING, "http.response.start"): State.STARTED,
        (State.STARTED, "http.response.body"): None,
    },
    "websocket": {
        (State.CONNECTING, "websocket.accept"): None,
        (State.CONNECTING, "websocket.close"): State.CLOSED,
        (State.CONNECTING, "websocket.http.response.start"): State.REFUSING,
        (State.REFUSING, "websocket.http.response.body"): None,
        (State.OPEN, "websocket.send"): State.OPEN,
        (State.OPEN, "websocket.close"): State.CLOSED,
    },
    "lifespan": {
        (State.STARTING, "lifespan.startup.complete"): State.RUNNING,
        (State.STARTING, "lifespan.startup.failed"): State.FAILED,
        (State.STOPPING, "lifespan.shutdown.complete"): State.STOPPED,
        (State.STOPPING, "lifespan.shutdown.failed"): State.FAILED,
    },
}
TABLES: dict[str, Table] = {"http": HTTP, "websocket": WEBSOCKET, "lifespan": LIFESPAN}


class Carried(Exchange):
    """
    An exchange that only notes which methods the table calls.
    """

    __slots__ = ("calls",)

    def __init__(self, state: State) -> None:
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self.enter(state)


def carried(protocol: str, state: State) -> Carried:
    """
    Such an exchange for one protocol, in one state.
    """

    def note(name: str) -> Any:
        return lambda self, message: self.calls.append((name, message))

    table = TABLES[protocol]
    actions = {
        step.action: note(step.action) for steps in table.values() for step in steps.values()
    }
    kind = type("Kind", (Carried,), actions)
    kind.machine = Machine(table, kind)  # type: ignore[attr-defined] # Exchange's
    return kind(state)  # type: ignore[no-any-return] # a Carried


@pytest.mark.parametrize(
    ("protocol", "state", "message"),
    [
        (protocol, state, message)
        for protocol, table in TABLES.items()
        for state in table
        for message in MESSAGES
    ],
)
@pytest.mark.one_loop
async def test_every_state_and_message(protocol: str, state: State, message: str | None) -> None:
    """
    What is allowed is carried out once and leads on; anything else is refused by name.
    """
    exchange = carried(protocol, state)
    event = {"type": message}
    if (state, message) in ALLOWED[protocol]:
        await exchange.send(event)
        assert [content for _, content in exchange.calls] == [event]
        after = ALLOWED[protocol][state, message or ""]
        assert exchange.state is (after or state)
        return
    expected = ClientDisconnected if state is State.GONE else LocalProtocolError
    with pytest.raises(expected) as caught:
        await exchange.send(event)
    assert type(caught.value) is expected
    assert repr(message) in str(caught.value)
    if state is not State.GONE:
        assert state.value in str(caught.value)
        assert all(repr(kind) in str(caught.value) for at, kind in ALLOWED[protocol] if at is state)
    assert exchange.calls == []
    assert exchange.state is state


@pytest.mark.parametrize(
    ("table", "machine", "cls"),
    [
        (HTTP, HttpExchange.machine, HttpExchange),
        (WEBSOCKET, WebSocketExchange.machine, WebSocketExchange),
        (LIFESPAN, LIFESPAN_MACHINE, Lifespan),
    ],
)
def test_compiled(table: Table, machine: Machine, cls: type) -> None:
    """
    Each machine is its table with the methods of its class.
    """
    assert machine.steps.keys() == table.keys()
    for state, steps in table.items():
        assert machine.steps[state].keys() == steps.keys()
        for kind, step in steps.items():
            assert machine.steps[state][kind][0] is getattr(cls, step.action)


def test_every_state_is_reached() -> None:
    """
    Every state that a step leads to has a row, and every state belongs to some table.
    """
    for table in TABLES.values():
        after = {step.state for steps in table.values() for step in steps.values()} - {None}
        assert after <= table.keys()
    assert {state for table in TABLES.values() for state in table} == set(State)


async def test_message_without_type() -> None:
    """
    A message without a type is refused like an unknown one.
    """
    with pytest.raises(LocalProtocolError, match=r"got None"):
        await carried("http", State.WAITING).send({})
