"""
Processes that send and receive from threads, from several loops, and after a fork.
"""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
from pathlib import Path

import pytest

from tests.integration.layers.fleet import (
    ROOT,
    SECONDS_MAX,
    Fleet,
    Member,
    assert_complete,
    join_all,
    quick,
    reach,
    settle,
    sockets_in,
    until,
)

pytestmark = pytest.mark.one_loop

BEGIN = """
import asyncio, multiprocessing, os, signal, sys, threading
from pathlib import Path

from asgiref.sync import async_to_sync

from fairway.layers.brokers.ipc import IPCBroker
from fairway.layers.codec import Kind
from fairway.layers.layer import ChannelLayer
from fairway.options import IPCOptions, LayerOptions
from tests.integration.layers.members import numbered

directory = Path(sys.argv[1])
options = IPCOptions(join_timeout=4.0, heartbeat=0.1, silence=0.6)
broker = IPCBroker(directory, options, expiry=60, namespace="space")
layer = ChannelLayer(broker, LayerOptions(capacity=1000))


def send(sender, number):
    return layer.submit("room", numbered("room", sender, number), kind=Kind.BINARY)


async def visit(sender):
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.broadcast("room", numbered("room", sender, 1), kind=Kind.BINARY)
    while f'"{sender}"'.encode() not in (await layer.receive(channel))["bytes"]:
        pass


def child(sender):
    asyncio.run(visit(sender))
    for number in range(2, 101):
        send(sender, number)


def leave_at_once(sender):
    send(sender, 1).result(5)
    os._exit(0)


def in_threads(target, *names):
    threads = [threading.Thread(target=target, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


class Running:
    """
    A script that runs in a process of its own.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        """
        Wait for its next line.
        """
        assert self.process.stdout is not None
        async with asyncio.timeout(SECONDS_MAX):
            return (await self.process.stdout.readline()).decode().strip()

    async def ended(self) -> tuple[str, int]:
        """
        Wait for its end; give what it wrote last, and its exit status.
        """
        assert self.process.stdin is not None
        self.process.stdin.close()
        async with asyncio.timeout(SECONDS_MAX):
            output, _ = await self.process.communicate()
        assert self.process.returncode is not None
        return output.decode(), self.process.returncode


async def run(script: str, fleet: Fleet) -> Running:
    """
    Start a script that has a layer in ``layer``, and may be imported by its own children.
    """
    path = fleet.root / "script.py"
    body = 'if __name__ == "__main__":\n' + textwrap.indent(textwrap.dedent(script), "    ")
    path.write_text(BEGIN + "\n\n" + body)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-Wignore::DeprecationWarning",  # Of forks in a process with threads.
        str(path),
        str(fleet.directory),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    fleet.processes.append(process)
    return Running(process)


async def hears(member: Member, senders: dict[str, int]) -> None:
    """
    Show that a process hears all of these senders' messages, each once and in order.
    """
    await member.do("hear", subject="room", senders=senders)
    assert_complete(await member.do("report"), "room", senders)


async def test_what_a_plain_script_sends_last_arrives(fleet: Fleet) -> None:
    """A script without a loop that ends right after a thousand messages has sent them all."""
    members = await fleet.start("ab", quick())
    await settle(members, "room")
    script = await run("for number in range(1, 1001): send('script', number)", fleet)
    assert await script.ended() == ("", 0)
    for member in members:
        await hears(member, {"script": 1000})
    assert len(sockets_in(fleet.directory)) == 2


async def test_threads_without_a_loop_send_in_their_own_order(fleet: Fleet) -> None:
    """Four threads of a process that has no loop each wait for every message to leave."""
    members = await fleet.start("ab", {**quick(), "served": False})
    await settle(members, "room")
    script = await run(
        """
        def work(name):
            for number in range(1, 101):
                send(name, number).result(5)

        in_threads(work, "one", "two", "three", "four")
        """,
        fleet,
    )
    assert await script.ended() == ("", 0)
    for member in members:
        await hears(member, dict.fromkeys(("one", "two", "three", "four"), 100))


async def test_synchronous_code_sends_with_async_to_sync(fleet: Fleet) -> None:
    """Each call makes a loop of its own and leaves it, and every message arrives in order."""
    members = await fleet.start("a", quick())
    await settle(members, "room")
    script = await run(
        """
        def work(name):
            for number in range(1, 51):
                message = {"type": "websocket.send", "bytes": numbered("room", name, number)}
                async_to_sync(layer.group_send)("room", message)

        in_threads(work, "one", "two", "three")
        """,
        fleet,
    )
    assert await script.ended() == ("", 0)
    await hears(members[0], dict.fromkeys(("one", "two", "three"), 50))


