"""
The members of ``asgi_app`` on picows, a WebSocket library in Cython without ASGI. Needs no Fairway.
"""

from __future__ import annotations

import argparse
import asyncio

import uvloop
from picows import (  # type: ignore[import-not-found] # of peers
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,
)


class Member(WSListener):  # type: ignore[misc] # as above
    """
    A socket whose text is echoed, or published where it says ``publish <bytes> <burst>``.
    """

    def __init__(self, members: set[WSTransport]) -> None:
        self.members = members

    def on_ws_connected(self, transport: WSTransport) -> None:
        """
        Join.
        """
        self.members.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """
        Leave.
        """
        self.members.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """
        Handle one frame; pings are answered by the library.
        """
        payload = frame.get_payload_as_bytes()
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif payload.startswith(b"publish "):
            _, size, burst = payload.split()
            message = b"x" * int(size)
            for _ in range(int(burst)):
                for member in self.members:
                    member.send(WSMsgType.TEXT, message)
        else:
            transport.send(frame.msg_type, payload)


async def serve(port: int) -> None:
    """
    Serve until the process is told to end.
    """
    members: set[WSTransport] = set()

    def listener(request: WSUpgradeRequest) -> Member:
        return Member(members)

    server = await ws_create_server(listener, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="picows.")
    parser.add_argument("--port", type=int, required=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parser.parse_args().port))
