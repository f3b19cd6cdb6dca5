"""
Faults that show when a client comes: what it gets, what the log says, and that the hint helps.

One server has all faults at once, each in a place of its own; then every hint is applied as the log
has it, the server is started again, and each client does the same again.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.acceptance.management.test_commands import get
from tests.acceptance.project import Command
from tests.ux import sites
from tests.ux.sites import HELLO, Site, Talk, change, ids, log_lines

CONSUMERS = """

class PickyConsumer(ChatConsumer):
    async def receive_json(self, content):
        # what the client sent is looked at here
        await self.send_json({"message": content["message"]})


class TypoConsumer(ChatConsumer):
    async def receive_json(self, content):
        await self.channel_layer.group_send(self.room, {"type": "chat.mesage", **content})


class ForgetfulConsumer(fairway.JsonWebsocketConsumer):
    groups = ["forgetful"]

    def receive_json(self, content):
        self.channel_layer.group_send("forgetful", {"type": "chat.message", **content})

    def chat_message(self, event):
        self.send_json({"message": event["message"]})


class CountingConsumer(fairway.AsyncJsonWebsocketConsumer):
    async def receive_json(self, content):
        users = get_user_model().objects.count()
        await self.send_json({"message": content["message"], "users": users})
"""

ROUTES = """
    path("ws/picky/<slug:room>/", consumers.PickyConsumer.as_asgi()),
    path("ws/typo/<slug:room>/", consumers.TypoConsumer.as_asgi()),
    path("ws/forgetful/", consumers.ForgetfulConsumer.as_asgi()),
    path("ws/counting/", consumers.CountingConsumer.as_asgi()),
    path("ws/class/<slug:room>/", consumers.ChatConsumer),
    re_path(r"^ws/words/(?P<room>\\w+)/$", consumers.ChatConsumer.as_asgi()),
]
"""

CROWD = 5
CROWDED = ("missing trailing slash", "client sends no JSON", "foreign Origin")
"""
Faults that anybody may cause at any time.
"""

CHAT = Talk("/ws/chat/lobby/")


ACCESS = re.compile(r" (GET|WebSocket) /\S* \d{3}$")
"""
The line of one access, which runserver prints as Django's does.
"""


class Told(NamedTuple):
    """
    What came of a client's action.

    Attributes:
        answer: What the client got.
        lines: What the log got meanwhile, without the lines of accesses.
    """

    answer: Any
    lines: list[str]


class Case(NamedTuple):
    """
    A fault that a client meets.

    Attributes:
        talk: What the client does.
        answer: What it gets.
        fault: What the log names, None if all is well.
        fix: Applies the hint of a line to the project; None where that is not at fault.
        after: What the client gets after that.
    """

    talk: Talk
    answer: Any = HELLO
    fault: str | None = None
    fix: Callable[[Site, str], Talk | None] | None = None
    after: Any = HELLO


def add_slash(site: Site, line: str) -> Talk:
    """
    Use the path that was probably meant.
    """
    return Talk(re.findall(r"Did you mean '(.+)'\?", line)[0])


def widen_route(site: Site, line: str) -> None:
    """
    Write the converter that would take the value.
    """
    route, name, converter = re.findall(
        r"Route '(.+)' does not .* for '(\w+)'; (<.+>) would", line
    )[0]
    route = route.replace("\\\\", "\\")
    path = re.sub(rf"\(\?P<{name}>[^)]*\)", converter, route).strip("^$")
    text = site.urls.read_text()
    found = re.findall(rf're_path\(r"\^?{re.escape(route.strip("^"))}"', text)
    change(site.urls, found[0], f'path("{path}"')


def call_as_asgi(site: Site, line: str) -> None:
    """
    Write what the class lacks.
    """
    name, lacks = re.findall(r"write (\w+)(\.as_asgi\(\))", line)[0]
    change(site.urls, f"{name})", f"{name}{lacks})")


def raise_client_fault(site: Site, line: str) -> None:
    """
    Look before, and raise what tells the client.
    """
    name = re.findall(r"raise (fairway\.exceptions\.ClientFault\('.+?'\))", line)[0]
    text = f'if "message" not in content:\n            raise {name}'
    change(site.consumers, "# what the client sent is looked at here", text)
    change(site.consumers, "import fairway\n", "import fairway.exceptions\n")


def correct_type(site: Site, line: str) -> None:
    """
    Write the type that has a handler.
    """
    wrong, right = re.findall(r"message type (\S+): .* did you mean '(.+)'\?", line)[0]
    change(site.consumers, wrong, right)


def wait_for_it(site: Site, line: str) -> None:
    """
    Call the asynchronous function as the line says.
    """
    code = re.findall(r"write (async_to_sync\((.+?)\))\(\.\.\.\)", line)[0]
    number = int(re.findall(r"consumers\.py, line (\d+)", line)[0])
    # Other hints were applied since the line was printed.
    old = (sites.CONSUMERS + CONSUMERS).splitlines()[number - 1]
    change(site.consumers, old, old.replace(f"{code[1]}(", f"{code[0]}("))
    change(
        site.consumers, "import fairway", "from asgiref.sync import async_to_sync\nimport fairway"
    )


def await_twin(site: Site, line: str) -> None:
    """
    Use the asynchronous method that the line names.
    """
    code = re.findall(r"write (await .+?) in CountingConsumer\.receive_json\(\), ", line)[0]
    change(site.consumers, "get_user_model().objects.count()", code)


def add_to_settings(site: Site, line: str) -> None:
    """
    Add the line that the log prints.
    """
    site.configure(re.findall(r"If it is yours: (.+) \[fairway", line)[0])


CASES = {
    "no CHANNEL_LAYERS": Case(CHAT),
    "ASGI_APPLICATION missing": Case(CHAT),
    "missing trailing slash": Case(Talk("/ws/chat/lobby"), 404, "fairway.R201", add_slash),
    "a room that the route does not take": Case(
        Talk("/ws/words/my-room/"), 404, "fairway.R201", widen_route
    ),
    "a room of 120 characters, or with an accent": Case(Talk(f"/ws/chat/{'caf%C3%A9' * 30}/")),
    ".as_asgi() forgotten": Case(Talk("/ws/class/lobby/"), HELLO, "fairway.R207", call_as_asgi),
    "client sends no JSON": Case(
        Talk("/ws/chat/lobby/", "hello"), 1007, "fairway.R301", None, 1007
    ),
    "client sends a wrong key": Case(
        Talk("/ws/picky/lobby/", '{"text": "hello"}'),
        1011,
        "fairway.R304",
        raise_client_fault,
        4400,
    ),
    "typo in a message's type": Case(Talk("/ws/typo/lobby/"), None, "fairway.R303", correct_type),
    "async_to_sync forgotten": Case(Talk("/ws/forgetful/"), None, "fairway.R306", wait_for_it),
    "foreign Origin": Case(
        Talk("/ws/chat/lobby/", origin="http://other.example"),
        403,
        "fairway.R204",
        add_to_settings,
    ),
    "page host not in ALLOWED_HOSTS": Case(
        Talk("/ws/chat/lobby/", host="chat.example"), 403, "fairway.R205", add_to_settings
    ),
    "synchronous ORM in an asynchronous consumer": Case(
        Talk("/ws/counting/"),
        1011,
        "fairway.R305",
        await_twin,
        {"message": "hello", "users": 0},
    ),
}


class Flow:
    """
    All clients on one server with faults, and again after all hints were applied.

    Attributes:
        site: The project.
        before: What came of each case with its fault.
        after: As before, without.
        goes_on: What another client got right after each.
        crowds: What was logged while several clients did the same at once.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.before: dict[str, Told] = {}
        self.after: dict[str, Told] = {}
        self.goes_on: dict[str, Any] = {}
        self.crowds: dict[str, list[str]] = {}
        self.talks = {fault: case.talk for fault, case in CASES.items()}
        self.marks = 0

    async def run(self) -> None:
        """
        Go through it.
        """
        site = self.site
        site.consumers.write_text(site.consumers.read_text() + CONSUMERS)
        change(site.urls, "\n]\n", ROUTES)
        try:
            await self.meet(self.before)
            for fault, case in CASES.items():
                if case.fix is not None:
                    text = "\n".join(self.before[fault].lines)
                    self.talks[fault] = case.fix(site, text) or case.talk
            await self.meet(self.after)
        finally:
            await site.close()

    async def meet(self, told: dict[str, Told]) -> None:
        """
        Start the server, have each client come, and end it.
        """
        command = await self.site.manage("runserver", "0", "--noreload")
        started = await command.expect(r"Serving on http://([^/\s]+)/\n.*\n.*\n")
        early = log_lines(started.string[: started.end()])
        for fault, case in CASES.items():
            talk: Callable[[str], Any] = self.talks[fault]
            awaited = ""
            if told is self.before and case.answer is None:
                talk, awaited = self.silence(case.talk), rf".*\[{case.fault}\]\n"
            answer = await talk(started[1])
            told[fault] = Told(answer, await self.log(command, started[1], awaited))
            if told is self.before:
                self.goes_on[fault] = await CHAT(started[1])
                await self.log(command, started[1])
        if told is self.before:
            for fault in CROWDED:
                await asyncio.gather(*[CASES[fault].talk(started[1]) for _ in range(CROWD)])
                self.crowds[fault] = await self.log(command, started[1])
        # What concerns a route is said when it is read.
        told[".as_asgi() forgotten"].lines.extend(early)
        await command.stop()

    def silence(self, talk: Talk) -> Callable[[str], Any]:
        """
        Have a client wait for an answer in vain, while its socket stays.
        """

        async def wait(address: str) -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await talk(address)

        return wait

    async def log(self, command: Command, address: str, awaited: str = "") -> list[str]:
        """
        Give what was logged since the last time, and at least what is awaited, without accesses.
        """
        found = await command.expect(awaited)
        text = found.string[: found.end()]
        self.marks += 1
        assert (await get(address, f"/mark/{self.marks}/"))[0] == 200
        found = await command.expect(rf".* GET /mark/{self.marks}/ 200\n")
        lines = log_lines(text + found.string[: found.start()])
        return [line for line in lines if not ACCESS.search(line)]


