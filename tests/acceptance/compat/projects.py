"""
Projects as they look after Channels' documented steps, with ``fairway`` in their imports.

Written anew, in the shapes that those steps lead to. A project is its files by path; what
``startproject`` writes is there already.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

__all__ = ["ASYNC", "OLD", "PAGES", "SYNC", "TESTS", "TOPICS", "Files", "change", "write"]

Files: TypeAlias = Mapping[str, str]

# --- The tutorial, step by step ----------------------------------------------------------------

PAGES: Files = {
    "chat/__init__.py": "",
    "chat/templates/chat/index.html": """
<!doctype html>
<title>Rooms</title>
<input id="room-name-input"> <button id="room-name-submit">Enter</button>
<script>
  document.querySelector("#room-name-submit").onclick = () => {
    const name = document.querySelector("#room-name-input").value;
    window.location.pathname = "/chat/" + name + "/";
  };
</script>
""",
    "chat/views.py": """
from django.shortcuts import render


def index(request):
    return render(request, "chat/index.html")
""",
    "chat/urls.py": """
from django.urls import path

from . import views

urlpatterns = [path("", views.index, name="index")]
""",
    "site_/urls.py": """
from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("chat/", include("chat.urls")), path("admin/", admin.site.urls)]
""",
    "site_/asgi.py": """
import os

from django.core.asgi import get_asgi_application

from fairway.routing import ProtocolTypeRouter

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_.settings")

application = ProtocolTypeRouter({"http": get_asgi_application()})
""",
}
"""
The first step: a page, and an ``asgi.py`` that routes by protocol.
"""

SYNC: Files = {
    "chat/templates/chat/room.html": """
<!doctype html>
<title>Room</title>
<textarea id="chat-log"></textarea>
<input id="chat-message-input"> <button id="chat-message-submit">Send</button>
{{ room_name|json_script:"room-name" }}
<script>
  const roomName = JSON.parse(document.getElementById("room-name").textContent);
  const socket = new WebSocket("ws://" + window.location.host + "/ws/chat/" + roomName + "/");
  const input = document.querySelector("#chat-message-input");
  socket.onopen = () => { document.title = "connected"; };
  socket.onmessage = (event) => {
    document.querySelector("#chat-log").value += JSON.parse(event.data).message + "\\n";
  };
  document.querySelector("#chat-message-submit").onclick = () => {
    socket.send(JSON.stringify({ message: input.value }));
    input.value = "";
  };
</script>
""",
    "chat/views.py": """
from django.shortcuts import render


def index(request):
    return render(request, "chat/index.html")


def room(request, room_name):
    return render(request, "chat/room.html", {"room_name": room_name})
""",
    "chat/urls.py": """
from django.urls import path

from . import views

urlpatterns = [
    path("", views.index, name="index"),
    path("<str:room_name>/", views.room, name="room"),
]
""",
    "chat/consumers.py": """
import json

from asgiref.sync import async_to_sync

from fairway.generic.websocket import WebsocketConsumer


class ChatConsumer(WebsocketConsumer):
    def connect(self):
        self.room_name = self.scope["url_route"]["kwargs"]["room_name"]
        self.room_group_name = f"chat_{self.room_name}"
        async_to_sync(self.channel_layer.group_add)(self.room_group_name, self.channel_name)
        self.accept()

    def disconnect(self, close_code):
        async_to_sync(self.channel_layer.group_discard)(self.room_group_name, self.channel_name)

    def receive(self, text_data):
        message = json.loads(text_data)["message"]
        async_to_sync(self.channel_layer.group_send)(
            self.room_group_name, {"type": "chat.message", "message": message}
        )

    def chat_message(self, event):
        self.send(text_data=json.dumps({"message": event["message"], "by": "sync"}))
""",
    "chat/routing.py": """
from django.urls import re_path

from . import consumers

websocket_urlpatterns = [
    re_path(r"ws/chat/(?P<room_name>\\w+)/$", consumers.ChatConsumer.as_asgi()),
]
""",
    "site_/asgi.py": """
import os

from django.core.asgi import get_asgi_application

from fairway.auth import AuthMiddlewareStack
from fairway.routing import ProtocolTypeRouter, URLRouter
from fairway.security.websocket import AllowedHostsOriginValidator

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_.settings")
# First, since it sets Django up for what the imports below need.
django_asgi_app = get_asgi_application()

from chat.routing import websocket_urlpatterns

