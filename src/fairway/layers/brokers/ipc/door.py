"""
Where a process is found and finds others: its entry in the directory, and its listening socket.

The door stays open for as long as the mesh lives, whatever becomes of the directory. Who
comes in and what is said is not its business. Belongs to one loop; nothing here waits.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fairway.exceptions import ConfigurationError
from fairway.layers.brokers.base import OnState
from fairway.layers.brokers.ipc.rendezvous import (
    Rendezvous,
    check_peer,
    new_name,
    open_directory,
)
from fairway.layers.notices import Notices

__all__ = ["Door"]

ACCEPTS_PER_TURN = 64

ACCEPT_PAUSE_SECONDS = 0.1
"""
Time without accepting after the system refused a descriptor for it.
"""

REFRESH_LOOKS = 100
"""
Looks after the directory after which the entry's times are set anew.
"""


class Door:
    """
    The entry of this process.

    Attributes:
        name: What others find it under.
        open: Whether they can.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        directory: Path,
        notices: Notices,
        admit: Callable[[socket.socket], None],
        on_state: OnState,
    ) -> None:
        """
        Be closed.

        Args:
            loop: Calls when somebody comes.
            directory: Where the processes meet.
            notices: Where a line goes that may come often.
            admit: Takes the connected, non-blocking socket of each process that has dialled.
            on_state: Called when others cannot find this process any more, and when they can
                again.
        """
        self.name = new_name()
        self.open = False
        self._loop = loop
        self._directory = directory
        self._notices = notices
        self._admit = admit
        self._on_state = on_state
        self._rendezvous: Rendezvous | None = None
        self._sock: socket.socket | None = None
        self._looks = 0

    def listen(self) -> None:
        """
        Open the directory and listen in it, instead of where it did before.

        Raises:
            ConfigurationError: The directory cannot be used.
            OSError: The system refuses what is needed at present.
        """
        rendezvous = open_directory(self._directory)
        try:
            sock = rendezvous.bind(self.name)
        except BaseException:
            rendezvous.close()
            raise
        self._stop_listening()
        if self._rendezvous is not None:
            self._rendezvous.close()
        self._rendezvous, self._sock = rendezvous, sock
        self._loop.add_reader(sock.fileno(), self._accept)
        self.open = True

    def close(self) -> None:
        """
        Be found no more. May be called again, and when the loop has ended.
        """
        self.open = False
        if self._rendezvous is not None:
            if self._sock is not None:
                self.withdraw()
            self._rendezvous.close()
            self._rendezvous = None
        self._stop_listening()

    def withdraw(self) -> None:
        """
        Have nobody else find this process; who has, stays. From any thread, before ``close``.
        """
        if self._rendezvous is not None:
            self._rendezvous.withdraw(self.name)

    def forked(self) -> None:
        """
        Close this process's copies of the descriptors, in a child, and touch nothing else.
        """
        if self._sock is not None:
            self._sock.close()
        if self._rendezvous is not None:
            self._rendezvous.close()

    def others(self) -> list[str]:
        """
        Give the names of all other entries.

        Raises:
            OSError: The directory cannot be read.
        """
        if self._rendezvous is None:
            return []
        return [name for name in self._rendezvous.entries() if name != self.name]

    def dial(self, name: str) -> socket.socket | None:
        """
        Give a socket connected to another process, or None if that is not there or not ours.

        Raises:
            OSError: It is there, and cannot be reached at present.
        """
        if self._rendezvous is None:
            return None
        try:
            return self._rendezvous.dial(name)
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            self._rendezvous.remove_dead(name)
        except PermissionError as error:
            self._notices.say("uid", "%s in %s is refused", error, self._directory)
        return None

    def look_after(self) -> None:
        """
        Make sure that others find this process, should the directory or the entry be gone.
        """
        rendezvous = self._rendezvous
        if rendezvous is not None and rendezvous.present(self.name):
            if self._looks % REFRESH_LOOKS == 0:
                rendezvous.refresh(self.name)
            self._looks += 1
            return
        if self.open:
            self.open = False
            self._on_state(False)
        self._accept()
        try:
            self.listen()
        except (ConfigurationError, OSError) as error:
            self._notices.say("directory", "others cannot find this process: %s", error)
        else:
            self._on_state(True)

    def _stop_listening(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            with suppress(RuntimeError):  # The loop has been closed.
                self._loop.remove_reader(sock.fileno())
            sock.close()

    def _accept(self) -> None:
        """
        Let in those who have dialled, if they run as this user.
        """
        for _ in range(ACCEPTS_PER_TURN):
            listening = self._sock
            if listening is None:
                return
            try:
                sock, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._notices.say("accept", "no process can be taken in: %s", error)
                self._loop.remove_reader(listening.fileno())
                self._loop.call_later(ACCEPT_PAUSE_SECONDS, self._accept_again, listening)
                return
            try:
                sock.setblocking(False)
                check_peer(sock)
            except OSError as error:
                self._notices.say("uid", "%s in %s is refused", error, self._directory)
                sock.close()
            else:
                self._admit(sock)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening is self._sock:
            self._loop.add_reader(listening.fileno(), self._accept)
