"""
The recipes for tokens in docs/auth.md, run as they stand there, under Fairway's own server.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import clear_url_caches, path
from pytest_django import Settings
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

import fairway
from fairway.layers.layer import InMemoryChannelLayer
from fairway.layers.registry import bind, channel_layers, release
from tests.protocol import harness

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_loop]

PAGE = Path(__file__).parents[2] / "docs" / "auth.md"

Connect = Callable[..., Any]


class Whoami(fairway.AsyncWebsocketConsumer):
    """
    Says whose the socket is.
    """

    login_required = True

    async def connect(self) -> None:
        """
        Accept and say it.
        """
        await self.accept()
        await self.send(text_data=self.scope["user"].get_username())


def block(word: str) -> str:
    """
    Give the block of Python on the page that holds a word.
    """
    (found,) = [
        each
        for each in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        if word in each
    ]
    return str(found)


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Iterator[dict[str, Any]]:
    """
    What the recipes define.
    """
    for name in ("accounts", "accounts.tokens"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    exec(block("def make_token"), vars(sys.modules["accounts.tokens"]))
    names: dict[str, Any] = {"fairway": fairway}
    for word in ("class TokenMiddleware", "class SubprotocolMiddleware", "class FirstMessage"):
        exec(block(word), names)
    names["make_token"] = vars(sys.modules["accounts.tokens"])["make_token"]

    class Urls:
        urlpatterns = [  # noqa: RUF012 - as a module has it
            path("whoami/", Whoami.as_asgi()),
            path("sub/", names["SubprotocolConsumer"].as_asgi()),
            path("first/", names["FirstMessageConsumer"].as_asgi()),
        ]

    settings.ROOT_URLCONF = Urls
    clear_url_caches()
    yield names
    clear_url_caches()


@pytest.fixture
async def open_socket(recipes: dict[str, Any]) -> AsyncIterator[Connect]:
    """
    Serve one of the applications and open sockets to it.
    """
    previous = channel_layers.set("default", InMemoryChannelLayer())
    loop = asyncio.get_running_loop()
    await bind(loop)
    async with AsyncExitStack() as stack:

        async def start(application: Any, where: str, **options: Any) -> ClientConnection:
            served = await harness.serve(application)
            stack.push_async_callback(served.close)
            url = f"ws://127.0.0.1:{served.sock.getsockname()[1]}/{where}"
            return await stack.enter_async_context(connect(url, proxy=None, **options))

        yield start
    await release(loop)
    channel_layers.set("default", previous)


async def heard(socket: ClientConnection) -> str:
    """
    Wait for a message.
    """
    async with asyncio.timeout(5):
        return str(await socket.recv())


async def closed(socket: ClientConnection) -> int | None:
    """
    Wait for the end.
    """
    async with asyncio.timeout(5):
        await socket.wait_closed()
    return socket.close_code


async def test_in_a_header(recipes: dict[str, Any], open_socket: Connect) -> None:
    """A good token is its user; a bad one nobody. The user's end is the socket's."""
    bob = await User.objects.acreate_user("bob")
    token = recipes["make_token"](bob)
    bearer = {"additional_headers": {"authorization": f"Bearer {token}"}}
    socket = await open_socket(recipes["application"], "whoami/", **bearer)
    assert await heard(socket) == "bob"
    for wrong in (f"Bearer {token}x", f"Basic {token}", "Bearer"):
        headers = {"authorization": wrong}
        with pytest.raises(InvalidStatus, match="403"):
            await open_socket(recipes["application"], "whoami/", additional_headers=headers)
    bob.is_active = False
    await bob.asave()
    assert await closed(socket) == 4401
    with pytest.raises(InvalidStatus, match="403"):
        await open_socket(recipes["application"], "whoami/", **bearer)


async def test_as_a_subprotocol(recipes: dict[str, Any], open_socket: Connect) -> None:
    """The token is offered, and another protocol chosen."""
    bob = await User.objects.acreate_user("bob")
    application = recipes["SubprotocolMiddleware"](recipes["everything"])
    token = recipes["make_token"](bob)
    offered = [Subprotocol("chat"), Subprotocol(f"token.{token}")]
    socket = await open_socket(application, "sub/", subprotocols=offered)
    assert socket.subprotocol == "chat"
    await fairway.adisconnect(user=bob)
    assert await closed(socket) == 4401
    with pytest.raises(InvalidStatus, match="403"):
        await open_socket(application, "sub/", subprotocols=[Subprotocol("chat")])


async def test_in_the_first_message(recipes: dict[str, Any], open_socket: Connect) -> None:
    """The socket becomes its user's, whose end is its own; without a token it is closed."""
    bob = await User.objects.acreate_user("bob")
    application = recipes["everything"]
    socket = await open_socket(application, "first/")
    await socket.send(json.dumps({"token": recipes["make_token"](bob)}))
    assert json.loads(await heard(socket)) == {"hello": "bob"}
    fairway.broadcast(f"user.{bob.pk}", "for bob")
    assert await heard(socket) == "for bob"
    await bob.adelete()
    assert await closed(socket) == 4401
    wrong = await open_socket(application, "first/")
    await wrong.send(json.dumps({"token": "wrong"}))
    assert await closed(wrong) == 4401
    recipes["FirstMessageConsumer"].seconds = 0.01
    assert await closed(await open_socket(application, "first/")) == 4401
