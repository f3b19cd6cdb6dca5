"""
Several processes of one server, started and ended in earnest: signals, faults, restarts.
"""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance.project import Command, Project
from tests.protocol.harness import WebSocket, handshake, request

APPLICATION = """
import os
import sys
import time
from pathlib import Path

if Path("broken").exists():
    raise ZeroDivisionError("broken")


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
        os.write(1, b"lifespan over\\n")
    elif scope["type"] == "http":
        if scope["path"] == "/block":
            print("blocked", flush=True)
            time.sleep(60)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
    else:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": str(os.getpid())})
        await receive()
"""

SECONDS_MAX = 10


class Server:
    """
    A supervisor with its workers and their clients.

    Attributes:
        pids: The workers, as it said last.
    """

    def __init__(self, command: Command, found: re.Match[str]) -> None:
        self.command = command
        host, _, port = found["address"].rpartition(":")
        self.address = (host, int(port))
        self.pids = pids_of(found)
        self.peers: list[WebSocket] = []

    async def connect(self) -> WebSocket:
        """
        Open a connection.
        """
        sock = socket.socket()
        sock.setblocking(False)
        self.peers.append(peer := WebSocket(sock))
        await asyncio.get_running_loop().sock_connect(sock, self.address)
        return peer

    async def open(self) -> tuple[WebSocket, int]:
        """
        Open a WebSocket, and say which process has it.
        """
        peer = await self.connect()
        await peer.send(handshake())
        assert (await peer.response()).status == 101
        return peer, int((await peer.frame()).payload)

    async def get(self) -> int:
        """
        Make a request on a connection of its own, and say which process answered.
        """
        peer = await self.connect()
        try:
            return int((await peer.get()).body)
        finally:
            peer.close()

    async def open_on_both(self) -> dict[int, WebSocket]:
        """
        Open WebSockets until each of the workers has one.
        """
        peers: dict[int, WebSocket] = {}
        async with asyncio.timeout(SECONDS_MAX):
            while len(peers) < len(self.pids):
                peer, pid = await self.open()
                peers.setdefault(pid, peer)
        return peers

    async def stop(self, number: int = signal.SIGTERM) -> tuple[int, list[str]]:
        """
        Send the supervisor a signal, and give its exit status with the lines printed last.
        """
        status, output = await self.command.stop(number)
        return status, output.strip().splitlines()

    def close(self) -> None:
        """
        Close all connections.
        """
        for peer in self.peers:
            peer.close()


def pids_of(found: re.Match[str]) -> list[int]:
    """
    The processes that a line names.
    """
    return [int(pid) for pid in found["pids"].split(", ")]


def alive(pid: int) -> bool:
    """
    Whether a process runs; one that is over and not waited for does not.
    """
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def until(condition: Callable[[], bool]) -> None:
    """
    Wait for something that nothing tells of.
    """
    async with asyncio.timeout(SECONDS_MAX):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


Start = Callable[..., Awaitable[Server]]


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Project]:
    """
    A folder with an ASGI application and no Django project.
    """
    (tmp_path / "plain.py").write_text(APPLICATION)
    folder = Project(tmp_path, settings="")
    yield folder
    await folder.close()


@pytest.fixture
async def run(folder: Project) -> Callable[..., Awaitable[Command]]:
    """
    Starts the command there.
    """

    async def run_command(*flags: str, **environment: str) -> Command:
        arguments = ("-m", "fairway", "plain:application", "--port", "0", "--workers", "2", *flags)
        return await folder.run(*arguments, **environment)

    return run_command


@pytest.fixture
async def serve(run: Callable[..., Awaitable[Command]]) -> AsyncIterator[Start]:
    """
    Starts servers with two workers.
    """
    servers = []

    async def start(*flags: str, **environment: str) -> Server:
        command = await run(*flags, **environment)
        found = await command.expect(SERVING)
        servers.append(server := Server(command, found))
        return server

    yield start
    for server in servers:
        server.close()


SERVING = r"Serving on http://(?P<address>\S+)/ with \d+ workers? \(pids (?P<pids>[\d, ]+)\)\n"
REPLACED = r"All workers are replaced \(pids (?P<pids>[\d, ]+)\)\n"