application = ProtocolTypeRouter({
    "http": django_asgi_app,
    "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
})
""",
}
"""
The second step: a room with a synchronous consumer, over the channel layer that is there.
"""

ASYNC: Files = {
    "chat/consumers.py": """
import json

from fairway.generic.websocket import AsyncWebsocketConsumer


class ChatConsumer(AsyncWebsocketConsumer):
    async def connect(self):
        self.room_name = self.scope["url_route"]["kwargs"]["room_name"]
        self.room_group_name = f"chat_{self.room_name}"
        await self.channel_layer.group_add(self.room_group_name, self.channel_name)
        await self.accept()

    async def disconnect(self, close_code):
        await self.channel_layer.group_discard(self.room_group_name, self.channel_name)

    async def receive(self, text_data):
        message = json.loads(text_data)["message"]
        await self.channel_layer.group_send(
            self.room_group_name, {"type": "chat.message", "message": message}
        )

    async def chat_message(self, event):
        await self.send(text_data=json.dumps({"message": event["message"], "by": "async"}))
""",
}
"""
The third step: the same consumer, asynchronous.
"""

TESTS: Files = {
    "chat/tests.py": """
import json

from websockets.sync.client import connect

from fairway.layers import get_channel_layer
from fairway.testing import ChannelsLiveServerTestCase, WebsocketCommunicator
from site_.asgi import application


class ChatTests(ChannelsLiveServerTestCase):
    serve_static = True

    def enter(self, room):
        url = f"{self.live_server_ws_url}/ws/chat/{room}/"
        return connect(url, origin=self.live_server_url)

    def test_messages_are_seen_by_everyone_in_the_room(self):
        with self.enter("one") as first, self.enter("one") as second:
            first.send(json.dumps({"message": "hello"}))
            for socket in (first, second):
                self.assertEqual(json.loads(socket.recv(timeout=5))["message"], "hello")

    def test_messages_are_not_seen_by_anyone_in_another_room(self):
        with self.enter("one") as first, self.enter("two") as second:
            first.send(json.dumps({"message": "hello"}))
            second.send(json.dumps({"message": "world"}))
            self.assertEqual(json.loads(first.recv(timeout=5))["message"], "hello")
            self.assertEqual(json.loads(second.recv(timeout=5))["message"], "world")

    async def test_a_communicator(self):
        communicator = WebsocketCommunicator(
            application, "/ws/chat/one/", headers=[(b"origin", b"http://localhost")]
        )
        connected, subprotocol = await communicator.connect()
        self.assertTrue(connected)
        await communicator.send_to(text_data=json.dumps({"message": "hello"}))
        self.assertEqual((await communicator.receive_json_from())["message"], "hello")
        await get_channel_layer().group_send("chat_one", {"type": "chat.message", "message": "you"})
        self.assertEqual((await communicator.receive_json_from())["message"], "you")
        await communicator.disconnect()
""",
}
"""
The fourth step: tests against the live server, and with a communicator.
"""

URLS = """
from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
"""

# --- A project of the days of Channels 2.4 -----------------------------------------------------

OLD: Files = {
    "chat/__init__.py": "",
    "site_/urls.py": URLS,
    "chat/consumers.py": """
import json

from asgiref.sync import async_to_sync
from django.contrib.auth.models import User

from fairway.consumer import SyncConsumer
from fairway.db import database_sync_to_async
from fairway.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer


class ChatConsumer(WebsocketConsumer):
    def connect(self):
        self.room_name = self.scope['url_route']['kwargs']['room_name']
        self.room_group_name = 'chat_%s' % self.room_name
        async_to_sync(self.channel_layer.group_add)(self.room_group_name, self.channel_name)
        self.accept()

    def disconnect(self, close_code):
        async_to_sync(self.channel_layer.group_discard)(self.room_group_name, self.channel_name)

    def receive(self, text_data):
        message = json.loads(text_data)['message']
        async_to_sync(self.channel_layer.group_send)(
            self.room_group_name, {'type': 'chat_message', 'message': message}
        )

    def chat_message(self, event):
        self.send(text_data=json.dumps({'message': event['message']}))


class ScopedConsumer(AsyncJsonWebsocketConsumer):
    def __init__(self, scope):
        super().__init__(scope)
        self.path = scope['path']

    async def connect(self):
        await self.accept()
        users = await database_sync_to_async(User.objects.count)()
        told = [self.path, str(self.scope['user']), users]
        await self.send_json(told + [self.scope.get(name) for name in ('token', 'query', 'rest')])


