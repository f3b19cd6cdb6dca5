"""
SQLite's backend, which counts the connections that are open at once, over all threads.
"""

from __future__ import annotations

import threading
from typing import Any

from django.db.backends.sqlite3 import base

lock = threading.Lock()
opened = 0
peak = 0


class DatabaseWrapper(base.DatabaseWrapper):
    """
    A connection that is counted as long as it is open.
    """

    def get_new_connection(self, conn_params: Any) -> Any:
        """
        Open one.
        """
        global opened, peak  # noqa: PLW0603 - the count is the process's
        with lock:
            opened += 1
            peak = max(peak, opened)
        return super().get_new_connection(conn_params)

    def is_usable(self) -> bool:
        """
        Ask the database, as backends with a server do.
        """
        try:
            self.connection.execute("SELECT 1")
        except Exception:  # noqa: BLE001 - any says no
            return False
        return True

    def _close(self) -> None:
        global opened  # noqa: PLW0603 - as above
        with lock:
            opened -= 1
        super()._close()  # type: ignore[misc] # Django's