class TestStart:
    """
    From the command to serving workers.
    """

    async def test_lines(self, run: Callable[..., Awaitable[Command]], folder: Project) -> None:
        """
        What runs is said once, then the address with all processes; the pid file names the first.
        """
        command = await run("--pid-file", "pid", "--respawn-delay", "1")
        found = await command.expect(rf"(?s)^(?P<lines>.*){SERVING}$")
        lines = found["lines"].splitlines()
        assert [line.partition(" ")[0] for line in lines] == ["Fairway", "Channel", "Settings:"]
        assert "workers=2 (flag)" in lines[2]
        server = Server(command, found)
        assert len(set(server.pids)) == 2
        assert (folder.folder / "pid").read_text() == f"{command.process.pid}\n"
        assert set(await server.open_on_both()) == set(server.pids)
        server.close()
        assert await server.stop() == (0, ["lifespan over"] * 2)
        assert not (folder.folder / "pid").exists()

    @pytest.mark.parametrize(
        ("code", "status", "said"),
        [
            ("1 / 0", 2, r"fairway: [^\n]*, line 1: ZeroDivisionError: [^\n]* \[fairway.R109\]\n"),
            ("import sys; sys.exit(7)", 7, ""),
            ("application = 1", 2, r"fairway: [^\n]* expected an ASGI application[^\n]*\n"),
            (
                "import os; os._exit(0)",
                1,
                r"[^\n]* Worker 1 \(pid \d+\) ended with status 0[^\n]*\n",
            ),
            (
                "import os; os.abort()",
                1,
                r"[^\n]* Worker 1 \(pid \d+\) was ended by SIGABRT[^\n]*\n",
            ),
        ],
    )
    async def test_failure(
        self,
        run: Callable[..., Awaitable[Command]],
        folder: Project,
        code: str,
        status: int,
        said: str,
    ) -> None:
        """
        An application that does not start ends the supervisor with its status and its words.
        """
        (folder.folder / "plain.py").write_text(code)
        ended, output = await (await run()).ended()
        assert (ended, bool(re.fullmatch(said, output))) == (status, True), output

    async def test_timeout(self, run: Callable[..., Awaitable[Command]], folder: Project) -> None:
        """
        An application that takes too long to start is ended, which is said in one line.
        """
        (folder.folder / "plain.py").write_text("import time; time.sleep(60)")
        status, output = await (await run("--start-timeout", "1")).ended()
        assert status == 1
        assert output.count("\n") == 1
        assert "did not begin to serve within 1 s (start_timeout) and was killed" in output

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (["--workers", "1025"], "workers must be between 0 and 1024 processes, not 1025"),
            (["--pid-file", "no/pid"], "--pid-file no/pid: no such file or directory"),
            (["--fd", "0"], "is a terminal or device, not a socket"),
            (["--certfile", "no.pem"], "no such file, or not readable"),
        ],
    )
    async def test_wrong(
        self, run: Callable[..., Awaitable[Command]], flags: list[str], said: str
    ) -> None:
        """
        What cannot be had is said in one line, with status 2.
        """
        status, output = await (await run(*flags)).ended()
        assert (status, output.count("\n")) == (2, 1), output
        assert said in output

    async def test_environment(self, folder: Project) -> None:
        """
        WEB_CONCURRENCY asks for workers; 0 takes one per CPU granted.
        """
        command = await folder.run(
            *("-m", "fairway", "plain:application", "--port", "0"),
            WEB_CONCURRENCY="0",
        )
        found = await command.expect(SERVING)
        assert len(pids_of(found)) == len(os.sched_getaffinity(0))

    async def test_inherited_children(self, folder: Project) -> None:
        """
        A child of the command that ends under the supervisor does not stay in the process list.
        """
        start = (
            "import os, subprocess, sys;"
            "print('child', subprocess.Popen(['cat'], stdin=int(sys.argv[1])).pid, flush=True);"
            "os.execv(sys.executable, [sys.executable, '-m', 'fairway', *sys.argv[2:]])"
        )
        theirs, ours = os.pipe()
        command = await folder.start(
            *(sys.executable, "-c", start, str(theirs)),
            *("plain:application", "--port", "0", "--workers", "1"),
            fds=(theirs,),
        )
        os.close(theirs)
        child = int((await command.expect(r"child (\d+)\n"))[1])
        await command.expect(SERVING)
        assert alive(child)
        os.close(ours)
        await until(lambda: not Path(f"/proc/{child}").exists())
        assert (await command.stop())[0] == 0

    async def test_signal_while_starting(
        self, run: Callable[..., Awaitable[Command]], folder: Project
    ) -> None:
        """
        A signal that comes before the first worker serves ends all, with status 0.
        """
        (folder.folder / "plain.py").write_text(
            "print('in', flush=True); import time; time.sleep(60)"
        )
        command = await run()
        await command.expect("in\n")
        assert await command.stop() == (0, "")


