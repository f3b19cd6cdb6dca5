"""
What a view learns of its request: fields, addresses, bodies of every size and kind.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import InMemoryUploadedFile, TemporaryUploadedFile
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path as route, reverse

from fairway.testing import HttpCommunicator
from tests.integration.pages.conftest import Serve
from tests.protocol import harness
from tests.protocol.harness import until

pytestmark = pytest.mark.one_loop

MODES = ["sync", "async"]


def meta(request: HttpRequest) -> JsonResponse:
    """
    Tell what came.
    """
    texts = {name: value for name, value in request.META.items() if isinstance(value, str)}
    return JsonResponse(
        {
            **texts,
            "method": request.method,
            "path": request.path,
            "info": request.path_info,
            "scheme": request.scheme,
            "scope": request.scope["type"],  # type: ignore[attr-defined] # as ASGI requests have
            "get": request.GET.dict(),
            "cookies": request.COOKIES,
            "reverse": reverse("meta"),
        }
    )


@pytest.mark.parametrize("mode", MODES)
async def test_what_a_view_sees(serve: Serve, mode: str) -> None:
    """Path, query, fields, cookies, addresses and scope are those of Django's own handler."""
    site = await serve(
        [route("x/<str:name>/", lambda r, name: meta(r)), route("", meta, name="meta")], PAGES=mode
    )
    answer = await site.get(
        "/x/%C3%A4/?q=%C3%BC&q2=1", "X-Two: a", "X-Two: b", "X_Two: evil", "Cookie: k=v; l=w"
    )
    seen = json.loads(answer.body)
    assert seen["path"] == "/x/ä/"
    assert seen["get"] == {"q": "ü", "q2": "1"}
    assert seen["HTTP_X_TWO"] == "a,b"
    assert seen["cookies"] == {"k": "v", "l": "w"}
    assert (seen["method"], seen["scheme"], seen["scope"]) == ("GET", "http", "http")
    assert seen["REMOTE_ADDR"] == seen["REMOTE_HOST"] == seen["SERVER_NAME"] == "127.0.0.1"
    assert seen["SERVER_PORT"] == str(site.served.sock.getsockname()[1])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("forced", [None, "/forced"])
async def test_a_mount_point(serve: Serve, mode: str, forced: str | None) -> None:
    """root_path, or FORCE_SCRIPT_NAME before it, is taken off the path and put before links."""
    site = await serve(
        [route("p/", meta, name="meta")], PAGES=mode, FORCE_SCRIPT_NAME=forced, root_path="/app"
    )
    prefix = forced or "/app"
    seen = json.loads((await site.get(f"{prefix}/p/")).body)
    assert seen["SCRIPT_NAME"] == prefix
    assert seen["info"] == "/p/"
    assert seen["reverse"] == f"{prefix}/p/"


