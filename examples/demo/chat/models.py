"""
Rooms and what was said in them.
"""

from django.conf import settings
from django.db import models


class Message(models.Model):
    """
    One message of a user in a room.
    """

    room = models.SlugField()
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    text = models.CharField(max_length=2000)
    sent = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]
        indexes = [models.Index(fields=["room", "id"], name="message_room")]

    def __str__(self) -> str:
        return f"{self.author}: {self.text}"

    def as_json(self) -> dict[str, object]:
        """
        Give what pages show, whether from the history or live.
        """
        return {
            "id": self.pk,
            "author": self.author.get_username(),
            "text": self.text,
            "sent": self.sent.isoformat(),
        }