class EchoConsumer(SyncConsumer):
    def websocket_connect(self, event):
        self.send({'type': 'websocket.accept'})

    def websocket_receive(self, event):
        self.send({'type': 'websocket.send', 'text': event['text']})
""",
    "chat/middleware.py": """
from urllib.parse import parse_qs

from fairway.auth import AuthMiddlewareStack
from fairway.middleware import BaseMiddleware


class TokenAuthMiddleware:
    def __init__(self, inner):
        self.inner = inner

    def __call__(self, scope):
        token = parse_qs(scope['query_string'].decode()).get('token', [None])[0]
        return self.inner(dict(scope, token=token))


TokenAuthMiddlewareStack = lambda inner: TokenAuthMiddleware(AuthMiddlewareStack(inner))


class QueryAuthMiddleware:
    def __init__(self, inner):
        self.inner = inner

    def __call__(self, scope):
        return QueryAuthMiddlewareInstance(scope, self)


class QueryAuthMiddlewareInstance:
    def __init__(self, scope, middleware):
        self.middleware = middleware
        self.scope = dict(scope)
        self.inner = self.middleware.inner

    async def __call__(self, receive, send):
        self.scope['query'] = 'asked'
        inner = self.inner(self.scope)
        return await inner(receive, send)


class RestMiddleware(BaseMiddleware):
    def populate_scope(self, scope):
        scope['rest'] = ''

    async def resolve_scope(self, scope):
        scope['rest'] += 'resolved'
""",
    "chat/routing.py": """
from django.urls import path, re_path

from . import consumers
from .middleware import QueryAuthMiddleware, RestMiddleware

websocket_urlpatterns = [
    re_path(r'ws/chat/(?P<room_name>\\w+)/$', consumers.ChatConsumer),
    path('ws/scoped/', QueryAuthMiddleware(RestMiddleware(consumers.ScopedConsumer))),
    path('ws/echo/', consumers.EchoConsumer),
]
""",
    "chat/tests.py": """
from asgiref.sync import async_to_sync
from django.test import TestCase

from chat.consumers import EchoConsumer
from chat.middleware import TokenAuthMiddleware
from fairway.testing import WebsocketCommunicator


class Tests(TestCase):
    def talk_to(self, application):
        async def talk():
            communicator = WebsocketCommunicator(application, '/testws/')
            self.assertEqual(await communicator.connect(), (True, None))
            await communicator.send_to(text_data='hello')
            self.assertEqual(await communicator.receive_from(), 'hello')
            await communicator.disconnect()

        async_to_sync(talk)()

    def test_a_consumer(self):
        self.talk_to(EchoConsumer)

    def test_middleware(self):
        self.talk_to(TokenAuthMiddleware(EchoConsumer))
""",
    "site_/routing.py": """
from fairway.routing import ProtocolTypeRouter, URLRouter
from fairway.security.websocket import AllowedHostsOriginValidator
import chat.routing
from chat.middleware import TokenAuthMiddlewareStack

application = ProtocolTypeRouter({
    # (http->django views is added by default)
    'websocket': AllowedHostsOriginValidator(
        TokenAuthMiddlewareStack(URLRouter(chat.routing.websocket_urlpatterns))
    ),
})
""",
    "site_/asgi.py": """
import os

import django

from fairway.routing import get_default_application

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site_.settings')
django.setup()
application = get_default_application()
""",
}
"""
Classes instead of ``.as_asgi()``, middleware that is called twice, no "http".
"""


# --- Channels' topics, an example of each --------------------------------------------------------

TOPICS: Files = {
    "chat/__init__.py": "",
    "site_/urls.py": URLS,
    "chat/consumers.py": """
import json

from django.contrib.auth.models import User

from fairway.auth import get_user, login, logout
from fairway.consumer import AsyncConsumer, SyncConsumer
from fairway.db import database_sync_to_async
from fairway.exceptions import DenyConnection, StopConsumer
from fairway.generic.http import AsyncHttpConsumer
from fairway.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)


class EchoConsumer(AsyncConsumer):
    async def websocket_connect(self, event):
        await self.send({"type": "websocket.accept"})

    async def websocket_receive(self, event):
        await self.send({"type": "websocket.send", "text": event["text"]})

    async def websocket_disconnect(self, event):
        raise StopConsumer