async def test_a_client_without_an_address(serve: Serve, tmp_path: Path) -> None:
    """Over a Unix socket REMOTE_ADDR is empty and not missing, and the port that of the scheme."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "s"))
    sock.listen()
    site = await serve([route("", meta, name="meta")], sock=sock)
    peer = await site.served.connect(family=socket.AF_UNIX)
    seen = json.loads((await peer.get("/")).body)
    assert seen["REMOTE_ADDR"] == seen["REMOTE_HOST"] == ""
    assert seen["SERVER_PORT"] == "80"


@pytest.mark.django_db(transaction=True)  # Asgiref's thread may have a connection open.
@pytest.mark.parametrize("mode", MODES)
async def test_a_query_that_cannot_be_read(serve: Serve, mode: str) -> None:
    """Bytes that are no UTF-8 are refused with 400, and the request counts as finished."""
    site = await serve({"": meta}, PAGES=mode)
    communicator = HttpCommunicator(site.application, "GET", "/", headers=[(b"host", b"a")])
    communicator.scope["query_string"] = b"\xff=1"
    assert (await communicator.get_response())["status"] == 400
    await site.finished.count(1)


def measure(request: HttpRequest) -> JsonResponse:
    """
    Tell the size and checksum of a body, read in pieces.
    """
    size = total = 0
    while part := request.read(65536):
        size += len(part)
        total += sum(part[:10])
    return JsonResponse({"size": size, "sum": total, "file": type(request._stream).__name__})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [0, 1, 70_000, 2_621_440, 2_621_441, 5_000_000])
async def test_bodies_of_any_size(serve: Serve, mode: str, size: int) -> None:
    """A body is whole, in memory up to FILE_UPLOAD_MAX_MEMORY_SIZE and on disk above."""
    site = await serve({"": measure}, PAGES=mode)
    seen = json.loads((await site.post("/", b"\1" * size)).body)
    assert seen["size"] == size
    assert (seen["file"] == "BytesIO") == (size <= 2_621_440)


async def test_a_body_in_chunks(serve: Serve) -> None:
    """A body of unknown length is read to its end."""
    site = await serve({"": lambda request: HttpResponse(request.body)})
    peer = await site.peer()
    await peer.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
    for part in (b"3\r\nabc\r\n", b"2\r\nde\r\n", b"0\r\n\r\n"):
        await peer.send(part)
    assert (await peer.response()).body == b"abcde"


def form(**files: bytes) -> tuple[bytes, str]:
    """
    Encode a form with files, and name its type.
    """
    parts = [
        b'--frontier\r\nContent-Disposition: form-data; name="%b"; filename="f"\r\n\r\n%b\r\n'
        % (name.encode(), content)
        for name, content in files.items()
    ]
    parts.append(b'--frontier\r\nContent-Disposition: form-data; name="text"\r\n\r\nhi\r\n')
    return b"".join(
        parts
    ) + b"--frontier--\r\n", "Content-Type: multipart/form-data; boundary=frontier"


@pytest.mark.parametrize("mode", MODES)
async def test_uploads(serve: Serve, mode: str) -> None:
    """A small file arrives in memory and a large one on disk, with or without a length before."""
    seen: list[Any] = []

    def view(request: HttpRequest) -> HttpResponse:
        file: Any = request.FILES["file"]
        seen.append((type(file), len(file.read()), request.POST["text"]))
        return HttpResponse("ok")

    site = await serve({"": view}, PAGES=mode)
    for size in (10, 3_000_000):
        body, kind = form(file=b"s" * size)
        assert (await site.post("/", body, kind)).status == 200
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        head = f"POST / HTTP/1.1\r\nHost: a\r\n{kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        peer = await site.peer()
        await peer.send(head.encode() + chunks)
        assert (await peer.response()).status == 200
    small, large = (InMemoryUploadedFile, 10, "hi"), (TemporaryUploadedFile, 3_000_000, "hi")
    assert seen == [small, small, large, large]


@pytest.mark.parametrize("mode", MODES)
async def test_a_body_above_djangos_limit(serve: Serve, mode: str) -> None:
    """request.body above DATA_UPLOAD_MAX_MEMORY_SIZE is refused as everywhere under Django."""
    site = await serve(
        {"": lambda r: HttpResponse(r.body)}, PAGES=mode, DATA_UPLOAD_MAX_MEMORY_SIZE=10
    )
    assert (await site.post("/", b"x" * 11)).status == 400
    assert (await site.post("/", b"x" * 10)).status == 200


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [10, 4_000_000])
async def test_a_client_that_leaves_while_it_sends(
    serve: Serve, mode: str, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    """No view is called for half a body, nothing is logged, and no file stays open."""
    site = await serve({"": measure}, PAGES=mode)
    assert (await site.get("/")).status == 200
    await until(lambda: not site.served.worker.connections)
    open_before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - just a count
    peer = await site.peer()
    await peer.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (size + 1))
    await peer.send(b"x" * size)
    await until(lambda: site.served.worker.connections)
    peer.reset()
    await until(lambda: not site.served.worker.connections and not site.served.worker.late)
    await site.finished.count(1)
    assert harness.warnings(caplog) == []
    assert len(os.listdir("/proc/self/fd")) <= open_before  # noqa: PTH208


@pytest.mark.parametrize("mode", MODES)
async def test_a_body_that_nobody_reads(serve: Serve, mode: str) -> None:
    """It is closed with its request, on disk or not."""
    bodies: list[Any] = []

    def view(request: HttpRequest) -> HttpResponse:
        bodies.append(request._stream)
        return HttpResponse("ok")

    site = await serve({"": view}, PAGES=mode)
    for size in (10, 4_000_000):
        assert (await site.post("/", b"x" * size)).status == 200
    await site.finished.count(2)
    assert all(each.closed for each in bodies)


async def test_a_body_that_waits_for_an_invitation(serve: Serve) -> None:
    """A client that expects 100 Continue is told to go on."""
    site = await serve({"": lambda request: HttpResponse(request.body)})
    peer = await site.peer()
    await peer.send(
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n"
    )
    assert (await peer.response()).status == 100
    await peer.send(b"abc")
    assert (await peer.response()).body == b"abc"
