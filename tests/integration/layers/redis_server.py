"""
Redis servers of a test's own: on loopback, in a folder, without files, ended by process id.

Each is stopped, killed, frozen and started again in its place; others are replicas, Sentinels
or a cluster. Calls wait for the server, which takes hundredths of a second.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any

import hiredis
import trustme

__all__ = [
    "SECONDS_MAX",
    "Certificates",
    "RedisServer",
    "certificates",
    "cluster_of_three",
    "fail_over",
    "free_port",
    "redis_server",
    "sentinel_server",
]

SECONDS_MAX = 15.0
"""
Time that a server gets to begin, to answer and to end.
"""

PAUSE_SECONDS = 0.005


class RedisServer:
    """
    One process of ``redis-server``, which may be started again in the same place.

    Attributes:
        port: Where it listens on 127.0.0.1, for TLS if it has certificates.
        path: The Unix socket on which it listens too.
        password: What ``default`` says to come in; empty for nothing.
    """

    def __init__(
        self,
        folder: Path,
        *,
        program: str = "redis-server",
        tls: Certificates | None = None,
        **settings: Any,
    ) -> None:
        """
        Describe a server that ``start`` starts.

        Args:
            folder: A folder of its own, with a short path.
            program: ``redis-server`` or ``redis-sentinel``.
            tls: Its certificates, and who may come; nobody is asked for one unless
                ``tls_auth_clients`` says so.
            settings: Lines of its configuration, with ``_`` for ``-``; a list for several.
        """
        self.folder = folder
        self.path = folder / "redis.sock"
        self.log = folder / "log"
        self.port = free_port()
        self.password = str(settings.get("requirepass", ""))
        self._program = program
        self._settings = settings
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: _Admin | None = None

    # --- The process -------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """
        Give the id of the process that runs.
        """
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """
        Whether it was started and has not ended.
        """
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """
        Start it, and return once it answers.
        """
        assert not self.runs
        configuration = self.folder / "conf"
        if not configuration.exists():
            configuration.write_text("\n".join(self._lines()) + "\n")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [shutil.which(self._program) or self._program, configuration],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(self._answers, self.log.read_text)

    def stop(self) -> None:
        """
        End it well.
        """
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """
        End it without a word, frozen or not.
        """
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """
        End it well and start it again, empty, in the same place.
        """
        self.stop()
        self.start()

    def freeze(self) -> None:
        """
        Let it stand still, with its connections open.
        """
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        state = Path(f"/proc/{self.pid}/stat")
        until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")

    def thaw(self) -> None:
        """
        Let it go on.
        """
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        """
        Send a signal, if there is anybody, and wait for the end.
        """
        if self._admin is not None:
            self._admin.close()
            self._admin = None
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(SECONDS_MAX)
            self._process = None

    def _answers(self) -> bool:
        """
        Whether it takes commands by now.
        """
        assert self.runs, self.log.read_text()
        try:
            return bool(self.do("PING") == b"PONG")
        except (OSError, hiredis.ReplyError):
            return False

    def _lines(self) -> Iterator[str]:
        """
        Write its configuration.
        """
        settings: dict[str, Any] = {
            "bind": "127.0.0.1",
            "port": self.port,
            "unixsocket": self.path,
            "dir": self.folder,
        }
        if self._program == "redis-server":
            settings |= {"save": '""', "appendonly": "no", "repl-diskless-sync-delay": 0}
        if self._tls is not None:
            settings |= {"port": 0, "tls-port": self.port, **self._tls.settings}
        for key, value in self._settings.items():
            settings[key.replace("_", "-")] = value
        for key, value in settings.items():
            for each in value if isinstance(value, list) else [value]:
                yield f"{key} {each}"

    # --- What it is told and asked -----------------------------------------------------------

    def do(self, *command: str | bytes | int) -> Any:
        """
        Have a command executed, by a connection that stays.

        Raises:
            hiredis.ReplyError: The server refuses it.
        """
        if self._admin is None:
            self._admin = _Admin(self.path, self.password)
        try:
            return self._admin.do(*command)
        except ConnectionError:  # It was idle for too long, or killed with others.
            self._admin.close()
            self._admin = _Admin(self.path, self.password)
            return self._admin.do(*command)

    def set(self, name: str, value: str | int) -> None:
        """
        Change a line of its configuration.
        """
        assert self.do("CONFIG", "SET", name, value) == b"OK"

    def info(self, section: str) -> dict[str, str]:
        """
        Give a section of what it says of itself.
        """
        lines = self.do("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def calls(self, command: str) -> int:
        """
        Count how often a command was executed.
        """
        found = self.info("commandstats").get(f"cmdstat_{command}", "calls=0")
        return int(found.split(",")[0].removeprefix("calls="))

    def clients(self) -> list[dict[str, str]]:
        """
        Give who is connected, but replicas and whoever asks.
        """
        lines = self.do("CLIENT", "LIST").decode().splitlines()
        found = [dict(word.split("=", 1) for word in line.split(" ")) for line in lines]
        return [one for one in found if one["name"] != _Admin.NAME and "S" not in one["flags"]]

    def subscribers(self) -> list[dict[str, str]]:
        """
        Give the clients that are subscribed to something.
        """
        return [one for one in self.clients() if one["sub"] != "0"]

    def commanders(self) -> list[dict[str, str]]:
        """
        Give the clients that are subscribed to nothing.
        """
        return [one for one in self.clients() if one["sub"] == "0"]

    def cut(self, *clients: dict[str, str]) -> None:
        """
        End connections of clients.
        """
        for client in clients:
            assert self.do("CLIENT", "KILL", "ID", client["id"]) == 1

    def listeners(self, channel: str) -> int:
        """
        Count the subscribers of a channel.
        """
        return int(self.do("PUBSUB", "NUMSUB", channel)[1])

    def channels(self) -> list[bytes]:
        """
        Give the channels that somebody is subscribed to.
        """
        return sorted(self.do("PUBSUB", "CHANNELS"))

    # --- Where it is -------------------------------------------------------------------------

    @property
    def address(self) -> tuple[str, int]:
        """
        Give its host and port.
        """
        return ("127.0.0.1", self.port)

    @property
    def url(self) -> str:
        """
        Give its URL, without what somebody has to say to come in.
        """
        scheme = "redis" if self._tls is None else "rediss"
        return f"{scheme}://127.0.0.1:{self.port}/0"


class _Admin:
    """
    A connection by which a server is told what to do, over its Unix socket.
    """

    NAME = "the-test"

    def __init__(self, path: Path, password: str) -> None:
        self._reader = hiredis.Reader()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(SECONDS_MAX)
        try:
            self._socket.connect(str(path))
            if password:
                self.do("AUTH", password)
            with suppress(hiredis.ReplyError):  # A Sentinel knows no names.
                self.do("CLIENT", "SETNAME", self.NAME)
        except BaseException:
            self.close()
            raise

    def do(self, *command: str | bytes | int) -> Any:
        """
        Execute a command.
        """
        self._socket.sendall(hiredis.pack_command(command))  # type: ignore[arg-type]
        while (reply := self._reader.gets()) is False:
            data = self._socket.recv(65_536)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            self._reader.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def close(self) -> None:
        """
        End it.
        """
        self._socket.close()


@dataclass(frozen=True)
class Certificates:
    """
    Files for TLS: whom everybody trusts, the server's, and a client's.
    """

    authority: Path
    server: Path
    client: Path

    @property
    def settings(self) -> dict[str, Any]:
        """
        Give what a server's configuration says of them.
        """
        return {
            "tls-ca-cert-file": self.authority,
            "tls-cert-file": self.server,
            "tls-key-file": self.server,
            "tls-auth-clients": "no",
        }


def certificates(folder: Path) -> Certificates:
    """
    Issue certificates of an authority that nobody else knows.
    """
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    found = Certificates(folder / "ca.pem", folder / "server.pem", folder / "client.pem")
    authority.cert_pem.write_to_path(str(found.authority))
    for path, name in ((found.server, "127.0.0.1"), (found.client, "ada@example.org")):
        issued = authority.issue_cert(name, key_type=trustme.KeyType.ECDSA)
        issued.private_key_and_cert_chain_pem.write_to_path(str(path))
    return found


@contextmanager
def redis_server(**settings: Any) -> Iterator[RedisServer]:
    """
    Run a server; ``settings`` are those of ``RedisServer``.
    """
    with _folder() as folder:
        server = RedisServer(folder, **settings)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextmanager
def sentinel_server(
    master: RedisServer, *, name: str = "mymaster", quorum: int = 1, **settings: Any
) -> Iterator[RedisServer]:
    """
    Run a Sentinel that finds out within a fraction of a second what became of a master.

    It has seen by then that the master has a replica.
    """
    host, port = master.address
    watched = [
        f"monitor {name} {host} {port} {quorum}",
        f"down-after-milliseconds {name} 400",
        f"failover-timeout {name} 3000",
    ]
    with redis_server(program="redis-sentinel", sentinel=watched, **settings) as sentinel:
        hurry = {"INFO-PERIOD": 100, "PING-PERIOD": 100, "ASK-PERIOD": 100, "PUBLISH-PERIOD": 100}
        for parameter, milliseconds in hurry.items():
            sentinel.do("SENTINEL", "DEBUG", parameter, milliseconds)
        until(lambda: _has_replica(sentinel, name), sentinel.log.read_text)
        yield sentinel


def _has_replica(sentinel: RedisServer, name: str) -> bool:
    """
    Whether a Sentinel knows a replica of a master that is up to date.
    """
    found = [
        dict(zip(one[::2], one[1::2], strict=True))
        for one in sentinel.do("SENTINEL", "REPLICAS", name)
    ]
    return any(one[b"master-link-status"] == b"ok" and one[b"flags"] == b"slave" for one in found)


def fail_over(sentinel: RedisServer, name: str = "mymaster") -> None:
    """
    Have a replica become the master, as planned.
    """

    def accepted() -> bool:
        try:
            return bool(sentinel.do("SENTINEL", "FAILOVER", name) == b"OK")
        except hiredis.ReplyError:  # The one before is not over yet, or none is good enough yet.
            return False

    until(accepted, sentinel.log.read_text)


@contextmanager
def cluster_of_three() -> Iterator[list[RedisServer]]:
    """
    Run a cluster of three masters without replicas, and give them once all slots are served.
    """
    slots = ((0, 5460), (5461, 10922), (10923, 16383))
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                redis_server(
                    cluster_enabled="yes", cluster_port=free_port(), cluster_node_timeout=2000
                )
            )
            for _ in slots
        ]
        for node, (first, last) in zip(nodes, slots, strict=True):
            node.do("CLUSTER", "ADDSLOTSRANGE", first, last)
        for node in nodes[1:]:
            bus = node.do("CONFIG", "GET", "cluster-port")[1]
            nodes[0].do("CLUSTER", "MEET", *node.address, bus)
        for node in nodes:
            until(lambda node=node: _is_whole(node))  # type: ignore[misc]
        yield nodes


def _is_whole(node: RedisServer) -> bool:
    """
    Whether a node of a cluster knows the three, and that all slots are served.
    """
    lines = node.do("CLUSTER", "INFO").decode().splitlines()
    return {"cluster_state:ok", "cluster_size:3"} <= set(lines)


def free_port() -> int:
    """
    Give a port of loopback that nobody listens on.

    Below those that connections take for themselves, so that it stays free until it is used.
    """
    for _ in range(1_000):
        port = 20_000 + next(_ports) % 12_000
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                trial.bind(("127.0.0.1", port))
                return port
    raise AssertionError("no port is free")


def _first_port() -> int:
    """
    Begin somewhere else in each process of tests.
    """
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1]) * 7


_ports = count(_first_port())


def until(condition: Callable[[], Any], explain: Callable[[], str] = str) -> None:
    """
    Wait, in this thread, until something is true.
    """
    end = monotonic() + SECONDS_MAX
    while not condition():
        assert monotonic() < end, f"it did not happen within {SECONDS_MAX:g} s: {explain()}"
        sleep(PAUSE_SECONDS)


@contextmanager
def _folder() -> Iterator[Path]:
    """
    Have a folder whose path is short enough for Unix sockets.
    """
    with TemporaryDirectory(prefix="fw-rd-", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)
