"""
Consumers that use the database, in a project's own tests: one transaction for all of them.
"""

from __future__ import annotations

import threading
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.test import TestCase, TransactionTestCase

from fairway.consumers import AsyncWebsocketConsumer, WebsocketConsumer
from fairway.db import database_sync_to_async
from fairway.testing import WebsocketCommunicator


async def count_users() -> int:
    """
    Count the users that this context's connection sees.
    """
    return len([user async for user in User.objects.all()])


class Async(AsyncWebsocketConsumer):
    """
    Counts and adds users by the asynchronous ORM.
    """

    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        """
        Add a user and tell how many there are.
        """
        await User.objects.acreate(username=text_data)
        await self.send(str(await count_users()))

    async def disconnect(self, code: int) -> None:
        """
        Use the database to the last.
        """
        await count_users()


class InThreads(AsyncWebsocketConsumer):
    """
    The same by functions that are sent to a thread.
    """

    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        """
        Add a user and tell how many there are.
        """
        await self.send(await self.add(text_data))

    @database_sync_to_async
    def add(self, name: str) -> str:
        """
        Use the database, where it may be waited for.
        """
        User.objects.create(username=name)
        return str(User.objects.count())


class Sync(WebsocketConsumer):
    """
    The same by ordinary methods.
    """

    def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        """
        Add a user and tell how many there are.
        """
        User.objects.create(username=text_data)
        self.send(str(User.objects.count()))

    def disconnect(self, code: int) -> None:
        """
        Use the database to the last.
        """
        User.objects.count()


async def talk_to_each() -> None:
    """
    Let each class add a user to those there are, and see what the test sees.
    """
    await User.objects.acreate(username="made by the test")
    classes: list[Any] = [Async, InThreads, Sync]
    for number, consumer in enumerate(classes, start=2):
        communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
        assert await communicator.connect() == (True, None)
        await communicator.send_to(text_data=consumer.__name__)
        assert await communicator.receive_from() == str(number)
        await communicator.disconnect()
        assert await count_users() == number


class InOneTransaction(TestCase):
    """
    Django's TestCase: everything is rolled back, so everything must use one connection.
    """

    async def test_sees_what_the_test_sees(self) -> None:
        """The consumers' rows and the test's are the same."""
        await talk_to_each()

    async def test_again(self) -> None:
        """Nothing is left of the test before."""
        assert await count_users() == 0
        await talk_to_each()


class InManyTransactions(TransactionTestCase):
    """
    The same without a transaction around it.
    """

    async def test_sees_what_the_test_sees(self) -> None:
        """The consumers' rows and the test's are the same."""
        await talk_to_each()


class WhereAmI(WebsocketConsumer):
    """
    Tells in which thread its handlers run.
    """

    def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        """
        Tell the thread, and use the database there.
        """
        User.objects.create(username=text_data)
        self.send(str(threading.get_ident()))


class TestTheTestsThread(TestCase):
    """Without a server nothing is mapped: all work stays in the test's thread and transaction."""

    def test_sync_handlers_run_in_the_tests_thread(self) -> None:
        """A test that enters async code by async_to_sync has every handler in its own thread."""

        async def talk() -> str:
            communicator = WebsocketCommunicator(WhereAmI.as_asgi(), "/")
            await communicator.connect()
            await communicator.send_to(text_data="anna")
            answer = str(await communicator.receive_from())
            await communicator.disconnect()
            return answer

        assert async_to_sync(talk)() == str(threading.get_ident())
        assert User.objects.filter(username="anna").exists()

    async def test_async_tests_share_one_thread(self) -> None:
        """An asynchronous test's handlers and its own queries meet in one thread."""
        own = await sync_to_async(threading.get_ident)()
        communicator = WebsocketCommunicator(WhereAmI.as_asgi(), "/")
        await communicator.connect()
        await communicator.send_to(text_data="berta")
        assert await communicator.receive_from() == str(own)
        await communicator.disconnect()
        assert await User.objects.filter(username="berta").aexists()
