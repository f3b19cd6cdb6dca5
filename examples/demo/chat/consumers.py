"""
A chat room: messages are stored, then sent to everybody in the room.
"""

from typing import Any

import fairway
from chat.models import Message

HISTORY = 50


class RoomConsumer(fairway.AsyncJsonWebsocketConsumer):
    """
    One user's socket in one room.

    Who speaks is known from the session alone; nothing a page sends can change that.
    """

    login_required = True

    async def connect(self) -> None:
        self.slug = self.url_kwargs["slug"]
        self.room = f"room.{self.slug}"
        await self.group_add(self.room)
        await self.accept()
        recent = Message.objects.filter(room=self.slug).select_related("author").order_by("-pk")
        history = [message.as_json() async for message in recent[:HISTORY]]
        await self.send_json({"history": history[::-1]})

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        text = str(content.get("text", "")).strip()[:2000] if isinstance(content, dict) else ""
        if text:
            message = await Message.objects.acreate(
                room=self.slug, author=self.scope["user"], text=text
            )
            await fairway.abroadcast(self.room, {"message": message.as_json()})
