"""
What a view returns, on the wire: heads, bodies of every kind, and what is closed afterwards.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseNotModified,
    StreamingHttpResponse,
)

from tests.integration.pages.conftest import Serve
from tests.protocol import harness
from tests.protocol.harness import until

pytestmark = pytest.mark.one_loop

MODES = ["sync", "async"]
BIG = 3_000_000


def headed(request: HttpRequest) -> HttpResponse:
    """
    A response with all kinds of fields.
    """
    response = HttpResponse("café")
    response["X-Latin"] = "é"
    response["X-Mime"] = "ж"
    response.set_cookie("one", "1")
    response.set_cookie("two", "2", httponly=True, samesite="Lax")
    return response


@pytest.mark.parametrize("mode", MODES)
async def test_heads(serve: Serve, mode: str) -> None:
    """Fields are encoded as Django has it, and each cookie has a field of its own."""
    site = await serve({"": headed}, PAGES=mode)
    peer = await site.peer()
    await peer.send(harness.request("/"))
    head = await peer.read_until(b"\r\n\r\n")
    assert "X-Latin: é".encode("latin1") in head
    assert b"X-Mime: =?utf-8?b?0LY=?=" in head
    assert head.count(b"Set-Cookie: ") == 2
    assert b"Set-Cookie: two=2; HttpOnly; Path=/; SameSite=Lax" in head
    assert b"content-length: 5" in head.lower()
    assert await peer.read(5) == "café".encode()


@pytest.mark.parametrize("mode", MODES)
async def test_responses_without_a_body(serve: Serve, mode: str) -> None:
    """HEAD, 204 and 304 carry none, whatever a view returns, and the connection goes on."""
    produced: list[int] = []

    def endless(request: HttpRequest) -> StreamingHttpResponse:
        def parts() -> Iterator[str]:
            while True:
                produced.append(1)
                yield "x"

        return StreamingHttpResponse(parts())

    views = {
        "": headed,
        "204/": lambda r: HttpResponse("no", status=204),
        "304/": lambda r: HttpResponseNotModified(),
        "endless/": endless,
    }
    site = await serve(views, PAGES=mode)
    peer = await site.peer()
    head = await peer.get("/", method="HEAD")
    assert (head.status, head.headers["content-length"]) == (200, "5")
    assert (await peer.get("/204/")).status == 204
    assert (await peer.get("/304/")).status == 304
    endless_head = await peer.get("/endless/", method="HEAD")
    assert (endless_head.status, "content-length" in endless_head.headers) == (200, False)
    assert (await peer.get("/")).body == "café".encode()
    assert produced == []
    await site.finished.count(5)


@pytest.mark.parametrize("mode", MODES)
async def test_a_large_body(serve: Serve, mode: str) -> None:
    """A large body arrives whole, with its length."""
    site = await serve({"": lambda r: HttpResponse(b"x" * BIG)}, PAGES=mode)
    answer = await site.get("/")
    assert answer.headers.get("Content-Length", answer.headers.get("content-length")) == str(BIG)
    assert answer.body == b"x" * BIG


class Kinds:
    """
    Views that stream in each way there is, and note that they were closed.
    """

    def __init__(self, folder: Path) -> None:
        self.closed: list[str] = []
        self.go_on = threading.Event()
        self.file = folder / "file.bin"
        self.file.write_bytes(bytes(range(256)) * 4096)

    def iterator(self, request: HttpRequest) -> StreamingHttpResponse:
        """
        Yields a part, and the rest when told.
        """

        def parts() -> Iterator[bytes]:
            try:
                yield b"first"
                self.go_on.wait(5)
                for _ in range(1000):
                    yield b"more"
            finally:
                self.closed.append("iterator")

        return StreamingHttpResponse(parts())

    def asynchronous(self, request: HttpRequest) -> StreamingHttpResponse:
        """
        The same on the loop.
        """

        async def parts() -> AsyncIterator[bytes]:
            try:
                yield b"first"
                while not self.go_on.is_set():  # noqa: ASYNC110 - set for threads too
                    await asyncio.sleep(0.001)
                for _ in range(1000):
                    yield b"more"
            finally:
                self.closed.append("asynchronous")

        return StreamingHttpResponse(parts())

    def views(self) -> dict[str, Any]:
        """
        All of them by path.
        """
        return {
            "iterator/": self.iterator,
            "asynchronous/": self.asynchronous,
            "file/": lambda r: FileResponse(self.file.open("rb"), as_attachment=True),
            "small/": lambda r: FileResponse(io.BytesIO(b"small"), filename="a.txt"),
            "list/": lambda r: StreamingHttpResponse(["a", b"b", "", 3]),
            "nothing/": lambda r: StreamingHttpResponse([]),
        }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["iterator", "asynchronous"])
async def test_streams(serve: Serve, tmp_path: Path, mode: str, kind: str) -> None:
    """Parts leave as they are made, the iterator is closed, and the request finishes once."""
    kinds = Kinds(tmp_path)
    site = await serve(kinds.views(), PAGES=mode)
    peer = await site.peer()
    await peer.send(harness.request(f"/{kind}/"))
    assert b"chunked" in await peer.read_until(b"\r\n\r\n")
    assert await peer.read(10) == b"5\r\nfirst\r\n"
    assert kinds.closed == []
    kinds.go_on.set()
    body = b""
    while size := int(await peer.read_until(b"\r\n"), 16):
        body += await peer.read(size)
        await peer.read(2)
    assert body == b"more" * 1000
    await site.finished.count(1)
    assert kinds.closed == [kind]
    assert "page" in site.finished.threads[0]


@pytest.mark.parametrize("mode", MODES)
async def test_files_and_lists(serve: Serve, tmp_path: Path, mode: str) -> None:
    """Files come with their length and whole, whatever their size; parts may be of any type."""
    kinds = Kinds(tmp_path)
    site = await serve(kinds.views(), PAGES=mode)
    peer = await site.peer()
    file = await peer.get("/file/")
    assert file.body == kinds.file.read_bytes()
    assert file.headers["content-length"] == str(len(file.body))
    assert 'filename="file.bin"' in file.headers["Content-Disposition"]
    small = await peer.get("/small/")
    assert (small.body, small.headers["content-length"]) == (b"small", "5")
    assert (await peer.get("/list/")).body == b"ab3"
    assert (await peer.get("/nothing/")).body == b""
    await site.finished.count(4)


@pytest.mark.parametrize("mode", MODES)
async def test_a_stream_that_fails(
    serve: Serve, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Before its first part it is a 500; later the connection ends early. Both are closed once."""

    def failing(at: int) -> Any:
        def parts() -> Iterator[bytes]:
            for number in range(10):
                if number == at:
                    raise ValueError("out of parts")
                yield b"\0" * 70_000

        return lambda request: StreamingHttpResponse(parts())

    site = await serve({"0/": failing(0), "1/": failing(1), "3/": failing(3)}, PAGES=mode)
    assert (await site.get("/0/")).status == 500
    for path, size in (("/1/", 70_000), ("/3/", 210_000)):
        peer = await site.peer()
        await peer.send(harness.request(path))
        got = await peer.rest()
        assert got.count(b"\0") == size
        assert not got.endswith(b"0\r\n\r\n")
    await site.finished.count(3)
    assert caplog.text.count("the application raised ValueError") == 3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["iterator", "asynchronous"])
