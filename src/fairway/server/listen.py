"""
Listening sockets and TLS contexts, with errors that a person can act on.

Everything that can be wrong about where to listen is found here, before the
application is loaded, and said in one line.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import ssl
import stat
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from fairway.exceptions import ConfigurationError
from fairway.faults import Fault

if TYPE_CHECKING:
    from fairway.options import ServerOptions

__all__ = ["bind", "describe", "port", "tls_context"]

BACKLOG = 2048

OTHER_PORT = "with --port (runserver: as its argument)"
"""
How people choose.
"""

ACTIVATED_FD = 3
"""
The first descriptor that systemd passes: SD_LISTEN_FDS_START.
"""


def bind(options: ServerOptions) -> socket.socket:
    """
    Open the one listening socket that the options name. May wait for a name server.

    Without ``--fd`` or ``--uds``, a socket that systemd passes comes before host and port.

    Raises:
        ConfigurationError: It cannot be opened; says why and what to do.
    """
    if options.fd is not None and options.uds is not None:
        raise ConfigurationError(
            "--fd and --uds exclude each other: give one of them", fault=Fault.FLAGS_CONFLICT
        )
    activated = _activated(os.environ)
    if options.fd is not None:
        return _inherited(options.fd)
    if options.uds is not None:
        return _unix(options.uds, options.uds_mode)
    if activated:
        return _inherited(ACTIVATED_FD)
    return _tcp(options.host, options.port)


def describe(sock: socket.socket, *, secure: bool) -> str:
    """
    Say where a socket listens, as an address for people.
    """
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if secure else 'http'}://{host}:{port}/"


def tls_context(options: ServerOptions) -> ssl.SSLContext | None:
    """
    Load the certificate, if one is named. Reads files.

    Raises:
        ConfigurationError: A file is missing or does not fit the other.
    """
    if options.certfile is None:
        if options.keyfile is not None:
            raise ConfigurationError(
                "--keyfile needs --certfile beside it", fault=Fault.CERTIFICATE_INVALID
            )
        return None
    for flag, path in (("--certfile", options.certfile), ("--keyfile", options.keyfile)):
        if path is not None and not os.access(path, os.R_OK):
            raise ConfigurationError(
                f"{flag} {path}: no such file, or not readable", fault=Fault.CERTIFICATE_INVALID
            )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(options.certfile, options.keyfile, _no_password)
    except OSError as error:
        raise ConfigurationError(
            f"--certfile {options.certfile}: not a certificate with its private key in PEM form "
            f"({getattr(error, 'reason', None) or _words(error)})",
            fault=Fault.CERTIFICATE_INVALID,
        ) from None
    return context


def _no_password() -> str:
    """
    Refuse to ask for a password, which OpenSSL would do on the terminal.
    """
    raise ConfigurationError(
        "--keyfile: the key is encrypted; store it without a password",
        fault=Fault.CERTIFICATE_INVALID,
    )


def _tcp(host: str, port: int) -> socket.socket:
    """
    Listen on a TCP address.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            f"--host {host!r}: not an address of this machine ({_words(error)})",
            fault=Fault.ADDRESS_INVALID,
        ) from None
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _bind_failure(host, port, error) from None
    sock.setblocking(False)
    return sock


def _bind_failure(host: str, port: int, error: OSError) -> ConfigurationError:
    """
    Say why an address could not be had, and who has it where that can be read.
    """
    if isinstance(error, PermissionError):
        return ConfigurationError(
            f"port {port}: ports below 1024 need privileges; choose another {OTHER_PORT}",
            fault=Fault.ADDRESS_INVALID,
        )
    if error.errno == errno.EADDRINUSE:
        holder = _holder(port)
        return ConfigurationError(
            f"port {port} on {host} is in use{f' by {holder}' if holder else ''}; "
            f"end that program or choose another port {OTHER_PORT}",
            fault=Fault.ADDRESS_IN_USE,
        )
    fix = "; use 127.0.0.1, or 0.0.0.0 for all" if error.errno == errno.EADDRNOTAVAIL else ""
    return ConfigurationError(
        f"cannot listen on {host}:{port}: {_words(error)}{fix}", fault=Fault.ADDRESS_INVALID
    )


