"""
One number that everybody may increment.
"""

from django.db import models


class Counter(models.Model):
    """
    The number; there is one row.
    """

    value = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return str(self.value)
