"""
The file in which queues keep their messages: SQLite, shared by the processes of one machine.

What a row is, and what happens to the file itself, lives here: made, found broken and set
aside, moved away under an open connection. Everything here blocks, and belongs to one thread
at a time; nothing is waited for but the disk: a lock that another process holds is an error
at once, ``Busy``, and the caller's to try again.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time
from typing import NamedTuple

from fairway import metrics
from fairway.layers.brokers.ipc.rendezvous import LOCK, try_lock

__all__ = ["Busy", "Row", "Store"]

logger = logging.getLogger("fairway.layers")

PURGE_SECONDS = 30.0
"""
Time between two looks at what has expired in all queues, while the file is written to.
"""

FREE_PAGES_MAX = 1024
"""
Unused pages (of 4 KiB) that the file may hold before it is made smaller.
"""

RESERVE_BYTES = 8_388_608
"""
Room on the disk that new messages leave: reading writes too, and would else make none.
"""

SCHEMA = (
    "PRAGMA auto_vacuum = INCREMENTAL",  # Before the first table, else it does nothing.
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA journal_size_limit = 4194304",
    # AUTOINCREMENT gives no number twice, so a message put back keeps its place.
    """CREATE TABLE IF NOT EXISTS messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        queue TEXT NOT NULL,
        expires REAL NOT NULL,
        payload BLOB NOT NULL
    )""",
    # Covers counting and expiry, so that neither reads payloads.
    "CREATE INDEX IF NOT EXISTS messages_queue ON messages (queue, id, expires)",
)
BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Busy(sqlite3.OperationalError):
    """
    Another process holds the lock; to be tried again.
    """


class Row(NamedTuple):
    """
    A message out of a queue, with what it takes to put it back.

    Attributes:
        number: Its place among all messages.
        queue: The queue it was in.
        expires: Until when it may be read, in seconds since the epoch.
        payload: The bytes.
    """

    number: int
    queue: str
    expires: float
    payload: bytes


class Store:
    """
    One connection to the file, made at first use and made again when that fails.

    Attributes:
        path: The file.
    """

    __slots__ = ("_connection", "_identity", "_purge_at", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._purge_at = 0.0

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """
        Write all that the block asks for, or nothing.

        Raises:
            Busy: Another process writes.
            sqlite3.Error: The file cannot be written to; the next call opens it again.
            OSError: The directory is gone or not this user's.
        """
        with self._errors():
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            purges = time() >= self._purge_at
            try:
                if purges:
                    expire(connection, time())
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        if purges:
            self._purge_at = time() + PURGE_SECONDS
            with suppress(sqlite3.Error):
                _shrink(connection)

    def has_room(self, size: int) -> bool:
        """
        Whether the disk takes so many bytes more and leaves enough for readers.

        Raises:
            OSError: The directory is gone.
        """
        disk = os.statvfs(self.path.parent)
        return disk.f_bavail * disk.f_frsize >= RESERVE_BYTES + size

    def holds(self, queue: str) -> bool:
        """
        Whether a queue has messages, expired ones among them. Takes no lock.

        Raises:
            sqlite3.Error: As ``transaction``.
        """
        with self._errors():
            found = self._open().execute("SELECT 1 FROM messages WHERE queue = ? LIMIT 1", (queue,))
            return found.fetchone() is not None

    def close(self) -> None:
        """
        Close the connection; the next use opens the file again.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def set_aside(self) -> None:
        """
        Rename a file that SQLite cannot read, so that a new one takes its place.

        Of several processes that meet it, one does so; the others find the new file.
        """
        broken = self._identity
        self.close()
        with try_lock(self.path.with_name(LOCK)) as held:
            if not held or broken is None or _identify(self.path) != broken:
                return
            aside = f"{self.path}.corrupt"
            # Its journal goes first: beside a new file it would be taken for that one's.
            for suffix in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    Path(f"{self.path}{suffix}").replace(f"{aside}{suffix}")
        metrics.queue_files_set_aside.value += 1
        logger.error(
            "%s cannot be read and was set aside as %s: the messages in its queues are lost",
            self.path,
            aside,
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """
        Tell a lock of another process from a fault, after which the file is opened again.
        """
        try:
            yield
        except sqlite3.Error as error:
            if _code(error) in BUSY:
                raise Busy(str(error)) from error
            replaced = _identify(self.path) != self._identity
            self.close()
            if replaced:
                raise Busy(f"{self.path} was replaced while it was used") from error
            raise
        except OSError:
            self.close()
            raise

    def _open(self) -> sqlite3.Connection:
        """
        Give the connection to the file that the path leads to now.
        """
        if self._connection is not None:
            if _identify(self.path) == self._identity:
                return self._connection
            self.close()  # Set aside by another process, or the directory was made anew.
        with _opening:
            self._identity = _make(self.path)
            connection = sqlite3.connect(
                self.path, timeout=0, isolation_level=None, check_same_thread=False
            )
            try:
                for statement in SCHEMA:
                    connection.execute(statement).fetchall()
            except BaseException:
                connection.close()
                raise
        if _identify(self.path) != self._identity:
            connection.close()
            raise Busy(f"{self.path} was replaced while it was opened")
        self._connection = connection
        return connection


def add(
    connection: sqlite3.Connection, queue: str, payload: bytes, lifetime: float, capacity: int
) -> bool:
    """
    Add to the end of a queue; False if it holds ``capacity`` messages that may still be read.
    """
    if _is_full(connection, queue, capacity):
        expire(connection, time(), queue)
        if _is_full(connection, queue, capacity):
            return False
    connection.execute(
        "INSERT INTO messages (queue, expires, payload) VALUES (?, ?, ?)",
        (queue, time() + lifetime, payload),
    )
    return True


def take(connection: sqlite3.Connection, queue: str, count: int) -> list[Row]:
    """
    Take up to ``count`` messages from the front of a queue, passing by what has expired.
    """
    expire(connection, time(), queue)
    rows = connection.execute(
        "SELECT id, queue, expires, payload FROM messages WHERE queue = ? ORDER BY id LIMIT ?",
        (queue, count),
    ).fetchall()
    connection.executemany("DELETE FROM messages WHERE id = ?", [row[:1] for row in rows])
    return [Row(*row) for row in rows]


def put_back(connection: sqlite3.Connection, row: Row) -> None:
    """
    Add a message where it was taken from, whatever the queue's capacity.
    """
    connection.execute(
        "INSERT OR IGNORE INTO messages (id, queue, expires, payload) VALUES (?, ?, ?, ?)", row
    )


def clear(connection: sqlite3.Connection) -> None:
    """
    Throw away every message of every queue.
    """
    connection.execute("DELETE FROM messages")


def expire(connection: sqlite3.Connection, now: float, queue: str | None = None) -> None:
    """
    Throw away and count what has expired, in one queue or in all.
    """
    only = "" if queue is None else " AND queue = ?"
    values = (now,) if queue is None else (now, queue)
    gone = connection.execute(f"DELETE FROM messages WHERE expires <= ?{only}", values)  # noqa: S608 - two constants
    if gone.rowcount > 0:
        metrics.drops.add("queue_expired", gone.rowcount)


def is_broken(error: sqlite3.Error) -> bool:
    """
    Whether an error says that the file is no database, or no longer a sound one.
    """
    return _code(error) in BROKEN


def _is_full(connection: sqlite3.Connection, queue: str, capacity: int) -> bool:
    """
    Whether a queue holds ``capacity`` messages, expired ones among them.

    Counting takes time for each of them; where first and last are closer than that, it is
    known without.
    """
    [[span]] = connection.execute(
        """SELECT (SELECT id FROM messages WHERE queue = ?1 ORDER BY id DESC LIMIT 1)
                - (SELECT id FROM messages WHERE queue = ?1 ORDER BY id LIMIT 1)""",
        (queue,),
    ).fetchall()
    if span is None or span + 1 < capacity:
        return False
    [[count]] = connection.execute(
        "SELECT COUNT(*) FROM messages WHERE queue = ?", (queue,)
    ).fetchall()
    return int(count) >= capacity


def _shrink(connection: sqlite3.Connection) -> None:
    """
    Give room that is no longer used back to the disk, if it is much.
    """
    [[free]] = connection.execute("PRAGMA freelist_count").fetchall()
    if free > FREE_PAGES_MAX:
        # As a script: execute() would step once, which frees a single page.
        connection.executescript("PRAGMA incremental_vacuum")


def _code(error: sqlite3.Error) -> int:
    """
    Give SQLite's primary error code; 0 if it was not SQLite that failed.
    """
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _identify(path: Path) -> tuple[int, int] | None:
    """
    Tell which file a path leads to at present, if any.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _make(path: Path) -> tuple[int, int]:
    """
    Make the file if it is missing, for this user alone, and tell which one it is.

    Raises:
        Busy: Another process set it aside at this moment.
        OSError: It cannot be made, or something else is in its place.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        raise Busy(f"{path} was replaced while it was opened") from None
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise OSError(f"expected a file of uid {os.geteuid()}, found something else: remove it")
    return found.st_dev, found.st_ino


# One at a time in this process: closing any descriptor of a file ends the POSIX locks that
# SQLite holds on it, and making the file takes one.
_opening = threading.Lock()
