"""
What an application may send when: the ASGI state machines, as data.

Each protocol has a table ``{state: {message type: Step}}``; a step names the
method of the exchange that carries the message out and the state after it. An
exchange runs on the compiled table of its class and knows no other rules of
order, so this page is the whole truth about them. What a message may contain is
the business of the method.

HTTP (ASGI HTTP spec)::

    WAITING --start--> STARTED --body--> STARTED | COMPLETE

WebSocket (ASGI WebSocket spec, ``websocket.http.response`` extension)::

    CONNECTING --accept--> OPEN --send--> OPEN --close--> CLOSED
    CONNECTING --close--> CLOSED
    CONNECTING --http.response.start--> REFUSING --http.response.body--> REFUSING | CLOSED

Lifespan::

    STARTING --complete--> STARTED | --failed--> FAILED
    STOPPING --complete--> STOPPED | --failed--> FAILED

``GONE``, in both: the peer left first; every message raises ``ClientDisconnected``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from fairway.exceptions import ClientDisconnected, LocalProtocolError

__all__ = ["HTTP", "LIFESPAN", "WEBSOCKET", "Machine", "State", "Step"]


class State(Enum):
    """
    Where an application stands in one exchange.
    """

    # The identity of an enum member serves as hash: tables are looked up per message.
    __hash__ = object.__hash__

    WAITING = "before http.response.start"
    STARTED = "after http.response.start"
    COMPLETE = "after the last http.response.body"

    CONNECTING = "before websocket.accept"
    OPEN = "after websocket.accept"
    REFUSING = "after websocket.http.response.start"
    CLOSED = "after websocket.close"

    STARTING = "before lifespan.startup.complete"
    RUNNING = "between start-up and shutdown"
    STOPPING = "before lifespan.shutdown.complete"
    STOPPED = "after lifespan.shutdown.complete"
    FAILED = "after a lifespan failure"

    GONE = "after the peer has gone"


class Step(NamedTuple):
    """
    How one message is carried out.

    Attributes:
        action: Name of the method; called with the message.
        state: The state afterwards, None where the method itself decides.
    """

    action: str
    state: State | None


Table = Mapping[State, Mapping[str, Step]]

HTTP: Table = {
    State.WAITING: {
        "http.response.start": Step("start", State.STARTED),
    },
    State.STARTED: {
        "http.response.body": Step("body", None),
    },
    State.COMPLETE: {},
    State.GONE: {},
}

WEBSOCKET: Table = {
    State.CONNECTING: {
        "websocket.accept": Step("accept", None),
        "websocket.close": Step("refuse", State.CLOSED),
        "websocket.http.response.start": Step("start_refusal", State.REFUSING),
    },
    State.OPEN: {
        "websocket.send": Step("send_message", State.OPEN),
        "websocket.close": Step("close", State.CLOSED),
    },
    State.REFUSING: {
        "websocket.http.response.body": Step("refusal_body", None),
    },
    State.CLOSED: {},
    State.GONE: {},
}

LIFESPAN: Table = {
    State.STARTING: {
        "lifespan.startup.complete": Step("started", State.RUNNING),
        "lifespan.startup.failed": Step("failed", State.FAILED),
    },
    State.RUNNING: {},
    State.STOPPING: {
        "lifespan.shutdown.complete": Step("stopped", State.STOPPED),
        "lifespan.shutdown.failed": Step("failed", State.FAILED),
    },
    State.STOPPED: {},
    State.FAILED: {},
}


Action = Callable[[Any, Mapping[str, Any]], Any]
Steps = dict[str, tuple[Action, State | None]]


class Machine:
    """
    A table compiled for one class: method names looked up once, at import.

    Attributes:
        steps: ``{state: {message type: (method, state afterwards)}}``; no state where
            the method decides, or where it does not change.
    """

    __slots__ = ("steps",)

    def __init__(self, table: Table, cls: type) -> None:
        self.steps: dict[State, Steps] = {
            state: {
                kind: (getattr(cls, step.action), None if step.state is state else step.state)
                for kind, step in steps.items()
            }
            for state, steps in table.items()
        }

    def refusal(self, state: State, message: Mapping[str, Any]) -> Exception:
        """
        Make the exception for a message that the state does not allow.
        """
        kind = message.get("type")
        if state is State.GONE:
            return ClientDisconnected(f"the peer has gone; it will not get {kind!r}")
        allowed = sorted(self.steps[state])
        expected = " or ".join(map(repr, allowed)) if allowed else "nothing more"
        return LocalProtocolError(f"expected {expected} {state.value}, got {kind!r}")
