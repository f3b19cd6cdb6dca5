"""
The smallest consumer: what comes goes back.
"""

import fairway


class EchoConsumer(fairway.AsyncWebsocketConsumer):
    """
    Sends every message back as it came, text or binary.
    """

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data, bytes_data=bytes_data)
