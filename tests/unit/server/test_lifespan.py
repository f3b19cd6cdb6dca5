"""
The lifespan of an application: supported, not supported, refused, failing.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from fairway.exceptions import ConfigurationError
from fairway.server.lifespan import Lifespan
from fairway.types import ASGIApplication, Receive, Scope, Send


def scripted(*messages: str | None, seen: list[Any] | None = None) -> ASGIApplication:
    """
    An application that receives, then sends one of the messages, and so on; None sends nothing.
    """

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["pool"] = "made"
        for message in messages:
            event = await receive()
            if seen is not None:
                seen.append((scope["type"], event["type"]))
            if message is not None:
                await send({"type": message, "message": "no database\nfound"})

    return application


async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
    """
    An application that knows nothing of lifespan.
    """
    raise ValueError(f"unknown scope {scope['type']}")


async def returning(scope: Scope, receive: Receive, send: Send) -> None:
    """
    An application that ignores it.
    """


class TestSupported:
    """
    An application that answers.
    """

    async def test_whole_life(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        It is started and stopped once, and what it left is the state of requests.
        """
        seen: list[Any] = []
        application = scripted("lifespan.startup.complete", "lifespan.shutdown.complete", seen=seen)
        lifespan = Lifespan(application, "auto")
        await lifespan.startup()
        assert lifespan.state == {"pool": "made"}
        await lifespan.shutdown(5)
        assert seen == [("lifespan", "lifespan.startup"), ("lifespan", "lifespan.shutdown")]
        assert not caplog.records

    async def test_failed_start(self) -> None:
        """
        A start that failed says why, in one line.
        """
        lifespan = Lifespan(scripted("lifespan.startup.failed"), "auto")
        with pytest.raises(ConfigurationError) as caught:
            await lifespan.startup()
        assert str(caught.value) == r"the application's start failed: no database\nfound"

    async def test_failed_end(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An end that failed is logged.
        """
        lifespan = Lifespan(
            scripted("lifespan.startup.complete", "lifespan.shutdown.failed"), "auto"
        )
        await lifespan.startup()
        await lifespan.shutdown(5)
        (record,) = caplog.records
        assert record.getMessage() == r"lifespan: the application's end failed: no database\nfound"

    async def test_slow_end(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An end that takes too long is cut off and logged.
        """
        cancelled = asyncio.Event()

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                cancelled.set()

        lifespan = Lifespan(application, "auto")
        await lifespan.startup()
        await lifespan.shutdown(0.02)
        assert cancelled.is_set()
        (record,) = caplog.records
        assert record.getMessage() == "lifespan: the application did not end within 0.02 s"

    async def test_error_in_between(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An exception later is recorded with its traceback, and the end goes on without it.
        """

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            raise ValueError

        lifespan = Lifespan(application, "auto")
        await lifespan.startup()
        await lifespan.shutdown(5)
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert record.exc_info

    async def test_wrong_message(self) -> None:
        """
        A message out of order is the application's error: it has not started.
        """
        lifespan = Lifespan(scripted("lifespan.shutdown.complete"), "on")
        with pytest.raises(ConfigurationError, match=r"start failed: LocalProtocolError: expected"):
            await lifespan.startup()


class TestNotSupported:
    """
    An application that does not answer.
    """

    @pytest.mark.parametrize("application", [refusing, returning, scripted(None)])
    async def test_optional(
        self, application: ASGIApplication, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        That is not an error, and nothing is said; requests get no state.
        """
        lifespan = Lifespan(application, "auto")
        await lifespan.startup()
        assert lifespan.state is None
        await lifespan.shutdown(5)
        assert not caplog.records

    @pytest.mark.parametrize(
        ("application", "said"),
        [
            (refusing, "the application's start failed: ValueError: unknown scope lifespan"),
            (returning, "--lifespan on: the application does not support lifespan"),
        ],
    )
    async def test_required(self, application: ASGIApplication, said: str) -> None:
        """
        Unless lifespan is required.
        """
        with pytest.raises(ConfigurationError) as caught:
            await Lifespan(application, "on").startup()
        assert str(caught.value) == said
