"""
Logins that end by Django's own admin, in a real project of two servers that share a machine.
"""

from __future__ import annotations

import asyncio
import urllib.parse
import urllib.request
from contextlib import AsyncExitStack
from http.cookiejar import CookieJar

from websockets.asyncio.client import ClientConnection, connect

from tests.acceptance.project import Project

SECONDS_MAX = 10
"""
Time for what is promised within a second, on a machine that has much else to do.
"""

PREPARE = """
from django.contrib.auth.models import User
from django.core.management import call_command

call_command("migrate", verbosity=0)
User.objects.create_superuser("bob", password="secret")
"""

CHEAPEST = "django.contrib.auth.hashers.MD5PasswordHasher"

DEACTIVATE = """
from django.contrib.auth.models import User

bob = User.objects.get()
bob.is_active = False
bob.save()
"""


class Browser:
    """
    A browser: it keeps cookies and fills in forms.
    """

    def __init__(self) -> None:
        self.cookies = CookieJar()
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.cookies)
        )

    async def submit(self, url: str, **fields: str) -> str:
        """
        Get a page with a form, fill it in and give where that leads.
        """
        return await asyncio.to_thread(self._submit, url, fields)

    def _submit(self, url: str, fields: dict[str, str]) -> str:
        if "csrftoken" not in self.values:
            self.opener.open(url, timeout=SECONDS_MAX).close()
        data = {**fields, "csrfmiddlewaretoken": self.values["csrftoken"]}
        body = urllib.parse.urlencode(data).encode()
        with self.opener.open(url, body, timeout=SECONDS_MAX) as answer:
            final: str = answer.url
            return final

    async def log_in(self, address: str, password: str = "secret") -> None:
        """
        Log in by the admin.
        """
        url = f"http://{address}/admin/login/?next=/admin/"
        final = await self.submit(url, username="bob", password=password)
        assert final == f"http://{address}/admin/"

    @property
    def values(self) -> dict[str, str]:
        """
        The cookies by name.
        """
        return {cookie.name: cookie.value or "" for cookie in self.cookies}


async def open_socket(sockets: AsyncExitStack, browser: Browser, address: str) -> ClientConnection:
    """
    Open a browser's socket to one of the servers.
    """
    cookie = {"cookie": f"sessionid={browser.values['sessionid']}"}
    url = f"ws://{address}/ws/chat/lobby/"
    return await sockets.enter_async_context(connect(url, additional_headers=cookie, proxy=None))


async def closed(*sockets: ClientConnection) -> list[int | None]:
    """
    Wait until sockets are closed and give their codes.
    """
    async with asyncio.timeout(SECONDS_MAX):
        await asyncio.gather(*(socket.wait_closed() for socket in sockets))
    return [socket.close_code for socket in sockets]


async def lives(socket: ClientConnection) -> None:
    """
    Have a socket answer.
    """
    async with asyncio.timeout(SECONDS_MAX):
        await (await socket.ping())


async def test_logins_end_everywhere(project: Project) -> None:
    """
    What one server or a shell does to a login closes its sockets at both, and no others.
    """
    with project.settings.open("a") as settings:
        settings.write(f"PASSWORD_HASHERS = [{CHEAPEST!r}]\n")
    prepared = await project.manage("shell", "-v", "0", "-c", PREPARE)
    assert (await prepared.ended())[0] == 0
    servers = [await project.manage("serve", "--port", "0") for _ in range(2)]
    first, second = [await server.ready() for server in servers]
    here, there, elsewhere = browsers = [Browser() for _ in range(3)]
    for browser in browsers:
        await browser.log_in(first)
    async with AsyncExitStack() as sockets:
        mine = [await open_socket(sockets, here, address) for address in (first, second)]
        own = await open_socket(sockets, there, second)
        old = [await open_socket(sockets, elsewhere, address) for address in (first, second)]

        await here.submit(f"http://{first}/admin/logout/")
        assert await closed(*mine) == [4401, 4401]
        await asyncio.gather(*(lives(socket) for socket in (own, *old)))

        change = {"old_password": "secret", "new_password1": "p4ss-w0rd"}
        change["new_password2"] = change["new_password1"]
        final = await there.submit(f"http://{first}/admin/password_change/", **change)
        assert final.endswith("/password_change/done/")
        assert await closed(*old) == [4401, 4401]
        await lives(own)

        shell = await project.manage("shell", "-v", "0", "-c", DEACTIVATE)
        assert (await shell.ended()) == (0, "")
        assert await closed(own) == [4401]
    for server in servers:
        status, output = await server.stop()
        assert status == 0
        assert "Traceback" not in output
