"""
Pushes the counter to the pages that show it.
"""

import fairway
from counter.models import Counter


class CounterConsumer(fairway.AsyncJsonWebsocketConsumer):
    """
    Sends the number at once, and after every increment: the broadcast needs no handler.
    """

    groups = ("counter",)

    async def connect(self) -> None:
        await self.accept()
        counter = await Counter.objects.aget(pk=1)
        await self.send_json({"value": counter.value})
