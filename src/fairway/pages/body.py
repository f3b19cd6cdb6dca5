"""
What a client sends with a request, as the file that Django reads it from.

A body is in memory up to ``FILE_UPLOAD_MAX_MEMORY_SIZE`` and in a temporary file above, which is
written in a thread. How large it may be is for the server's and Django's own limits to say.
"""

from __future__ import annotations

import asyncio
from io import BytesIO
from tempfile import TemporaryFile
from typing import IO, cast

from django.conf import settings
from django.core.exceptions import RequestAborted

from fairway.types import Receive

__all__ = ["read_body"]

WRITE_BYTES = 262144
"""
What is gathered before it is written to a file: a thread costs as much as writing a page or two.
"""


async def read_body(receive: Receive) -> IO[bytes]:
    """
    Read a request's body to its end.

    Returns:
        It, from its beginning.

    Raises:
        RequestAborted: The client has left before.
    """
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        # Most requests: no body, or one that came with its head.
        return BytesIO(message.get("body", b""))
    limit = settings.FILE_UPLOAD_MAX_MEMORY_SIZE
    file: IO[bytes] = BytesIO()
    gathered, size = [], 0
    try:
        while True:
            if message["type"] == "http.disconnect":
                raise RequestAborted  # noqa: TRY301 - as Django's own handler does
            data = message.get("body", b"")
            gathered.append(data)
            size += len(data)
            more = message.get("more_body", False)
            if isinstance(file, BytesIO) and file.tell() + size <= limit:
                file.write(b"".join(gathered))
            elif size >= WRITE_BYTES or not more or isinstance(file, BytesIO):
                file = await asyncio.to_thread(_write, file, b"".join(gathered))
            else:
                message = await receive()
                continue
            if not more:
                break
            gathered, size = [], 0
            message = await receive()
        await _rewind(file)
    except BaseException:
        file.close()
        raise
    return file


def _write(file: IO[bytes], data: bytes) -> IO[bytes]:
    """
    Write to a file, which is made of what was in memory if there is none yet.
    """
    if isinstance(file, BytesIO):
        memory, folder = file.getvalue(), settings.FILE_UPLOAD_TEMP_DIR
        file = cast("IO[bytes]", TemporaryFile(dir=folder))  # noqa: SIM115 - see read_body
        file.write(memory)
    file.write(data)
    return file


async def _rewind(file: IO[bytes]) -> None:
    """
    Go back to the beginning.
    """
    if isinstance(file, BytesIO):
        file.seek(0)
    else:
        await asyncio.to_thread(file.seek, 0)
