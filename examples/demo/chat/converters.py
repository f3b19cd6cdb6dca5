"""
What may stand in a path for a room.
"""

from django.urls.converters import SlugConverter


class RoomConverter(SlugConverter):
    """
    A slug that fits into ``Message.room``; pages and sockets are routed alike.
    """

    regex = "[-a-zA-Z0-9_]{1,50}"
