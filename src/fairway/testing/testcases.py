"""
Test cases with a live server, under the name that Channels gave theirs.

What the server is and shares with the test is known in ``live``; here is what ``unittest`` and
the attributes of a class make of it.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.test import TransactionTestCase, modify_settings
from django.utils.functional import classproperty

from fairway.testing.live import LiveServer

__all__ = ["ChannelsLiveServerTestCase"]


class ChannelsLiveServerTestCase(TransactionTestCase):
    """
    Runs the real server beside the tests of a class, with pages, WebSockets and static files.

    The database may be in memory.

    Attributes:
        host: Where it listens.
        port: A fixed port; 0 for a free one, as is best.
        application: What is served: as for ``LiveServer``, None for the project's.
        server_options: Options of the server by name, in the place of the settings'.
        serve_static: Whether static and media files are served.
        static_wrapper: What serves them, given the application.
        ProtocolServerProcess: Left from Channels, which ran the server in a process; ignored.
    """

    host: str = "localhost"
    port: int = 0
    application: ClassVar[Any] = None
    server_options: ClassVar[dict[str, Any]] = {}
    serve_static: bool = True
    static_wrapper: ClassVar[Any] = ASGIStaticFilesHandler
    ProtocolServerProcess: ClassVar[Any] = None

    live_server: ClassVar[LiveServer]

    @classproperty
    def live_server_url(cls) -> str:  # noqa: N805 - a property of the class
        """
        Where pages are, without a slash at the end.
        """
        return cls.live_server.url

    @classproperty
    def live_server_ws_url(cls) -> str:  # noqa: N805 - as above
        """
        Where WebSockets are, without a slash at the end.
        """
        return cls.live_server.ws_url

    @classproperty
    def allowed_host(cls) -> str:  # noqa: N805 - as above
        """
        Name the host that clients ask for: another than ``host`` for a browser elsewhere.
        """
        return cls.host

    @classmethod
    def setUpClass(cls) -> None:
        """
        Start the server.
        """
        if cls.ProtocolServerProcess is not None:
            warnings.warn(
                f"{cls.__name__}.ProtocolServerProcess is ignored: Fairway's server runs in a "
                "thread of the test's process; use server_options for its options",
                DeprecationWarning,
                stacklevel=2,
            )
        super().setUpClass()
        cls.enterClassContext(modify_settings(ALLOWED_HOSTS={"append": cls.allowed_host}))
        cls.live_server = cls.enterClassContext(cls._make_server())

    @classmethod
    def _make_server(cls) -> LiveServer:
        """
        Make the server that the attributes describe.
        """
        wrapper = cls.static_wrapper
        static = True if wrapper is ASGIStaticFilesHandler else wrapper or False
        return LiveServer(
            cls.application,
            host=cls.host,
            port=cls.port,
            static=cls.serve_static and static,
            **cls.server_options,
        )
