"""
``manage.py makeusers``: two users to try the rooms with.
"""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand

NAMES = ("ada", "grace")


class Command(BaseCommand):
    """
    Makes the users where they are missing, so it may run before every start.
    """

    help = "Make the users ada and grace; each has the name as password."

    def handle(self, *args: Any, **options: Any) -> None:
        users = get_user_model().objects
        for name in NAMES:
            if not users.filter(username=name).exists():
                users.create_user(username=name, password=name)
        self.stdout.write(f"Users: {', '.join(f'{name} (password {name})' for name in NAMES)}")