async def test_a_reader_that_leaves(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: str, kind: str
) -> None:
    """The iterator is closed and the request finishes, once and without a word."""
    kinds = Kinds(tmp_path)
    site = await serve(kinds.views(), PAGES=mode)
    peer = await site.peer()
    await peer.send(harness.request(f"/{kind}/"))
    await peer.read_until(b"first")
    peer.close()
    if kind == "iterator":
        # It waits in a thread, where nobody can end it: its next part tells.
        kinds.go_on.set()
    await site.finished.count(1)
    await until(lambda: kinds.closed == [kind])
    assert harness.warnings(caplog) == []


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_reader_that_leaves_amid_a_part(serve: Serve, asynchronous: bool) -> None:
    """An asynchronous iterator that waits for its reader is closed before its request finishes."""
    finished: list[int] = []
    began = asyncio.Event()

    def view(request: HttpRequest) -> StreamingHttpResponse:
        async def parts() -> AsyncIterator[bytes]:
            try:
                while True:
                    began.set()
                    yield b"x" * BIG
            finally:
                await asyncio.sleep(0)
                finished.append(len(site.finished.finished))

        return StreamingHttpResponse(parts())

    async def aview(request: HttpRequest) -> StreamingHttpResponse:
        return view(request)

    site = await serve({"": aview if asynchronous else view})
    peer = await site.peer()
    await peer.send(harness.request("/"))
    await began.wait()
    peer.close()
    await site.finished.count(1)
    assert finished == [0]