class TestEnd:
    """
    From a signal to the last worker's end.
    """

    @pytest.mark.parametrize(
        ("number", "everyone"),
        [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True)],
    )
    async def test_drain(self, serve: Start, number: int, *, everyone: bool) -> None:
        """
        A signal, to the supervisor or to all as from Ctrl-C and systemd, tells every WebSocket
        1012, ends each application once and gives status 0.
        """
        server = await serve()
        peers = await server.open_on_both()
        if everyone:
            os.killpg(server.command.process.pid, number)
        else:
            server.command.process.send_signal(number)
        for peer in peers.values():
            assert await peer.close_code() == 1012
        server.close()
        status, output = await server.command.ended()
        assert (status, output.splitlines()) == (0, ["lifespan over"] * 2)
        assert not any(map(alive, server.pids))

    async def test_second_signal(self, serve: Start) -> None:
        """
        A second signal ends all within a second, whatever clients and applications do.
        """
        server = await serve()
        peers = await server.open_on_both()
        busy = await server.connect()
        await busy.send(request("/block"))
        await server.command.expect("blocked\n")
        server.command.process.send_signal(signal.SIGTERM)
        # One worker is too busy to say anything.
        await asyncio.wait(
            [asyncio.ensure_future(peer.recv()) for peer in peers.values()],
            return_when=asyncio.FIRST_COMPLETED,
        )
        began = time.monotonic()
        status, _ = await server.stop()
        assert status == 0
        # A second, and what a busy machine takes to notice.
        assert time.monotonic() - began < 2
        assert not any(map(alive, server.pids))

    async def test_late_worker(self, serve: Start) -> None:
        """
        A worker that does not end in its time is killed, and named.
        """
        server = await serve("--drain", "0", "--application-close-timeout", "0.1")
        busy = await server.connect()
        await busy.send(request("/block"))
        await server.command.expect("blocked\n")
        status, output = await server.stop()
        assert status == 0
        assert re.search(r"Worker [12] \(pid \d+\) did not end within 5\.1 s", "\n".join(output))

    @pytest.mark.parametrize("nohup", [False, True])
    async def test_terminal_closed(self, folder: Project, *, nohup: bool) -> None:
        """
        A terminal that is closed ends all of it; under nohup it goes on, and SIGHUP means replace.
        """
        start = (
            "import fcntl, os, signal, sys, termios;"
            "fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0);"
            f"{nohup} and signal.signal(signal.SIGHUP, signal.SIG_IGN);"
            "os.execv(sys.executable, [sys.executable, '-m', 'fairway', *sys.argv[2:]])"
        )
        ours, theirs = pty.openpty()
        command = await folder.start(
            *(sys.executable, "-c", start, str(theirs)),
            *("plain:application", "--port", "0", "--workers", "1"),
            fds=(theirs,),
        )
        os.close(theirs)
        server = Server(command, await command.expect(SERVING))
        os.close(ours)
        if nohup:
            await command.expect("The terminal was closed; going on")
            command.process.send_signal(signal.SIGHUP)
            assert not {*pids_of(await command.expect(REPLACED))} & {*server.pids}
            command.process.send_signal(signal.SIGTERM)
        assert (await command.ended())[0] == 0

    @pytest.mark.fault
    async def test_supervisor_killed(self, serve: Start) -> None:
        """
        Workers whose supervisor was killed drain and end, and leave the port to the next one.
        """
        server = await serve()
        peers = await server.open_on_both()
        server.command.process.kill()
        for peer in peers.values():
            assert await peer.close_code() == 1012
        server.close()
        await until(lambda: not any(map(alive, server.pids)))
        with socket.create_server(server.address):
            pass


