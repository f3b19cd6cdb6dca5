"""
Names of hosts, on a thread of their own.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from fairway.layers import owner, resolving
from fairway.layers.resolving import THREAD_NAME, Found, Resolver

FOUND: Found = [("found",)]


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    """
    What a look-up may wait for, set at the end of the test.
    """
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
async def asyncios_loop() -> asyncio.AbstractEventLoop:
    """
    The running loop, with names resolved here, if it is asyncio's.
    """
    loop = asyncio.get_running_loop()
    resolving.take_over(loop)
    return loop


def test_names_are_resolved_on_one_thread() -> None:
    """
    One thread resolves all, one after another, and does not keep the process from ending.
    """
    resolver = Resolver()

    def look_up() -> Found:
        thread = threading.current_thread()
        return [(thread.name, thread.daemon, thread.ident)]

    first, second = (resolver.submit(look_up).result(5) for _ in range(2))
    assert first == second
    assert first[0][:2] == (THREAD_NAME, True)


def test_a_name_that_fails_fails_its_caller_alone() -> None:
    """
    The error is the caller's, and the next name is resolved.
    """
    resolver = Resolver()

    def fail() -> Found:
        raise socket.gaierror(socket.EAI_NONAME, "no such host")

    with pytest.raises(socket.gaierror, match="no such host"):
        resolver.submit(fail).result(5)
    assert resolver.submit(lambda: FOUND).result(5) is FOUND


def test_names_nobody_waits_for_are_left_out(hanging: threading.Event) -> None:
    """
    What was cancelled behind a name that takes long is never looked up.
    """
    resolver = Resolver()
    begun = threading.Event()

    def hang() -> Found:
        begun.set()
        hanging.wait(10)
        return FOUND

    first = resolver.submit(hang)
    assert begun.wait(5)
    looked_up: list[str] = []

    def note() -> Found:
        looked_up.append("second")
        return FOUND

    second = resolver.submit(note)
    third = resolver.submit(lambda: FOUND)
    assert second.cancel()
    hanging.set()
    assert first.result(5) is FOUND
    assert third.result(5) is FOUND
    assert looked_up == []


def test_waiting_names_are_bounded(
    hanging: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Too many names behind one that takes long fail as names do.
    """
    monkeypatch.setattr(resolving, "WAITING_MAX", 1)
    resolver = Resolver()
    begun = threading.Event()

    def hang() -> Found:
        begun.set()
        hanging.wait(10)
        return FOUND

    resolver.submit(hang)
    assert begun.wait(5)
    resolver.submit(lambda: FOUND)
    with pytest.raises(socket.gaierror, match="too many names"):
        resolver.submit(lambda: FOUND)


def test_without_threads_the_caller_resolves(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where an ending interpreter starts no thread any more, the name is resolved all the same.
    """

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    resolver = Resolver()
    for _ in range(2):
        found = resolver.submit(lambda: [(threading.get_ident(),)]).result(0)
        assert found == [(threading.get_ident(),)]


def test_a_child_process_resolves_on_a_thread_of_its_own(
    hanging: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What its parent waits for is not the child's business.
    """
    parent = Resolver()
    monkeypatch.setattr(resolving, "_resolver", parent)
    parent.submit(lambda: [(hanging.wait(10),)])
    resolving.forked()
    assert resolving._resolver is not parent
    assert resolving._resolver.submit(lambda: FOUND).result(5) is FOUND


async def test_a_loop_resolves_without_its_executor(
    asyncios_loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A connection by name is made though the loop's executor refuses work, on either kind of loop.
    """

    def refuse(*args: object) -> None:
        raise RuntimeError("cannot schedule new futures after shutdown")

    if isinstance(asyncios_loop, asyncio.BaseEventLoop):
        monkeypatch.setattr(asyncios_loop, "run_in_executor", refuse)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("localhost", port)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_an_unknown_name_is_an_error_of_the_caller(
    asyncios_loop: asyncio.AbstractEventLoop,
) -> None:
    """
    As with the loop's own resolver, arguments included.
    """
    with pytest.raises(socket.gaierror):
        await asyncios_loop.getaddrinfo("not-a-number", 80, flags=socket.AI_NUMERICHOST)
    found = await asyncios_loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    assert [address for *_, address in found] == [("127.0.0.1", 80)]


async def test_a_servers_loop_resolves_so_too() -> None:
    """
    Hubs live on it while the server runs.
    """
    loop = asyncio.get_running_loop()
    await owner.bind(loop)
    try:
        is_asyncios = isinstance(loop, asyncio.BaseEventLoop)
        assert ("getaddrinfo" in vars(loop)) is is_asyncios
    finally:
        await owner.release(loop)