async def test_a_stream_leaves_its_thread_to_others(serve: Serve) -> None:
    """With one thread, two streams without an end and pages have their turns."""

    def endless(request: HttpRequest) -> StreamingHttpResponse:
        def parts() -> Iterator[bytes]:
            while True:
                yield b"x" * 1000

        return StreamingHttpResponse(parts())

    site = await serve({"endless/": endless, "": headed}, page_threads=1)
    readers = [await site.peer() for _ in range(2)]
    for reader in readers:
        await reader.send(harness.request("/endless/"))
        await reader.read(100_000)
    assert (await site.get("/")).status == 200
    for reader in readers:
        await reader.read(1_000_000)
        reader.close()
    await site.finished.count(3)


@pytest.mark.parametrize("mode", MODES)
async def test_whatever_belongs_to_a_response_is_closed_once(serve: Serve, mode: str) -> None:
    """Closers run after the view, in a thread of pages, and one that fails harms nobody."""
    closed: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        class Closing(io.BytesIO):
            def close(self) -> None:
                closed.append(threading.current_thread().name)
                super().close()

        response: Any = HttpResponse(b"x")
        response._resource_closers.append(Closing(b"a").close)
        response._resource_closers.append(lambda: 1 / 0)
        answer: HttpResponse = response
        return answer

    site = await serve({"": view}, PAGES=mode)
    assert (await site.get("/")).body == b"x"
    await site.finished.count(1)
    assert len([name for name in closed if "page" in name]) == 1


@pytest.mark.parametrize("mode", MODES)
async def test_work_after_the_response_delays_nobody(serve: Serve, mode: str) -> None:
    """The client has its answer while request_finished is still being handled."""
    from django.core.signals import request_finished

    go_on = threading.Event()

    def slow(**kwargs: Any) -> None:
        go_on.wait(5)

    site = await serve({"": headed}, PAGES=mode)
    request_finished.connect(slow)
    try:
        peer = await site.peer()
        assert (await peer.get("/")).status == 200
    finally:
        go_on.set()
        request_finished.disconnect(slow)
    await site.finished.count(1)


@pytest.mark.parametrize("mode", MODES)
async def test_a_receiver_that_fails_after_the_response(
    serve: Serve, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, and the connection serves the next request."""
    from django.core.signals import request_finished

    def failing(**kwargs: Any) -> None:
        raise ValueError("too late")

    site = await serve({"": headed}, PAGES=mode)
    request_finished.connect(failing)
    try:
        peer = await site.peer()
        assert (await peer.get("/")).status == 200
        await site.finished.count(1)
    finally:
        request_finished.disconnect(failing)
    assert (await peer.get("/")).status == 200
    await until(lambda: "fairway.R603" in caplog.text)
    assert caplog.text.count("fairway.R603") == 1