@pytest.mark.fault
class TestRespawn:
    """
    What a worker's death means to the others and to its clients.
    """

    async def test_killed_under_load(self, serve: Start) -> None:
        """
        Nobody is refused when a worker is killed, and everybody is back within half a second.
        """
        server = await serve()
        sockets = [await server.open() for _ in range(40)]
        victim = server.pids[0]
        assert {pid for _, pid in sockets} == set(server.pids)
        done = asyncio.Event()
        answered: list[int] = []

        async def load() -> None:
            while not done.is_set():
                # Those that the victim had taken and not answered are lost with it.
                with suppress(ConnectionResetError, AssertionError):
                    answered.append(await server.get())

        async def stay(peer: WebSocket, pid: int) -> float:
            if pid != victim:
                return 0.0
            await peer.rest()
            began = time.monotonic()
            await server.open()
            return time.monotonic() - began

        loads = [asyncio.create_task(load()) for _ in range(4)]
        os.kill(victim, signal.SIGKILL)
        away = await asyncio.gather(*(stay(*each) for each in sockets))
        assert max(away) < 0.5
        await server.command.expect(
            rf"ERROR fairway.server: Worker 1 \(pid {victim}\) was ended by SIGKILL; another starts"
        )
        # The one that took its place gets its share again.
        await until(lambda: not {*answered} <= {*server.pids})
        done.set()
        await asyncio.gather(*loads)
        server.close()
        assert (await server.stop())[0] == 0

    async def test_backoff(self, serve: Start, folder: Project) -> None:
        """
        A worker that cannot start again is tried again, after a longer time each time.
        """
        server = await serve("--respawn-delay", "0.05", "--respawn-delay-max", "0.2")
        (folder.folder / "broken").touch()
        os.kill(server.pids[1], signal.SIGKILL)
        for seconds in ("0.05", "0.1", "0.2", "0.2"):
            await server.command.expect(rf"another starts in {re.escape(seconds)} s\n")
        assert await server.get() == server.pids[0]
        (folder.folder / "broken").unlink()
        peers: set[int] = set()
        async with asyncio.timeout(SECONDS_MAX):
            while len(peers) < 2:
                peers.add((await server.open())[1])
        server.close()
        assert (await server.stop())[0] == 0

    async def test_told_to_end(self, serve: Start) -> None:
        """
        A worker that somebody else told to end drains, and another one takes its place.
        """
        server = await serve()
        peers = await server.open_on_both()
        os.kill(server.pids[0], signal.SIGTERM)
        assert await peers[server.pids[0]].close_code() == 1012
        await server.command.expect(r"Worker 1 \(pid \d+\) was told to end; another starts")
        answered: set[int] = set()
        async with asyncio.timeout(SECONDS_MAX):
            while len(answered - {*server.pids}) < 1:
                answered.add(await server.get())
        server.close()
        assert (await server.stop())[0] == 0


