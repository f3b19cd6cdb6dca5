"""
The directory where the processes of one project find each other.

``<root>/<namespace>`` holds one Unix socket per process, ``<12 hex>.sock``. Whoever may
enter it may send messages to every socket of the site, so it is verified when it is
opened, and the other end's user is verified on each connection. Only names, files and
connecting live here: no bytes are sent, nothing is waited for, and no entry is removed
of which it is not certain that its process has ended.

Every call is a few system calls on a local directory and may be made on an event loop.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time

from fairway.exceptions import ConfigurationError
from fairway.faults import Fault

__all__ = ["LOCK", "Rendezvous", "check_peer", "new_name", "open_directory", "peer_uid", "try_lock"]

PATH_BYTES_MAX = 107 if sys.platform == "linux" else 103
"""
What ``sun_path`` of a Unix socket's address holds, without its last NUL.
"""

BACKLOG = 1024
"""
Connections that may wait to be accepted: more than any machine has processes of one project.
"""

UNFINISHED_SECONDS = 60.0
"""
Age from which on a socket that was bound but never shown counts as left behind.
"""

ENTRY = ".sock"
UNFINISHED = ".new"
LOCK = "lock"
ENTRY_NAME = re.compile(r"[0-9a-f]{12}\.sock")
OTHER_PLACE = 'set FAIRWAY["RUNTIME_DIR"] to a directory of your own'


def new_name() -> str:
    """
    Give the name for a new entry, which no other process has.
    """
    return secrets.token_hex(6)


def open_directory(path: Path) -> Rendezvous:
    """
    Open ``<root>/<namespace>``, making both if they are missing, for this user alone.

    Raises:
        ConfigurationError: It cannot be made, or is not a directory that only this user may
            enter, or its name is too long for a socket's address.
    """
    _check_length(path)
    root = _open_private(path.parent)
    try:
        directory = _open_private(path, parent=root)
    except BaseException:
        os.close(root)
        raise
    return Rendezvous(path, root, directory)


class Rendezvous:
    """
    An open directory and its entries. A name is 12 hexadecimal digits, without ``.sock``.

    Belongs to one thread at a time. After a fork the child may only ``close`` it, which
    leaves the parent's untouched.

    Attributes:
        path: The directory.
    """

    __slots__ = ("_directory", "_root", "path")

    def __init__(self, path: Path, root: int, directory: int) -> None:
        """
        Take over the descriptors of both directories; ``open_directory`` gives them.
        """
        self.path = path
        self._root = root
        self._directory = directory

    def entries(self) -> list[str]:
        """
        Give the names of the sockets here, sorted; whatever else lies here is left alone.
        """
        return sorted(name.removesuffix(ENTRY) for name in self._list() if self._is_socket(name))

    def bind(self, name: str) -> socket.socket:
        """
        Give a listening, non-blocking socket that others find under a name.

        It is shown only once it listens, by renaming: bound and not listening it would
        refuse connections, and be removed as dead.

        Raises:
            OSError: The directory is gone, full or not writable.
        """
        self._sweep()
        sock = _socket()
        try:
            sock.bind(os.fspath(self.path / (name + UNFINISHED)))
            os.chmod(name + UNFINISHED, 0o600, dir_fd=self._directory)
            sock.listen(BACKLOG)
            self._rename(name + UNFINISHED, name + ENTRY)
        except BaseException:
            sock.close()
            self._unlink(name + UNFINISHED)
            raise
        return sock

    def dial(self, name: str) -> socket.socket:
        """
        Give a non-blocking socket connected to an entry, whose process runs as this user.

        Raises:
            FileNotFoundError: There is no such entry any more.
            ConnectionRefusedError: Its process has ended; ``remove_dead`` may be called.
            BlockingIOError: It lives, but takes no connections at present.
            PermissionError: It belongs to another user.
            OSError: Something else keeps from connecting, such as too many open files.
        """
        if not self._is_socket(name + ENTRY):
            raise FileNotFoundError(f"{self.path / (name + ENTRY)} is gone or not a socket")
        sock = _socket()
        try:
            sock.connect(os.fspath(self.path / (name + ENTRY)))
            check_peer(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    def remove_dead(self, name: str) -> bool:
        """
        Remove an entry whose process has ended, of which it makes sure under the lock.

        Returns:
            Whether the entry is gone. If not, its process lives, or another cleaner is at
            work; the next scan shows.
        """
        with try_lock(LOCK, self._directory) as held:
            if not held:
                return not self._is_socket(name + ENTRY)
            try:
                self.dial(name).close()
            except ConnectionRefusedError:
                self._unlink(name + ENTRY)
                return True
            except FileNotFoundError:
                return True
            except OSError:
                return False
            return False

    def withdraw(self, name: str) -> None:
        """
        Remove this process's own entry, if it is still there.
        """
        self._unlink(name + ENTRY)

    def present(self, name: str) -> bool:
        """
        Whether others who follow the path come here, and find this process's own entry.
        """
        try:
            here, there = os.fstat(self._directory), os.lstat(self.path)
        except OSError:
            return False
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino) and self._is_socket(
            name + ENTRY
        )

    def refresh(self, name: str) -> None:
        """
        Set the times of this process's own entry, for those who clear /tmp of what looks unused.
        """
        with suppress(OSError):
            os.utime(name + ENTRY, dir_fd=self._directory, follow_symlinks=False)
            os.utime(self._directory)
            os.utime(self._root)

    def close(self) -> None:
        """
        Close the descriptors; entries stay as they are. Closing twice does nothing.
        """
        root, directory = self._root, self._directory
        self._root = self._directory = -1
        for descriptor in (directory, root):
            if descriptor >= 0:
                os.close(descriptor)

    def _sweep(self) -> None:
        """
        Remove what was left by processes that ended between bind and rename.

        One that merely stands still there fails to rename, and begins again.
        """
        before = time() - UNFINISHED_SECONDS
        for name in self._list():
            if name.endswith(UNFINISHED):
                found = self._lstat(name)
                if found is not None and found.st_mtime < before:
                    self._unlink(name)

    def _list(self) -> list[str]:
        return os.listdir(self._directory)  # noqa: PTH208 - pathlib takes no descriptor

    def _is_socket(self, name: str) -> bool:
        if not ENTRY_NAME.fullmatch(name):  # It may come from another process, too.
            return False
        found = self._lstat(name)
        return found is not None and stat.S_ISSOCK(found.st_mode)

    def _lstat(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _rename(self, name: str, to: str) -> None:
        os.rename(name, to, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def _unlink(self, name: str) -> None:
        with suppress(OSError):
            os.unlink(name, dir_fd=self._directory)


@contextmanager
def try_lock(path: str | Path, directory: int | None = None) -> Iterator[bool]:
    """
    Try to be the only one who clears up, for as long as the block lasts; never waits.

    The kernel ends the lock with its holder. It is given back by name, since a child
    forked meanwhile has the same descriptor and would keep it.

    Args:
        path: The file that is locked, made if it is missing.
        directory: The descriptor of the directory that ``path`` starts from.

    Returns:
        Whether the lock is held.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600, dir_fd=directory)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _socket() -> socket.socket:
    """
    Give a new non-blocking Unix stream socket, which programs run from here do not inherit.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    return sock


def peer_uid(sock: socket.socket) -> int:
    """
    Give the user id of the process at the other end of a connected Unix socket.

    Raises:
        OSError: The connection is gone, or the system does not say.
    """
    if hasattr(socket, "SO_PEERCRED"):
        form = struct.Struct("iII")
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, form.size)
        return int(form.unpack(data)[1])
    # struct xucred of macOS and the BSDs: version, uid, number of groups, groups.
    data = sock.getsockopt(0, getattr(socket, "LOCAL_PEERCRED", 1), 76)
    return int(struct.unpack_from("II", data)[1])


def check_peer(sock: socket.socket) -> None:
    """
    Make sure that the process at the other end runs as this one's user.

    Raises:
        PermissionError: It does not; the message names both users.
        OSError: The connection is gone.
    """
    found, expected = peer_uid(sock), os.geteuid()
    if found != expected:
        raise PermissionError(f"expected a process of uid {expected}, found uid {found}")


def _check_length(path: Path) -> None:
    longest = os.fsencode(path / ("0" * 12 + ENTRY))
    if len(longest) > PATH_BYTES_MAX:
        raise ConfigurationError(
            f"{path} is too long for the sockets in it: expected at most "
            f"{PATH_BYTES_MAX - len(ENTRY) - 13} bytes, got {len(os.fsencode(path))}; "
            'set FAIRWAY["RUNTIME_DIR"] to a shorter path',
            fault=Fault.RUNTIME_DIR_UNSAFE,
        )


def _open_private(path: Path, *, parent: int | None = None) -> int:
    """
    Open a directory of this user alone, making it if it is missing.

    Args:
        path: Its path, for people; followed only without ``parent``.
        parent: The descriptor of the directory it lies in, if that is open already.

    Raises:
        ConfigurationError: As ``open_directory``.
    """
    name = path if parent is None else Path(path.name)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
        # Looked at first, since a descriptor of what belongs to others may not be had.
        _check_private(path, os.stat(name, dir_fd=parent, follow_symlinks=False))
        descriptor = os.open(name, flags, dir_fd=parent)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be used for sockets between processes: "
            f"{error.strerror or error}; {OTHER_PLACE}",
            fault=Fault.RUNTIME_DIR_UNSAFE,
        ) from error
    try:
        _check_private(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    # Says to systemd-tmpfiles that this is in use, however old it looks.
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return descriptor


def _check_private(path: Path, found: os.stat_result) -> None:
    """
    Make sure that this is a directory which only this user may enter.
    """
    me = os.geteuid()
    if stat.S_ISLNK(found.st_mode):
        raise ConfigurationError(
            f"{path} is a symbolic link, expected a directory: remove it or {OTHER_PLACE}",
            fault=Fault.RUNTIME_DIR_UNSAFE,
        )
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(
            f"{path} is a file, expected a directory: remove it or {OTHER_PLACE}",
            fault=Fault.RUNTIME_DIR_UNSAFE,
        )
    if found.st_uid != me:
        raise ConfigurationError(
            f"{path} belongs to uid {found.st_uid}, expected uid {me}: run as that user, "
            f"remove it or {OTHER_PLACE}",
            fault=Fault.RUNTIME_DIR_UNSAFE,
        )
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise ConfigurationError(
            f"{path} has mode {mode:o}, expected 700: run chmod 700 {path} or {OTHER_PLACE}",
            fault=Fault.RUNTIME_DIR_UNSAFE,
        )
