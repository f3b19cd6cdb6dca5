"""
Channel layers in processes of their own: forked, ending, without a loop.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap

import pytest

LAYER = """
    import asyncio, logging, os, sys, threading
    from fairway.layers import InMemoryChannelLayer
    from fairway.layers.codec import Kind
    layer = InMemoryChannelLayer()
"""


def run(script: str, *arguments: str, begin: str = LAYER) -> subprocess.CompletedProcess[str]:
    """
    Run a script in a new interpreter, with a layer of one process in ``layer``.
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(begin) + textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": "."},
    )


def test_a_forked_child_has_a_layer_of_its_own() -> None:
    """
    As under a preloading server: parent and child send after the fork, each for itself.
    """
    done = run(
        """
        async def visit():
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            await layer.group_send("room", {"type": "hello"})
            return await layer.receive(channel)

        assert asyncio.run(visit()) == {"type": "hello"}
        parent = layer.hub.process
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        assert asyncio.run(visit()) == {"type": "hello"}
        if child == 0:
            assert layer.hub.process != parent
            assert len(layer.groups["room"]) == 1
            print("child", flush=True)
            sys.exit(0)
        _, status = os.waitpid(child, 0)
        assert layer.hub.process == parent
        assert len(layer.groups["room"]) == 2
        assert asyncio.run(visit()) == {"type": "hello"}
        print("parent", os.waitstatus_to_exitcode(status))
        """
    )
    assert (done.stdout.split(), done.stderr) == (["child", "parent", "0"], "")


def test_a_message_sent_last_thing_leaves_before_the_end() -> None:
    """
    As from manage.py shell -c or cron: nobody waits, and yet nothing is lost.
    """
    done = run(
        """
        from fairway.layers.brokers.local import LocalBroker
        published = []
        publish = LocalBroker.publish

        def note(self, subject, payload):
            published.append(subject)
            publish(self, subject, payload)
            if len(published) == 1000:
                print("all")

        LocalBroker.publish = note
        for number in range(1000):
            layer.submit("room", b"x", kind=Kind.TEXT)
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("all\n", "", 0)


def test_what_cannot_leave_before_the_end_is_said() -> None:
    """
    The end waits two seconds at most, and one line counts what was lost.
    """
    done = run(
        """
        from fairway.layers import owner
        from fairway.layers.brokers.local import LocalBroker
        owner.PARTING_SECONDS = 0.2
        LocalBroker.publish = lambda self, subject, payload: asyncio.sleep(60)
        for number in range(3):
            layer.submit("room", b"x", kind=Kind.TEXT)
        """
    )
    assert done.returncode == 0
    assert done.stderr == (
        "3 calls of the channel layer were lost at the end of the process [fairway.R402]\n"
    )


def test_sending_while_the_interpreter_ends_does_not_hang() -> None:
    """
    Another atexit handler that sends gets an answer, whichever.
    """
    done = run(
        """
        import atexit
        from fairway.exceptions import ChannelLayerUnavailable

        def late():
            try:
                layer.submit("room", b"x", kind=Kind.TEXT).result(1)
            except (ChannelLayerUnavailable, TimeoutError):
                pass
            print("answered")

        threading._register_atexit(late)
        atexit.register(late)
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("answered\nanswered\n", "", 0)


def test_what_a_handler_at_the_end_sends_first_of_all_leaves_too() -> None:
    """
    A project's own atexit handler may be the first in its process to send anything.
    """
    done = run(
        """
        import atexit, django, fairway
        from django.conf import settings
        settings.CHANNEL_LAYERS = {
            "default": {"BACKEND": "fairway.layers.InMemoryChannelLayer"}
        }
        django.setup()

        def late():
            from fairway.layers.brokers.local import LocalBroker
            LocalBroker.publish = lambda self, subject, payload: print(subject)
            fairway.broadcast("room", "x")

        atexit.register(late)
        """,
        begin="",
    )
    assert (done.stdout, done.stderr, done.returncode) == ("group:room\n", "", 0)


@pytest.mark.parametrize("used", [True, False])
def test_what_the_last_handler_sends_leaves_too(used: bool) -> None:
    """
    A handler that runs after all of Fairway's waits itself, whether Fairway was in use or not.
    """
    done = run(
        """
        import atexit, sys, threading, time

        def late():
            from fairway.layers import InMemoryChannelLayer, owner
            from fairway.layers.brokers.local import LocalBroker
            from fairway.layers.codec import Kind

            def publish(self, subject, payload):
                time.sleep(0.1)
                print(subject)

            LocalBroker.publish = publish
            assert owner._is_parting
            InMemoryChannelLayer().submit("room", b"x", kind=Kind.TEXT)

        atexit.register(late)
        if sys.argv[1:]:
            from fairway.layers import owner
        """,
        *["used"] * used,
        begin="",
    )
    assert (done.stdout, done.stderr, done.returncode) == ("group:room\n", "", 0)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_broker_is_found_by_its_name_at_the_end(loop: str) -> None:
    """
    A one-line command that publishes last thing connects to a host by its name, though the
    executors of asyncio refuse work by then.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        port = server.getsockname()[1]
        line = (
            "import uvloop; uvloop.install(); " if loop == "uvloop" else ""
        ) + "from tests.integration.layers.named_broker import publish; publish({}, 'hello')"
        script = "-Wignore::DeprecationWarning"  # uvloop.install() is what users still write.
        process = subprocess.Popen(
            [sys.executable, script, "-c", line.format(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with process:
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as received:
                connection.settimeout(10)
                assert received.read() == b"ending group:room hello"
            output, _ = process.communicate(timeout=10)
    assert (output, process.returncode) == (f"{loop}\n", 0)


def test_importing_the_package_starts_nothing() -> None:
    """
    Neither a thread nor a loop is made before the first message.
    """
    done = run(
        """
        assert threading.active_count() == 1
        assert layer.hub.owner.loop is None
        """
    )
    assert (done.stderr, done.returncode) == ("", 0)
