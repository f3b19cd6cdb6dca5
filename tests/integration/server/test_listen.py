"""
Where a server listens, and what it says when it cannot: exit status 2 and one line.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from fairway.exceptions import ConfigurationError
from fairway.faults import Fault
from fairway.options import ServerOptions
from fairway.server import Server, listen
from fairway.server.listen import bind, describe, port, tls_context
from fairway.server.log import exit_status
from fairway.types import ASGIApplication


def refuse_to_load() -> ASGIApplication:
    """
    Stand in for an application that must not be loaded.
    """
    raise AssertionError


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str]) -> Any:
    """
    Runs a server with options that are wrong, and gives the one line it prints without its id.
    """

    def start(**options: Any) -> str:
        assert exit_status(Server(ServerOptions(**options), refuse_to_load).run) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("fairway: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        text, bracket, fault = err[9:-1].rpartition(" [")
        assert bracket
        assert fault.removesuffix("]") in list(Fault)
        return text

    return start


class TestTcp:
    """
    ``--host`` and ``--port``.
    """

    def test_free_port(self) -> None:
        """
        Port 0 takes a free one, and the address says which.
        """
        with bind(ServerOptions(port=0)) as sock:
            assert port(sock) > 0
            assert describe(sock, secure=False) == f"http://127.0.0.1:{port(sock)}/"
            assert describe(sock, secure=True) == f"https://127.0.0.1:{port(sock)}/"
            assert not sock.getblocking()

    def test_ipv6(self) -> None:
        """
        An IPv6 address stands in brackets.
        """
        sock = Mock(socket.socket, family=socket.AF_INET6)
        sock.getsockname.return_value = ("::1", 80, 0, 0)
        assert describe(sock, secure=False) == "http://[::1]:80/"

    def test_again(self) -> None:
        """
        A port that was just given up can be had again, whatever its connections do.
        """
        with bind(ServerOptions(port=0)) as sock:
            number = port(sock)
            client = socket.create_connection(("127.0.0.1", number))
            sock.setblocking(True)
            accepted, _ = sock.accept()
            accepted.close()
        with bind(ServerOptions(port=number)), client:
            pass

    def test_busy(self, line: Any) -> None:
        """
        A port in use names who holds it.
        """
        with socket.create_server(("127.0.0.1", 0)) as other:
            number = other.getsockname()[1]
            name = Path("/proc/self/comm").read_text().strip()
            assert line(port=number) == (
                f"port {number} on 127.0.0.1 is in use by {name} (pid {os.getpid()}); "
                "end that program or choose another port with --port (runserver: as its argument)"
            )

    def test_busy_and_at_work(self, line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Who holds it is named though it closes something else while it is looked for.
        """
        readlink = Path.readlink

        def vanish(path: Path) -> Path:
            if path.name == "0":
                raise FileNotFoundError
            return readlink(path)

        monkeypatch.setattr(Path, "readlink", vanish)
        with socket.create_server(("127.0.0.1", 0)) as other:
            assert f"(pid {os.getpid()})" in line(port=other.getsockname()[1])

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"port": 65536}, "port must be between 0 and 65535, not 65536"),
            ({"host": "256.1.1.1"}, "--host '256.1.1.1': not an address of this machine"),
            ({"host": "a" * 70}, f"--host '{'a' * 70}': not an address of this machine"),
            ({"host": "192.0.2.1", "port": 0}, "cannot listen on 192.0.2.1:0: cannot assign"),
            ({"loop": "trio"}, "loop must be one of auto, asyncio, uvloop, not 'trio'"),
            ({"ping_interval": -1}, "ping_interval must be between 0 and 86400 s, not -1"),
        ],
    )
    def test_wrong(self, line: Any, options: dict[str, Any], said: str) -> None:
        """
        What cannot be had is said in one line, before the application is loaded.
        """
        assert line(**options).startswith(said)

    def test_privileged(self, line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A port that needs privileges says so.
        """

        def refuse(self: socket.socket, address: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(socket.socket, "bind", refuse)
        assert line(port=80).startswith("port 80: ports below 1024 need privileges")


class TestUnix:
    """
    ``--uds``.
    """

    def test_path(self, tmp_path: Path) -> None:
        """
        A path becomes a socket that clients can connect to.
        """
        path = str(tmp_path / "s")
        with bind(ServerOptions(uds=path)) as sock, socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            assert describe(sock, secure=False) == f"unix:{path}"
            assert port(sock) == 0

    @pytest.mark.parametrize("mode", ["666", "660", "0600"])
    def test_mode(self, tmp_path: Path, mode: str) -> None:
        """
        The file gets the mode asked for, whatever the umask.
        """
        path = tmp_path / "s"
        before = os.umask(0o077)
        try:
            bind(ServerOptions(uds=str(path), uds_mode=mode)).close()
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)

    @pytest.mark.parametrize("mode", ["rw", "888", "66", "1777", "-66", ""])
    def test_wrong_mode(self, line: Any, tmp_path: Path, mode: str) -> None:
        """
        A mode that is none is said, and no file made.
        """
        said = line(uds=str(tmp_path / "s"), uds_mode=mode)
        assert said.startswith(f"--uds-mode {mode}: expected an octal mode such as 666")
        assert not list(tmp_path.iterdir())

    def test_stale(self, tmp_path: Path) -> None:
        """
        A socket that nobody listens on any more is replaced.
        """
        path = str(tmp_path / "s")
        bind(ServerOptions(uds=path)).close()
        assert stat.S_ISSOCK(Path(path).stat().st_mode)
        with bind(ServerOptions(uds=path)), socket.socket(socket.AF_UNIX) as client:
            client.connect(path)

    def test_in_use(self, line: Any, tmp_path: Path) -> None:
        """
        A socket that somebody listens on is left alone.
        """
        path = str(tmp_path / "s")
        with bind(ServerOptions(uds=path)):
            assert line(uds=path) == f"--uds {path}: another program listens there"

    def test_full(self, line: Any, tmp_path: Path) -> None:
        """
        That holds too while its queue is full.
        """
        path = str(tmp_path / "s")
        clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        with socket.socket(socket.AF_UNIX) as busy:
            busy.bind(path)
            busy.listen(0)
            for client in clients:
                client.setblocking(False)
                client.connect_ex(path)
            assert line(uds=path) == f"--uds {path}: another program listens there"
        for client in clients:
            client.close()

    def test_file(self, line: Any, tmp_path: Path) -> None:
        """
        A file that is no socket is left alone, and so is what a link points to.
        """
        path = tmp_path / "file"
        path.write_text("precious")
        link = tmp_path / "link"
        link.symlink_to(path)
        for name in (path, link):
            said = line(uds=str(name))
            assert said == f"--uds {name}: exists and is not a socket; remove it first"
        assert path.read_text() == "precious"

    @pytest.mark.parametrize(
        ("name", "said"),
        [("no/s", "no such file or directory"), ("x" * 200, "af_unix path too long")],
    )
    def test_wrong(self, line: Any, tmp_path: Path, name: str, said: str) -> None:
        """
        A path that cannot be had is said in one line.
        """
        assert line(uds=str(tmp_path / name)).endswith(f": {said}")


class TestInherited:
    """
    ``--fd``.
    """

    def test_socket(self) -> None:
        """
        A listening socket is taken over.
        """
        with (
            socket.create_server(("127.0.0.1", 0)) as parent,
            bind(ServerOptions(fd=os.dup(parent.fileno()))) as sock,
        ):
            assert sock.getsockname() == parent.getsockname()

    def test_not_open(self, line: Any) -> None:
        """
        A descriptor that is not open says what is missing.
        """
        assert line(fd=999) == (
            "--fd 999: no such open descriptor; the parent process must pass the socket on"
        )

    @pytest.fixture
    def descriptors(self, tmp_path: Path) -> Iterator[dict[str, int]]:
        """
        Descriptors that cannot be listened on, by what they are.
        """
        with (
            socket.socket() as silent,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
            (tmp_path / "file").open("w") as file,
            Path("/dev/null").open() as device,
        ):
            yield {
                "silent": silent.fileno(),
                "datagrams": datagrams.fileno(),
                "file": file.fileno(),
                "device": device.fileno(),
            }

    @pytest.mark.parametrize(
        ("kind", "said"),
        [
            ("silent", "is a socket, but does not listen"),
            ("datagrams", "is a socket, but does not listen"),
            ("file", "is a pipe or file, not a socket; use [fcgi-program] in supervisor"),
            ("device", "is a terminal or device, not a socket"),
        ],
    )
    def test_wrong(self, line: Any, descriptors: dict[str, int], kind: str, said: str) -> None:
        """
        A descriptor that is no listening socket says what it is, and stays its owner's.
        """
        fd = descriptors[kind]
        assert line(fd=fd).startswith(f"--fd {fd}: {said}")
        os.fstat(fd)

    def test_excludes_path(self, line: Any) -> None:
        """
        A path beside it is one too many.
        """
        assert line(fd=3, uds="s") == "--fd and --uds exclude each other: give one of them"

    def test_not_for_children(self) -> None:
        """
        The application's child processes do not get it.
        """
        with socket.create_server(("127.0.0.1", 0)) as parent:
            fd = os.dup(parent.fileno())
            os.set_inheritable(fd, True)
            with bind(ServerOptions(fd=fd)) as sock:
                assert not sock.get_inheritable()

    def test_standard_input(self) -> None:
        """
        A socket in the place of the standard input makes room for an empty one.
        """
        stdin = os.dup(0)
        try:
            with socket.create_server(("127.0.0.1", 0)) as parent:
                os.dup2(parent.fileno(), 0)
                with bind(ServerOptions(fd=0)) as sock:
                    assert sock.getsockname() == parent.getsockname()
                    assert sock.fileno() > 2
                    assert os.read(0, 1) == b""
        finally:
            os.dup2(stdin, 0)
            os.close(stdin)


class TestActivated:
    """
    Sockets that systemd passes.
    """

    @pytest.fixture
    def passed(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
        """
        A socket in the place of the first that systemd passes, and the variables that say so.
        """
        with socket.create_server(("127.0.0.1", 0)) as parent:
            fd = os.dup(parent.fileno())
            monkeypatch.setattr(listen, "ACTIVATED_FD", fd)
            for name, value in {"PID": os.getpid(), "FDS": 1, "FDNAMES": "web"}.items():
                monkeypatch.setenv(f"LISTEN_{name}", str(value))
            yield parent
            with suppress(OSError):
                os.close(fd)

    def test_socket(self, passed: socket.socket) -> None:
        """
        It comes before host and port, and no child process believes that it was meant.
        """
        with bind(ServerOptions(port=0)) as sock:
            assert sock.getsockname() == passed.getsockname()
        assert not [name for name in os.environ if name.startswith("LISTEN_")]

    @pytest.mark.parametrize("variables", [{"PID": "1"}, {"PID": ""}, {"FDS": "0"}, {"FDS": ""}])
    def test_not_meant(
        self,
        passed: socket.socket,
        monkeypatch: pytest.MonkeyPatch,
        variables: dict[str, str],
    ) -> None:
        """
        Variables of another process, or of none, mean nothing and go no further.
        """
        for name, value in variables.items():
            monkeypatch.setenv(f"LISTEN_{name}", value)
        with bind(ServerOptions(port=0)) as sock:
            assert sock.getsockname() != passed.getsockname()
        assert not [name for name in os.environ if name.startswith("LISTEN_")]

    def test_path_given(self, passed: socket.socket, tmp_path: Path) -> None:
        """
        A flag that names another socket comes first.
        """
        with bind(ServerOptions(uds=str(tmp_path / "s"))) as sock:
            assert sock.family == socket.AF_UNIX

    def test_two(self, passed: socket.socket, monkeypatch: pytest.MonkeyPatch, line: Any) -> None:
        """
        A second socket would never be served, so it is refused with the fix.
        """
        monkeypatch.setenv("LISTEN_FDS", "2")
        assert line() == (
            "LISTEN_FDS: expected 1 socket from systemd, got 2; "
            "keep one ListenStream= in the .socket unit, or one unit per socket"
        )


class TestTls:
    """
    ``--certfile`` and ``--keyfile``.
    """

    @pytest.fixture
    def certificate(self, tmp_path: Path) -> tuple[str, str]:
        """
        A certificate and its key.
        """
        issued = trustme.CA().issue_cert("localhost")
        cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)
        return str(cert), str(key)

    def test_context(self, certificate: tuple[str, str]) -> None:
        """
        A certificate with its key makes a context; no certificate makes none.
        """
        cert, key = certificate
        assert tls_context(ServerOptions(certfile=cert, keyfile=key)) is not None
        assert tls_context(ServerOptions()) is None

    def test_key_alone(self, line: Any, certificate: tuple[str, str]) -> None:
        """
        A key needs its certificate.
        """
        assert line(keyfile=certificate[1]) == "--keyfile needs --certfile beside it"

    def test_missing(self, line: Any, certificate: tuple[str, str]) -> None:
        """
        A file that is not there is named with its flag.
        """
        cert, _ = certificate
        assert line(certfile="/no") == "--certfile /no: no such file, or not readable"
        assert line(certfile=cert, keyfile="/no") == "--keyfile /no: no such file, or not readable"

    def test_not_fitting(self, line: Any, certificate: tuple[str, str], tmp_path: Path) -> None:
        """
        Files that do not fit are said to.
        """
        cert, key = certificate
        other = tmp_path / "other.pem"
        trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(other)
        for certfile, keyfile in (
            (key, key),
            (cert, str(other)),
            (cert, None),
            (str(tmp_path), None),
        ):
            said = line(certfile=certfile, keyfile=keyfile)
            assert said.startswith(f"--certfile {certfile}: not a certificate with its private key")

    def test_encrypted(self, line: Any, certificate: tuple[str, str], tmp_path: Path) -> None:
        """
        A key with a password is refused: nobody is there to be asked for it.
        """
        cert, key = certificate
        encrypted = tmp_path / "encrypted.pem"
        loaded = serialization.load_pem_private_key(Path(key).read_bytes(), None)
        encrypted.write_bytes(
            loaded.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"secret"),
            )
        )
        assert "encrypted" in line(certfile=cert, keyfile=str(encrypted))

    def test_before_load(self, certificate: tuple[str, str]) -> None:
        """
        Everything is found before a socket is opened.
        """
        with pytest.raises(ConfigurationError):
            tls_context(ServerOptions(certfile=certificate[1]))
