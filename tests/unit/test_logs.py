"""
Where Fairway's log lines go when a project says nothing, and when it does.
"""

from __future__ import annotations

import io
import logging
import logging.config
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from fairway.consumers import AsyncConsumer, WebsocketConsumer
from fairway.faults import Fault
from fairway.logs import StderrHandler, configure_logging, show_warnings

NAMED: dict[str, Any] = {"version": 1, "loggers": {"fairway.server": {"level": "ERROR"}}}


@pytest.fixture(autouse=True)
def loggers() -> Iterator[logging.Logger]:
    """
    Fairway's loggers as in a fresh process, put back afterwards; the root without handlers.
    """
    ours, root = logging.getLogger("fairway"), logging.getLogger()
    before = (ours.handlers[:], ours.level, root.handlers[:])
    ours.handlers, root.handlers = [], []
    ours.setLevel(logging.NOTSET)
    yield ours
    ours.handlers, root.handlers = before[0], before[2]
    ours.setLevel(before[1])


def own(logger: logging.Logger) -> int:
    """
    Count Fairway's own handlers.
    """
    return sum(isinstance(handler, StderrHandler) for handler in logger.handlers)


def test_one_handler_writes_to_stderr(
    loggers: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """However often it is called, each line of INFO and above appears once."""
    configure_logging()
    configure_logging({})
    assert own(loggers) == 1
    logging.getLogger("fairway.server").info("a line")
    logging.getLogger("fairway.layers").debug("not this one")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("INFO fairway.server: a line\n")
    assert err.count("\n") == 1


def test_a_project_that_names_a_logger_has_its_way(loggers: logging.Logger) -> None:
    """LOGGING with a logger of Fairway's leaves no handler of ours, not even an older one."""
    configure_logging()
    configure_logging(NAMED)
    assert own(loggers) == 0


@pytest.mark.parametrize("name", ["django", "fairwayish"])
def test_other_loggers_do_not_count(loggers: logging.Logger, name: str) -> None:
    """LOGGING that names others says nothing about us."""
    configure_logging({"loggers": {name: {}}})
    assert own(loggers) == 1


def test_lines_are_not_doubled_by_the_root_logger(loggers: logging.Logger) -> None:
    """A root logger that writes to the terminal shows our lines already."""
    logging.getLogger().addHandler(logging.StreamHandler(sys.stderr))
    configure_logging()
    assert own(loggers) == 0


def test_a_root_logger_with_a_file_does_not_count(loggers: logging.Logger) -> None:
    """Lines that go only into a file are shown on stderr as well."""
    logging.getLogger().addHandler(logging.StreamHandler(io.StringIO()))
    configure_logging()
    assert own(loggers) == 1


def test_a_level_of_the_project_stays(loggers: logging.Logger) -> None:
    """A level that somebody set is kept."""
    loggers.setLevel(logging.ERROR)
    configure_logging()
    assert loggers.level == logging.ERROR


@pytest.fixture
def loggers_as_they_were() -> Iterator[None]:
    """
    Gives all loggers of the process back what they say.
    """
    made = [each for each in logging.root.manager.loggerDict.values() if hasattr(each, "disabled")]
    before = [each.disabled for each in made]
    yield
    for each, disabled in zip(made, before, strict=True):
        each.disabled = disabled


@pytest.mark.usefixtures("loggers_as_they_were")
def test_silenced_loggers_speak_again() -> None:
    """disable_existing_loggers, dictConfig's default, does not silence what was made before."""
    logger = logging.getLogger("fairway.server")
    logging.config.dictConfig({"version": 1})
    assert logger.disabled
    configure_logging()
    assert not logger.disabled


async def publish() -> None:
    """Something that has to be awaited."""


class TestWarnings:
    """
    Warnings that tell of a fault become lines of the log.
    """

    @pytest.fixture(autouse=True)
    def no_connections(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Leaves connections that other tests opened alone.
        """
        monkeypatch.setattr("fairway.db.close_old_connections", lambda **signal: None)

    @pytest.fixture(autouse=True)
    def shown(self, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
        """As in a process that serves."""
        with warnings.catch_warnings(record=False):
            warnings.showwarning = lambda *args: self.others.append(str(args[0]))
            self.others: list[str] = []
            # Called twice, as by the start and by a part of it.
            show_warnings()
            show_warnings()
            with caplog.at_level(logging.INFO, "fairway"):
                yield

    def test_forgotten_in_ordinary_code(self, caplog: pytest.LogCaptureFixture) -> None:
        """A coroutine thrown away is one line with place, fix and id."""
        publish()  # type: ignore[unused-coroutine]
        (line,) = caplog.messages
        assert line.startswith(
            "publish() was never awaited, so nothing was done: write async_to_sync(publish)(...) "
            f"(TestWarnings.test_forgotten_in_ordinary_code(), {__file__}, line "
        )
        assert line.endswith(f"[{Fault.NEVER_AWAITED}]")

    @pytest.mark.one_loop
    async def test_forgotten_in_a_coroutine(self, caplog: pytest.LogCaptureFixture) -> None:
        """There await is what is missing."""
        publish()  # type: ignore[unused-coroutine]
        assert "write await publish(...) (" in caplog.messages[0]

    @pytest.mark.one_loop
    async def test_forgotten_object(self, caplog: pytest.LogCaptureFixture) -> None:
        """What is called without a name of its own is shown as it is written."""
        waits = sync_to_async(print)
        waits()  # type: ignore[unused-coroutine]
        assert ": write await in front of waits() (" in caplog.messages[0]

    def test_forgotten_in_an_ordinary_method(self, caplog: pytest.LogCaptureFixture) -> None:
        """A method of an asynchronous consumer has to be a coroutine itself."""

        class Chat(AsyncConsumer):
            def connect(self) -> None:
                publish()  # type: ignore[unused-coroutine]

        Chat().connect()
        assert ": write async def connect, and await publish(...) in it (" in caplog.messages[0]

    @pytest.mark.one_loop
    async def test_held_until_a_handler_ended(self, caplog: pytest.LogCaptureFixture) -> None:
        """What Fairway's own code runs as it dies, is no place, and no advice about consumers."""

        class Chat(AsyncConsumer):
            async def chat_message(self, event: Any) -> None:
                lost = publish()  # noqa: F841 - on purpose

        await Chat().dispatch({"type": "chat.message"})
        assert caplog.messages[0].endswith(
            f": write await publish(...) (where is not known) [{Fault.NEVER_AWAITED}]"
        )

    @pytest.mark.one_loop
    async def test_handler_of_an_ordinary_consumer(self, caplog: pytest.LogCaptureFixture) -> None:
        """A consumer that is not asynchronous calls handlers that are not."""

        class Chat(WebsocketConsumer):
            async def connect(self) -> None:  # type: ignore[override] # on purpose
                """Nothing, but as a coroutine."""

            async def chat_message(self, event: Any) -> None:
                """As above."""

        Chat().websocket_connect({"type": "websocket.connect"})
        await Chat().dispatch({"type": "chat.message"})
        for line, name in zip(caplog.messages, ("connect", "chat_message"), strict=True):
            assert f": write def {name} (it belongs to a consumer that is not" in line

    def test_found_late(self, caplog: pytest.LogCaptureFixture) -> None:
        """What dies long after it was forgotten has no place."""
        text = "coroutine 'publish' was never awaited"
        warnings.warn_explicit(text, RuntimeWarning, "sys", 1)
        assert "write await publish(...) (where is not known)" in caplog.messages[0]

    def test_said_once_per_place(self, caplog: pytest.LogCaptureFixture) -> None:
        """A loop does not flood the log."""
        for _ in range(3):
            publish()  # type: ignore[unused-coroutine]
        assert len(caplog.messages) == 1

    def test_seen_in_spite_of_filters(self, caplog: pytest.LogCaptureFixture) -> None:
        """What is lost is said even where warnings are ignored."""
        warnings.simplefilter("ignore")
        show_warnings()
        publish()  # type: ignore[unused-coroutine]
        assert len(caplog.messages) == 1

    def test_fairways_own(self, caplog: pytest.LogCaptureFixture) -> None:
        """A warning with an id is a line, though deprecations are not shown by default."""
        warnings.warn("route 'ws/': old [fairway.R207]", DeprecationWarning, stacklevel=1)
        assert caplog.messages == ["route 'ws/': old [fairway.R207]"]

    def test_others_go_their_way(self, caplog: pytest.LogCaptureFixture) -> None:
        """What is no fault is left to what was there before."""
        warnings.simplefilter("always")
        warnings.warn("beware", UserWarning, stacklevel=1)
        assert self.others == ["beware"]
        assert caplog.messages == []