class GroupsConsumer(WebsocketConsumer):
    groups = ["broadcast"]

    def connect(self):
        if "deny" in self.scope["query_string"].decode():
            raise DenyConnection
        self.accept("second" if "second" in self.scope["subprotocols"] else None)

    def receive(self, text_data=None, bytes_data=None):
        if bytes_data:
            self.send(bytes_data=bytes_data[::-1])
        elif text_data == "close":
            self.close(code=4123)
        else:
            self.send(text_data=text_data.upper())

    def chat_message(self, event):
        self.send(text_data=event["text"])


class AccountConsumer(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content):
        if "login" in content:
            user = await User.objects.aget(username=content["login"])
            await login(self.scope, user)
            await database_sync_to_async(self.scope["session"].save)()
        elif "logout" in content:
            await logout(self.scope)
        user = await get_user(self.scope)
        await self.send_json({"user": str(user), "count": await self.count()})

    @database_sync_to_async
    def count(self):
        return User.objects.count()


class CountingConsumer(JsonWebsocketConsumer):
    def receive_json(self, content):
        seen = self.scope["session"].get("seen", 0) + 1
        self.scope["session"]["seen"] = seen
        self.scope["session"].save()
        self.send_json({"seen": seen, "page": self.scope["url_route"]["kwargs"]})


class HelloConsumer(AsyncHttpConsumer):
    async def handle(self, body):
        headers = [(b"Content-Type", b"text/plain")]
        await self.send_response(200, b"hello " + str(self.scope["user"]).encode(), headers=headers)


class LongPollConsumer(AsyncHttpConsumer):
    async def handle(self, body):
        await self.channel_layer.group_add("broadcast", self.channel_name)
        await self.send_headers(headers=[(b"Content-Type", b"application/json")])
        # Headers leave with the first part of the body; this one says that it goes on.
        await self.send_body(b"", more_body=True)

    async def chat_message(self, event):
        await self.send_body(json.dumps(event).encode())


class PrintConsumer(SyncConsumer):
    def test_print(self, message):
        print("printed:", message["text"], flush=True)
""",
    "chat/middleware.py": """
from fairway.middleware import BaseMiddleware


class HeaderMiddleware(BaseMiddleware):
    async def __call__(self, scope, receive, send):
        scope["language"] = dict(scope["headers"]).get(b"accept-language", b"").decode()
        return await super().__call__(scope, receive, send)
""",
    "site_/asgi.py": """
import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_.settings")
django_asgi_app = get_asgi_application()

from django.urls import path, re_path

from chat import consumers
from chat.middleware import HeaderMiddleware
from fairway.auth import AuthMiddlewareStack
from fairway.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from fairway.security.websocket import OriginValidator
from fairway.sessions import SessionMiddlewareStack

inner = URLRouter([path("counting/", consumers.CountingConsumer.as_asgi())])

application = ProtocolTypeRouter({
    "http": URLRouter([
        path("hello/", AuthMiddlewareStack(consumers.HelloConsumer.as_asgi())),
        path("longpoll/", consumers.LongPollConsumer.as_asgi()),
        re_path(r"", django_asgi_app),
    ]),
    "websocket": OriginValidator(
        AuthMiddlewareStack(
            URLRouter([
                path("echo/", consumers.EchoConsumer.as_asgi()),
                path("groups/", HeaderMiddleware(consumers.GroupsConsumer.as_asgi())),
                path("account/", consumers.AccountConsumer.as_asgi()),
                path("pages/<int:number>/", SessionMiddlewareStack(inner)),
            ])
        ),
        [".example.com", "http://.page.test:81"],
    ),
    "channel": ChannelNameRouter({"print": consumers.PrintConsumer.as_asgi()}),
})
""",
}
"""
Consumers of each kind, routing, sessions, users, databases, origins, workers.
"""


def write(folder: Path, files: Files) -> None:
    """
    Write files into a project, over what is there.
    """
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.lstrip("\n"))


def change(folder: Path, application: str) -> None:
    """
    Change the settings as Channels' documents say, with ``fairway`` for its names.
    """
    settings = folder / "site_" / "settings.py"
    settings.write_text(
        settings.read_text()
        .replace("'fairway',", "'fairway',\n    'chat',")
        .replace("ALLOWED_HOSTS = ['127.0.0.1']", "ALLOWED_HOSTS = ['127.0.0.1', 'localhost']")
        + f"ASGI_APPLICATION = {application!r}\n"
    )