def _words(error: Exception) -> str:
    """
    Give the operating system's words for an error, without its number.
    """
    return (getattr(error, "strerror", None) or str(error)).lower()


def _holder(port: int) -> str:
    """
    Name the process that listens on a port, as far as /proc lets us see it.
    """
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with contextlib.suppress(OSError):
            for line in table.read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        with contextlib.suppress(OSError):
            if any(_target(link) in inodes for link in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return ""


def _target(link: Path) -> str:
    """
    Give what a descriptor is of, as /proc says it; nothing if it was closed meanwhile.
    """
    try:
        return str(link.readlink())
    except OSError:
        return ""


def _activated(environ: MutableMapping[str, str]) -> bool:
    """
    Whether systemd passes a socket to this process, which no child may believe of itself.

    The variables are inherited by whoever does not know them, so those of another process
    are common and mean nothing.

    Raises:
        ConfigurationError: It passes more than the one socket that a server has.
    """
    process, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if process != str(os.getpid()) or count in {"", "0"}:
        return False
    if count != "1":
        raise ConfigurationError(
            f"LISTEN_FDS: expected 1 socket from systemd, got {count}; "
            "keep one ListenStream= in the .socket unit, or one unit per socket",
            fault=Fault.SOCKET_INVALID,
        )
    return True


def _unix(path: str, mode: str) -> socket.socket:
    """
    Listen on a Unix socket, replacing one that nobody listens on any more.
    """
    if not re.fullmatch("0?[0-7]{3}", mode):
        raise ConfigurationError(
            f"--uds-mode {mode}: expected an octal mode such as 666, or 660 for owner and group"
        )
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ConfigurationError(
                f"--uds {path}: exists and is not a socket; remove it first",
                fault=Fault.ADDRESS_INVALID,
            )
        if _answers(path):
            raise ConfigurationError(
                f"--uds {path}: another program listens there", fault=Fault.ADDRESS_IN_USE
            )
        Path(path).unlink()
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(path)
        # Nobody can connect before it listens, so there is no moment with another mode.
        Path(path).chmod(int(mode, 8))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigurationError(
            f"--uds {path}: {_words(error)}", fault=Fault.ADDRESS_INVALID
        ) from None
    sock.setblocking(False)
    return sock


def _answers(path: str) -> bool:
    """
    Whether somebody listens on a Unix socket.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        # One that is busy would keep us waiting: it gives EAGAIN instead.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True


def _inherited(fd: int) -> socket.socket:
    """
    Take over a listening socket that a parent process opened.
    """
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        raise ConfigurationError(
            f"--fd {fd}: no such open descriptor; the parent process must pass the socket on",
            fault=Fault.SOCKET_INVALID,
        ) from None
    if not stat.S_ISSOCK(mode):
        kind = "a terminal or device" if stat.S_ISCHR(mode) else "a pipe or file"
        raise ConfigurationError(
            f"--fd {fd}: is {kind}, not a socket; use [fcgi-program] in supervisor, or drop --fd",
            fault=Fault.SOCKET_INVALID,
        )
    sock = socket.socket(fileno=fd)
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        raise ConfigurationError(
            f"--fd {fd}: is a socket, but does not listen", fault=Fault.SOCKET_INVALID
        )
    if fd == 0:
        sock = _instead_of_stdin(sock)
    sock.setblocking(False)
    # Child processes of the application have no part in it.
    sock.set_inheritable(False)
    return sock


def _instead_of_stdin(sock: socket.socket) -> socket.socket:
    """
    Move a socket away from descriptor 0, where child processes look for their input.
    """
    moved = sock.dup()
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), sock.detach())
    return moved


def port(sock: socket.socket) -> int:
    """
    Give the TCP port a socket listens on, 0 for a Unix socket.
    """
    return 0 if sock.family == socket.AF_UNIX else int(sock.getsockname()[1])
