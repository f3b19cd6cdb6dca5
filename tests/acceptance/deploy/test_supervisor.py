"""
The real supervisord, as people run servers under it: with its socket and without.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.acceptance.deploy.site import Site, program, sample
from tests.acceptance.project import Command, Project, free_port

SUPERVISORD = """
[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
# So that it prints what its programs print.
loglevel=debug
pidfile={folder}/supervisord.pid
childlogdir={folder}

{program}
stdout_logfile=NONE
redirect_stderr=true
autorestart={restart}
startsecs=0
"""


async def supervise(
    project: Project, folder: Path, sections: str, *, restart: str = "false"
) -> Command:
    """
    Start supervisord with one program, whose output becomes its own.
    """
    configuration = folder / "supervisord.conf"
    configuration.write_text(SUPERVISORD.format(folder=folder, program=sections, restart=restart))
    return await project.start(program("supervisord"), "-c", str(configuration))


def section(project: Project, kind: str, **changes: str) -> str:
    """
    A section of the documentation, made to fit this project.

    Args:
        project: What it runs.
        kind: What the section's name begins with.
        changes: Replaced options, or with ``workers`` the number of them.
    """
    text = sample("ini", f"[{kind}:")
    replacements = {
        "/srv/mysite/venv/bin/python": sys.executable,
        "--workers 4": f"--workers {changes.get('workers', '2')}",
        "--uds /srv/mysite/run/web.sock": f"--uds {changes.get('path')}",
        "socket=tcp://127.0.0.1:8000": f"socket={changes.get('url')}",
        "directory=/srv/mysite": f"directory={project.folder}",
        # Nobody is called so here.
        "user=mysite\n": "",
        # What is said here is said by SUPERVISORD instead.
        "redirect_stderr=true\n": "",
        "stdout_logfile=/var/log/mysite/web.log\n": "",
    }
    for old, new in replacements.items():
        text = text.replace(old, new)
    assert "mysite/" not in text
    return text


async def stays_until_told(site: Site, command: Command) -> str:
    """
    Open a WebSocket, end supervisord, and give what it printed; the socket was told 1012.
    """
    url, _ = site.websocket("/ws/who/")
    async with asyncio.timeout(15), connect(url) as peer:
        await peer.recv()
        ending = asyncio.create_task(command.stop())
        with pytest.raises(ConnectionClosed):
            await peer.recv()
        assert peer.close_code == 1012
        status, output = await ending
    assert status == 0
    return output


async def test_fcgi_program(site: Project, folder: Path) -> None:
    """
    The documented section serves on supervisor's own socket, and ends in order with it.
    """
    text = section(site, "fcgi-program", url=f"tcp://127.0.0.1:{free_port()}")
    command = await supervise(site, folder, text)
    front = Site(await command.ready())
    assert (await front.who())["inherited"] == []
    output = await stays_until_told(front, command)
    assert "mysite (exit status 0)" in output


async def test_unix_socket_of_supervisor(site: Project, folder: Path) -> None:
    """
    A Unix socket of supervisor is served as well.
    """
    path = folder / "web.sock"
    text = section(site, "fcgi-program", url=f"unix://{path}", workers="1")
    command = await supervise(site, folder, text)
    await command.expect(f"Serving on unix:{path}")
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /who/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(5):
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await writer.wait_closed()
    assert (await command.stop())[0] == 0


async def test_bash_wrapper(site: Project, folder: Path) -> None:
    """
    A bash script that prepares and then execs keeps the socket, and signals arrive.
    """
    script = folder / "serve.sh"
    python = shlex.quote(sys.executable)
    script.write_text(
        "#!/bin/bash\nset -euo pipefail\necho prepared\n"
        f'exec {python} manage.py serve --fd 0 "$@"\n'
    )
    text = (
        f"[fcgi-program:mysite]\nsocket=tcp://127.0.0.1:{free_port()}\ndirectory={site.folder}\n"
        f"command=bash {script} --workers 2"
    )
    command = await supervise(site, folder, text)
    await command.expect("prepared")
    front = Site(await command.ready())
    await front.who()
    assert "mysite (exit status 0)" in await stays_until_told(front, command)


async def test_plain_program_has_no_socket(site: Project, folder: Path) -> None:
    """
    ``--fd 0`` under a plain ``[program]`` is refused in one line that names the section needed.
    """
    text = (
        f"[program:mysite]\ndirectory={site.folder}\n"
        f"command={sys.executable} manage.py serve --fd 0 --workers 2"
    )
    command = await supervise(site, folder, text)
    await command.expect(
        r"--fd 0: is a pipe or file, not a socket; use \[fcgi-program\] in supervisor, or drop --fd"
    )
    await command.expect(r"exited: mysite \(exit status 2; not expected\)")
    status, output = await command.stop()
    assert "Traceback" not in output
    assert status == 0


async def test_plain_program(site: Project, folder: Path) -> None:
    """
    The documented program rolls at SIGHUP without supervisor noticing, and ends in order.
    """
    path = folder / "web.sock"
    command = await supervise(site, folder, section(site, "program", path=str(path)))
    pid = int((await command.expect(r"spawned: 'mysite' with pid (\d+)"))[1])
    await command.expect(f"Serving on unix:{path} with 2 workers")
    os.kill(pid, signal.SIGHUP)
    await command.expect("All workers are replaced")
    status, output = await command.stop()
    assert status == 0
    assert "mysite (exit status 0)" in output


async def test_killed_program(site: Project, folder: Path) -> None:
    """
    A program that is killed is started again by supervisor, on the same path.
    """
    path = folder / "web.sock"
    text = section(site, "program", path=str(path))
    command = await supervise(site, folder, text, restart="true")
    pid = int((await command.expect(r"spawned: 'mysite' with pid (\d+)"))[1])
    await command.expect(f"Serving on unix:{path} with 2 workers")
    os.kill(pid, signal.SIGKILL)
    await command.expect(f"Serving on unix:{path} with 2 workers")
    assert (await command.stop())[0] == 0
