"""
What is said below the traceback of a project's own exception.
"""

from __future__ import annotations

import sys
import uuid
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import SynchronousOnlyOperation
from django.shortcuts import get_object_or_404

from fairway.consumers.hints import describe, explain
from fairway.consumers.websocket import AsyncJsonWebsocketConsumer
from fairway.faults import Fault


def count_rows() -> None:
    """
    As a handler that forgot itself.
    """
    User.objects.filter(is_staff=True).count()


def list_rows() -> list[User]:
    """
    As above.
    """
    return list(User.objects.all())


def loop_over_rows() -> None:
    """
    As above.
    """
    for user in User.objects.all():
        user.get_username()


def save_row() -> None:
    """
    As above.
    """
    user = User(pk=1)
    user.save()


def get_or_404() -> None:
    """
    As above.
    """
    get_object_or_404(User, pk=1)


def spread_over_lines() -> None:
    """
    As above.
    """
    User.objects.get(
        pk=1,
    )


async def failure(call: Any, *arguments: Any) -> BaseException:
    """
    What a function raises on a loop's thread.
    """
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever it is
        call(*arguments)
    return caught.value


def hint(error: BaseException) -> str:
    """
    The one hint that an exception gets.
    """
    explain(error)
    (note,) = error.__notes__
    assert note.startswith("Hint: ")
    return note.removeprefix("Hint: ")


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("call", "code"),
    [
        (count_rows, "await User.objects.filter(is_staff=True).acount() in count_rows()"),
        (list_rows, "[each async for each in User.objects.all()] in list_rows()"),
        (loop_over_rows, "async for user in User.objects.all() in loop_over_rows()"),
        (save_row, "await user.asave() in save_row()"),
        (get_or_404, "await aget_object_or_404(User, pk=1) in get_or_404()"),
        (spread_over_lines, "await ...aget(...) in spread_over_lines()"),
    ],
)
async def test_asynchronous_twins(call: Any, code: str) -> None:
    """
    The ORM in a coroutine: what to write in its place, and where.
    """
    error = await failure(call)
    assert isinstance(error, SynchronousOnlyOperation)
    text = hint(error)
    assert text.startswith(f"write {code}, {__file__}, line ")
    assert "database_sync_to_async" in text
    assert vars(error)["fault"] is Fault.SYNC_ONLY


def test_nobody_knows_the_twin() -> None:
    """
    What has no asynchronous twin goes through a thread.
    """
    assert hint(SynchronousOnlyOperation()).startswith("put what waits into a function")


class Consumer(AsyncJsonWebsocketConsumer):
    """
    Takes what clients send for granted, and forgets what it is.
    """

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """
        Look for what may not be there.
        """
        content["message"]

    def ordinary(self, message: Any) -> None:
        """
        Handle a message, and be no coroutine.
        """


@pytest.mark.one_loop
async def test_wrong_key() -> None:
    """
    A key that a client left out: how to tell the client.
    """
    with pytest.raises(KeyError) as caught:
        await Consumer().receive_json({})
    assert "raise fairway.exceptions.ClientFault(" in hint(caught.value)


@pytest.mark.one_loop
async def test_key_of_ones_own() -> None:
    """
    A key that is missing elsewhere is nobody's business but the project's.
    """
    error = await failure({"text": 1}.__getitem__, "message")
    explain(error)
    assert not hasattr(error, "__notes__")


@pytest.mark.one_loop
async def test_ordinary_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A method that should be a coroutine is named with its class.
    """
    consumer: Any = Consumer()
    monkeypatch.setattr(Consumer, "receive_json", lambda self, content: None)
    with pytest.raises(TypeError) as caught:
        await consumer.receive(text_data="1")
    # The test's own frame is none of those that a server's log has.
    caught.value.__traceback__ = caught.value.__traceback__.tb_next  # type: ignore[union-attr]
    assert hint(caught.value) == "write async def receive_json in Consumer, which is asynchronous"


def test_described_in_one_line() -> None:
    """
    An exception of a module's import is put where the project can change it.
    """
    module = ModuleType("never_imported_shop")
    with pytest.raises(ValueError, match="a\nb") as caught:
        exec(compile("\nraise ValueError('a\\nb')", "shop.py", "exec"), vars(module))
    assert describe(caught.value) == "shop.py, line 2: ValueError: a b"
    assert describe(ValueError("x")) == "ValueError: x"
    assert sys.modules.get("never_imported_shop") is None


def test_pythons_own_library_is_no_place() -> None:
    """
    What fails below a project's line, or below none, is not looked for where nobody changes it.
    """
    with pytest.raises(ValueError, match="badly formed") as caught:
        uuid.UUID("no")
    assert describe(caught.value).startswith(f"{__file__}, line ")
    caught.value.__traceback__ = caught.value.__traceback__.tb_next  # type: ignore[union-attr]
    assert describe(caught.value).startswith("ValueError: badly formed")