class TestReplacement:
    """
    Workers that make room for others: SIGHUP and ``--max-requests``.
    """

    async def test_rolling(self, serve: Start) -> None:
        """
        SIGHUP replaces all workers under load: no request fails, and every WebSocket is told 1012
        and can come back.
        """
        server = await serve()
        done = asyncio.Event()
        answered: list[int] = []

        async def short() -> None:
            while not done.is_set():
                answered.append(await server.get())

        async def long() -> None:
            peer = await server.connect()
            while not done.is_set():
                try:
                    response = await peer.get()
                except (AssertionError, ConnectionError):
                    # Closed between two requests.
                    assert not peer.buffer
                    peer.close()
                    peer = await server.connect()
                    response = await peer.get()
                answered.append(int(response.body))
                if response.headers.get("connection") == "close":
                    peer.close()
                    peer = await server.connect()

        async def socket_(peer: WebSocket, pid: int) -> int:
            # Who comes back may find the other worker that is to be replaced.
            while pid in server.pids:
                assert await peer.close_code() == 1012
                peer.close()
                peer, pid = await server.open()
            return pid

        sockets = [await server.open() for _ in range(20)]
        loads = [asyncio.create_task(kind()) for kind in (short, short, long, long)]
        back = [asyncio.create_task(socket_(*each)) for each in sockets]
        await until(lambda: len(answered) > 50)
        server.command.process.send_signal(signal.SIGHUP)
        found = await server.command.expect(REPLACED)
        new = set(pids_of(found))
        assert len(new - set(server.pids)) == 2
        assert set(await asyncio.gather(*back)) <= new
        await until(lambda: not any(map(alive, server.pids)))
        del answered[:]
        await until(lambda: {*answered} == new)
        done.set()
        await asyncio.gather(*loads)
        server.close()
        assert (await server.stop())[0] == 0

    async def test_new_code_fails(self, serve: Start, folder: Project) -> None:
        """
        New code that does not start replaces nothing; once it does, the next SIGHUP takes it.
        """
        server = await serve()
        (folder.folder / "broken").touch()
        server.command.process.send_signal(signal.SIGHUP)
        await server.command.expect(r"ZeroDivisionError: broken \[fairway\.R109\]\n")
        await server.command.expect("ended with status 2; the others stay as they are\n")
        assert set(await server.open_on_both()) == set(server.pids)
        (folder.folder / "broken").unlink()
        server.command.process.send_signal(signal.SIGHUP)
        found = await server.command.expect(REPLACED)
        assert not {*pids_of(found)} & {*server.pids}
        server.close()
        assert (await server.stop())[0] == 0

    async def test_max_requests(self, serve: Start) -> None:
        """
        A worker that has answered its requests is replaced, without a failed request.
        """
        server = await serve("--max-requests", "20")
        answered: dict[int, int] = {}
        async with asyncio.timeout(SECONDS_MAX):
            while len(answered) < 5:
                pid = await server.get()
                answered[pid] = answered.get(pid, 0) + 1
        # The successor takes a moment to start.
        assert answered[server.pids[0]] >= 18
        server.close()
        assert (await server.stop())[0] == 0


class TestSystemd:
    """
    ``sd_notify`` and socket activation.
    """

    @pytest.mark.parametrize("workers", [True, False])
    async def test_notifications(
        self, folder: Project, runtime_dir: Path, *, workers: bool
    ) -> None:
        """
        Systemd hears when the server serves, reloads and stops, and signs of life in between.
        """
        path = f"{runtime_dir}/notify-{workers}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
            heard.bind(path)
            heard.setblocking(False)
            command = await folder.run(
                *("-m", "fairway", "plain:application", "--port", "0"),
                *(("--workers", "2") if workers else ()),
                NOTIFY_SOCKET=path,
                WATCHDOG_USEC="200000",
            )

            async def hear(word: str) -> str:
                async with asyncio.timeout(SECONDS_MAX):
                    loop = asyncio.get_running_loop()
                    while word not in (text := (await loop.sock_recv(heard, 4096)).decode()):
                        assert text == "WATCHDOG=1"
                    return text

            assert (await hear("READY=1")).startswith(
                "READY=1\nSTATUS=Serving on http://127.0.0.1:"
            )
            await hear("WATCHDOG=1")
            if workers:
                command.process.send_signal(signal.SIGHUP)
                assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", await hear("RELOADING"))
                await hear("READY=1")
            command.process.send_signal(signal.SIGTERM)
            await hear("STOPPING=1")
            assert (await command.ended())[0] == 0

    @pytest.mark.parametrize("flags", [("--workers", "2"), ()])
    async def test_socket_activation(self, folder: Project, flags: tuple[str, ...]) -> None:
        """
        A socket from systemd is served, and no process below believes that it was meant.
        """
        (folder.folder / "plain.py").write_text(
            APPLICATION + "print('seen', 'LISTEN_PID' in os.environ, flush=True)\n"
        )
        activate = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True);"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='web');"
            "os.execv(sys.executable, [sys.executable, '-m', 'fairway', *sys.argv[2:]])"
        )
        with socket.create_server(("127.0.0.1", 0)) as listening:
            command = await folder.start(
                *(sys.executable, "-c", activate),
                *(str(listening.fileno()), "plain:application", *flags),
                fds=(listening.fileno(),),
            )
            await command.expect("seen False\n")
            assert await command.ready() == "{}:{}".format(*listening.getsockname())
        assert (await command.stop())[0] == 0