@pytest.fixture(scope="module")
def flow(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Flow:
    """
    What all clients met.
    """
    folder = tmp_path_factory.mktemp("clients") / "site"
    flow = Flow(Site(Path(shutil.copytree(template, folder))))
    asyncio.run(flow.run())
    return flow


@pytest.mark.parametrize("fault", CASES)
def test_client(flow: Flow, fault: str) -> None:
    """
    The client is answered, the log says it in at most three lines with the id, and others go on.
    """
    told, case = flow.before[fault], CASES[fault]
    assert told.answer == case.answer
    assert len(told.lines) <= 3, told.lines
    assert ids(told.lines) == ({case.fault} if case.fault else set())
    assert flow.goes_on[fault] == HELLO


@pytest.mark.parametrize("fault", CASES)
def test_client_after_the_hint(flow: Flow, fault: str) -> None:
    """
    After the hint of the log, applied as it is, the same action succeeds, and the log is quiet.
    """
    told, case = flow.after[fault], CASES[fault]
    assert told.answer == case.after
    if case.after in (1007, 4400):
        assert len(told.lines) == 1
    else:
        assert told.lines == []


@pytest.mark.parametrize("fault", CROWDED)
def test_crowd(flow: Flow, fault: str) -> None:
    """
    Several clients at once are a line each, and never a traceback.
    """
    lines = flow.crowds[fault]
    assert len(lines) == CROWD
    assert ids(lines) == {CASES[fault].fault}
    assert not any("Traceback" in line for line in lines)