async def test_two_loops_of_a_process_receive_and_send(fleet: Fleet) -> None:
    """Channels on two loops get every message of other processes once, and theirs arrive there."""
    members = await fleet.start("a", quick())
    await settle(members, "room")
    script = await run(
        """
        barrier = threading.Barrier(2)

        async def talk(name):
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            if not barrier.wait():
                print("joined", flush=True)
            numbers = []
            while len(numbers) < 20:
                message = await layer.receive(channel)
                numbers.append(int(message["bytes"].split(b",")[2]))
            assert numbers == list(range(1, 21)), numbers
            await asyncio.sleep(0)
            barrier.wait()
            for number in range(1, 21):
                await send_and_wait(name, number)

        async def send_and_wait(name, number):
            await asyncio.wrap_future(send(name, number))

        in_threads(lambda name: asyncio.run(talk(name)), "one", "two")
        """,
        fleet,
    )
    assert await script.line() == "joined"
    await members[0].do("send", group="room", count=20)
    assert await script.ended() == ("", 0)
    await hears(members[0], {"one": 20, "two": 20})


async def test_a_forked_child_is_a_process_of_its_own(fleet: Fleet) -> None:
    """Parent and child join, send and receive; the child's end takes nothing from the parent."""
    members = await fleet.start("a", quick())
    await settle(members, "room")
    script = await run(
        """
        asyncio.run(visit("parent"))
        child = os.fork()
        if child == 0:
            asyncio.run(visit("child"))
            sys.exit(0)
        _, status = os.waitpid(child, 0)
        send("parent", 2).result(5)
        print(os.waitstatus_to_exitcode(status), flush=True)
        sys.stdin.read()
        """,
        fleet,
    )
    assert await script.line() == "0"
    await hears(members[0], {"parent": 2, "child": 1})
    await reach(members, 2, "room")
    assert len(sockets_in(fleet.directory)) == 2
    assert await script.ended() == ("", 0)
    await reach(members, 1, "room")


@pytest.mark.parametrize("method", ["fork", "spawn"])
async def test_children_of_multiprocessing_send_and_receive(fleet: Fleet, method: str) -> None:
    """All that three children send arrives, though such children end without atexit."""
    members = await fleet.start("a", quick())
    await settle(members, "room")
    script = await run(
        f"""
        context = multiprocessing.get_context("{method}")
        asyncio.run(visit("parent"))
        children = [context.Process(target=child, args=(f"child{{n}}",)) for n in range(3)]
        for one in children:
            one.start()
        for one in children:
            one.join()
        send("parent", 2).result(5)
        print([one.exitcode for one in children])
        """,
        fleet,
    )
    assert await script.ended() == ("[0, 0, 0]\n", 0)
    await hears(members[0], {"parent": 2, "child0": 100, "child1": 100, "child2": 100})


async def test_what_was_confirmed_has_left(fleet: Fleet) -> None:
    """Children that end without any clean-up right after a confirmed message have sent it."""
    members = await fleet.start("a", quick())
    await settle(members, "room")
    script = await run(
        """
        context = multiprocessing.get_context("fork")
        for number in range(10):
            one = context.Process(target=leave_at_once, args=(f"child{number}",))
            one.start()
            one.join()
        """,
        fleet,
    )
    assert await script.ended() == ("", 0)
    await hears(members[0], {f"child{number}": 1 for number in range(10)})


@pytest.mark.fault
async def test_a_child_that_outlives_its_killed_parent_does_not_stand_in_for_it(
    fleet: Fleet,
) -> None:
    """Though the child holds copies of its sockets, the parent is missed, and joins stay short."""
    members = await fleet.start("ab", quick(silence=60))  # It must not take silence to find out.
    await settle(members, "room")
    script = await run(
        """
        asyncio.run(visit("parent"))
        child = os.fork()
        if child == 0:
            signal.pause()
        print(child, flush=True)
        sys.stdin.read()
        """,
        fleet,
    )
    child = int(await script.line())
    try:
        await reach(members, 3, "room")
        script.process.kill()
        await script.process.wait()
        await reach(members, 2, "room")
        (new,) = await fleet.start("c", quick(join_timeout=0.25))
        join = await new.do("join", groups=["room"])
        assert join["slowest"] < 2 * 0.25 + 0.75
        await join_all(members, "other")
        last = await members[0].do("send", group="room", count=5)
        await new.do("hear", subject="room", senders={members[0].name: last})
    finally:
        os.kill(child, 9)
    await until(lambda: not Path(f"/proc/{child}").exists())
