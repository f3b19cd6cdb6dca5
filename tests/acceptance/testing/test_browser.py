"""
A real browser against the live server: what projects did with Selenium and Channels' test case.

One test case of Django's, run by Django's rules: in-memory database, cookies, static files.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path
from playwright.async_api import Page

import fairway
from fairway.testing import ChannelsLiveServerTestCase
from tests.acceptance.browser import chromium

pytestmark = pytest.mark.browser

MILLISECONDS_MAX = 10_000

SCRIPT = """
const socket = new WebSocket(`ws://${location.host}/ws/chat/lobby/`);
const log = (text) => { document.querySelector("#log").textContent += text; };
socket.onmessage = (event) => log(event.data);
socket.onclose = (event) => log(`closed ${event.code}`);
document.querySelector("input").onchange = (event) => socket.send(event.target.value);
"""


class Chat(fairway.AsyncWebsocketConsumer):
    """
    Tells a room who says what, and keeps it.
    """

    async def connect(self) -> None:
        """
        Join the room of the address.
        """
        self.room = f"chat.{self.url_kwargs['room']}"
        await self.group_add(self.room)
        await self.accept()
        await self.send("ready;")

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Keep it and tell everybody.
        """
        await Group.objects.acreate(name=text_data or "")
        await fairway.abroadcast(self.room, f"{self.scope['user']}: {text_data};")


def page(request: HttpRequest) -> HttpResponse:
    """
    Show the room.
    """
    return HttpResponse(
        f"<!doctype html><title>{request.user}</title><input><p id=log></p>"
        '<script src="/static/chat.js"></script>'
    )


class Urls:
    """
    A chat.
    """

    urlpatterns = [  # noqa: RUF012 - as a module has it
        path("chat/", page),
        path("ws/chat/<slug:room>/", Chat.as_asgi()),
    ]


@pytest.fixture(autouse=True, scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """
    The settings of a project with a chat, whose script is a static file.
    """
    folder: Path = tmp_path_factory.mktemp("static")
    (folder / "chat.js").write_text(SCRIPT)
    with override_settings(
        ROOT_URLCONF=Urls,
        INSTALLED_APPS=[*settings.INSTALLED_APPS, "django.contrib.staticfiles"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        STATIC_URL="static/",
        STATICFILES_DIRS=[folder],
    ):
        yield


class ChatTests(ChannelsLiveServerTestCase):
    """
    The steps of a tutorial's browser tests.
    """

    serve_static = True

    async def test_a_message_reaches_everybody_in_the_room(self) -> None:
        """
        Two windows of two people see what one types, and what the test broadcasts.
        """
        async with asyncio.timeout(2 * MILLISECONDS_MAX / 1000), chromium() as browser:
            pages = []
            for name in ("ann", "bob"):
                context = await browser.new_context()
                client = self.async_client_class()
                await client.aforce_login(await User.objects.acreate(username=name))
                session = client.cookies["sessionid"].value
                await context.add_cookies(
                    [{"name": "sessionid", "value": session, "url": self.live_server_url}]
                )
                pages.append(await context.new_page())
                await pages[-1].goto(f"{self.live_server_url}/chat/")
                await shows(pages[-1], "ready;")
            assert [await one.title() for one in pages] == ["ann", "bob"]
            await pages[0].locator("input").fill("hello")
            await pages[0].locator("input").press("Enter")
            for one in pages:
                await shows(one, "ready;ann: hello;")
            assert (await Group.objects.aget()).name == "hello"
            await fairway.abroadcast("chat.lobby", "test: bye;")
            for one in pages:
                await shows(one, "ready;ann: hello;test: bye;")


async def shows(page: Page, text: str) -> None:
    """
    Wait until a page shows exactly this.
    """
    await page.wait_for_function(
        "text => document.querySelector('#log').textContent === text",
        arg=text,
        timeout=MILLISECONDS_MAX,
    )
