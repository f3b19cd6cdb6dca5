"""
Where views and middleware of either kind run, what they share, and what a leaving client ends.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.local import Local
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django import VERSION
from django.conf.urls.i18n import i18n_patterns
from django.core import mail
from django.core.cache import cache
from django.db import connection, connections, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.template.response import SimpleTemplateResponse
from django.urls import include, path
from django.utils import timezone, translation
from django.utils.decorators import sync_and_async_middleware, sync_only_middleware
from django.views import View
from django.views.decorators.cache import never_cache

from fairway import AsyncWebsocketConsumer, metrics
from tests.integration.pages.conftest import MIDDLEWARE, Serve
from tests.protocol import harness
from tests.protocol.harness import until

MODES = ["sync", "async"]
GetResponse = Callable[[HttpRequest], Any]

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
local = Local()


def where(request: HttpRequest) -> HttpResponse:
    """
    Say which thread this is.
    """
    return HttpResponse(threading.current_thread().name)


async def awhere(request: HttpRequest) -> HttpResponse:
    """
    Say the same from a coroutine.
    """
    return HttpResponse(threading.current_thread().name)


class AsyncView(View):
    """
    A view of a class.
    """

    async def get(self, request: HttpRequest) -> HttpResponse:
        """
        Say the same.
        """
        return await awhere(request)


class Greeter(AsyncWebsocketConsumer):
    """
    A consumer, which is a coroutine function too.
    """


def elsewhere(get_response: GetResponse) -> GetResponse:
    """
    Middleware that gives a request other routes.
    """

    def middleware(request: HttpRequest) -> Any:
        class Other:
            urlpatterns = [path("", awhere)]  # noqa: RUF012 - as a module has it

        request.urlconf = Other  # type: ignore[assignment] # a module is an object
        return get_response(request)

    return middleware


@sync_and_async_middleware
def both(get_response: GetResponse) -> GetResponse:
    """
    Middleware for either kind, that leaves something to be seen by views.
    """
    if iscoroutinefunction(get_response):

        async def amiddleware(request: HttpRequest) -> Any:
            variable.set("set")
            local.value = "set"
            response = await get_response(request)
            response["X-Both"] = "async"
            return response

        return amiddleware

    def middleware(request: HttpRequest) -> Any:
        variable.set("set")
        local.value = "set"
        response = get_response(request)
        response["X-Both"] = "sync"
        return response

    return middleware


@sync_only_middleware
def sync_only(get_response: GetResponse) -> GetResponse:
    """
    Middleware that knows no coroutines.
    """

    def middleware(request: HttpRequest) -> Any:
        response = get_response(request)
        response["X-Sync"] = threading.current_thread().name
        return response

    return middleware


def async_only(get_response: GetResponse) -> Any:
    """
    Middleware that knows nothing else.
    """

    async def middleware(request: HttpRequest) -> Any:
        response = await get_response(request)
        response["X-Async"] = threading.current_thread().name
        return response

    return middleware


async_only.sync_capable = False  # type: ignore[attr-defined] # as Django has it
async_only.async_capable = True  # type: ignore[attr-defined] # as above

HERE = __name__


@pytest.mark.one_loop
class TestChoice:
    """
    Which kind of handler serves which view.
    """

    VIEWS = {  # noqa: RUF012 - only read
        "sync/": where,
        "async/": awhere,
        "class/": AsyncView.as_view(),
        "cached/": never_cache(awhere),
        "deep/": include([path("<int:n>/", lambda r, n: where(r)), path("a/", awhere)]),
        "socket/": Greeter.as_asgi(),
    }

    @pytest.mark.parametrize(
        ("route", "asynchronous"),
        [
            ("/sync/", False),
            ("/async/", True),
            ("/class/", True),
            ("/cached/", True),
            ("/deep/1/", False),
            ("/deep/a/", True),
        ],
    )
    async def test_auto_goes_by_the_view(
        self, serve: Serve, route: str, asynchronous: bool
    ) -> None:
        """A view runs as what it is, with middleware of its kind, and in one thread or none."""
        site = await serve(self.VIEWS, MIDDLEWARE=[f"{HERE}.both"])
        answer = await site.get(route)
        assert (b"MainThread" in answer.body) == asynchronous
        assert answer.headers["X-Both"] == ("async" if asynchronous else "sync")

    @pytest.mark.parametrize("mode", ["sync", "async", "auto"])
    async def test_every_mode_serves_every_view(self, serve: Serve, mode: str) -> None:
        """What is not there is 404, and a socket's path 426, in each mode."""
        site = await serve(self.VIEWS, PAGES=mode, MIDDLEWARE=[f"{HERE}.both"])
        for route in ("/sync/", "/async/", "/class/", "/deep/1/"):
            answer = await site.get(route)
            assert answer.status == 200
            assert answer.headers["X-Both"] == mode or mode == "auto"
        assert (await site.get("/none/")).status == 404
        assert (await site.get("/socket/")).status == 426

    async def test_middleware_is_loaded_for_what_there_is(self, serve: Serve) -> None:
        """A project without asynchronous views loads its middleware once."""
        made: list[bool] = []

        class Counting:
            sync_capable = async_capable = True

            def __init__(self, get_response: Any) -> None:
                made.append(iscoroutinefunction(get_response))
                self.get_response = get_response

            def __call__(self, request: HttpRequest) -> Any:
                return self.get_response(request)

        globals()["Counting"] = Counting
        await serve({"": where, "socket/": Greeter.as_asgi()}, MIDDLEWARE=[f"{HERE}.Counting"])
        assert made == [False]
        await serve({"": where, "a/": awhere}, MIDDLEWARE=[f"{HERE}.Counting"])
        assert sorted(made[1:]) == [False, True]

    async def test_asynchronous_middleware_takes_everything_along(self, serve: Serve) -> None:
        """Middleware without a synchronous form makes all pages asynchronous."""
        middleware = [f"{HERE}.async_only", f"{HERE}.sync_only"]
        site = await serve(self.VIEWS, MIDDLEWARE=middleware)
        answer = await site.get("/sync/")
        assert "page" in answer.body.decode()
        assert "page" in answer.headers["X-Sync"]
        assert answer.headers["X-Async"] == "MainThread"

    @pytest.mark.parametrize("mode", ["sync", "async", "auto"])
    async def test_middleware_of_all_kinds(self, serve: Serve, mode: str) -> None:
        """Any mixture works in any mode."""
        middleware = [f"{HERE}.{name}" for name in ("sync_only", "async_only", "both", "sync_only")]
        site = await serve(self.VIEWS, PAGES=mode, MIDDLEWARE=middleware)
        for route in ("/sync/", "/async/"):
            answer = await site.get(route)
            assert answer.status == 200
            assert {"X-Sync", "X-Async", "X-Both"} <= set(answer.headers)

    async def test_a_wrong_guess_is_only_slower(self, serve: Serve) -> None:
        """A view that middleware leads to is served, though another was looked up."""
        site = await serve({"": where}, MIDDLEWARE=[f"{HERE}.elsewhere"], page_threads=1)
        assert (await site.get("/")).body == b"MainThread"

    async def test_routes_of_each_language(self, serve: Serve) -> None:
        """Behind i18n_patterns views are found by the language in the path."""
        routes = i18n_patterns(path("async/", awhere), path("sync/", where))
        locale = ["django.middleware.locale.LocaleMiddleware", f"{HERE}.both"]
        site = await serve(routes, MIDDLEWARE=locale, LANGUAGES=[("en", "E"), ("de", "D")])
        for language in ("en", "de"):
            answer = await site.get(f"/{language}/async/")
            assert (answer.body, answer.headers["X-Both"]) == (b"MainThread", "async")
            assert (await site.get(f"/{language}/sync/")).headers["X-Both"] == "sync"

    async def test_a_broken_url_configuration_is_djangos_to_report(self, serve: Serve) -> None:
        """Whatever fails while a view is looked up fails again where Django says so."""
        site = await serve({"": awhere})
        from django.conf import settings
        from django.urls import clear_url_caches

        settings.ROOT_URLCONF = "no.such.module"
        clear_url_caches()
        peer = await site.peer()
        await peer.send(harness.request("/"))
        assert (await peer.response()).status == 500


@pytest.mark.one_loop
class TestSharing:
    """
    What one request shares, and what requests do not.
    """

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("streamed", [False, True])
    async def test_context_reaches_the_view(self, serve: Serve, mode: str, streamed: bool) -> None:
        """Context variables and Locals set by middleware are seen by views and their iterators."""

        def seen() -> str:
            return f"{variable.get()} {getattr(local, 'value', 'unset')}"

        def view(request: HttpRequest) -> Any:
            return (
                StreamingHttpResponse(seen() for _ in range(2))
                if streamed
                else HttpResponse(seen() * 2)
            )

        async def aview(request: HttpRequest) -> Any:
            async def parts() -> Any:
                for _ in range(2):
                    yield seen()

            return StreamingHttpResponse(parts()) if streamed else HttpResponse(seen() * 2)

        def crossed(request: HttpRequest) -> Any:
            async def parts() -> Any:
                for _ in range(2):
                    yield seen()

            return StreamingHttpResponse(parts())

        views = {"sync/": view, "async/": aview, "crossed/": crossed}
        site = await serve(views, PAGES=mode, MIDDLEWARE=[f"{HERE}.both"])
        for route in ("/sync/", "/async/", "/crossed/"):
            assert (await site.get(route)).body == b"set setset set", route
        assert variable.get() == "unset"

    @pytest.mark.parametrize("mode", MODES)
    async def test_nothing_is_left_for_the_next(self, serve: Serve, mode: str) -> None:
        """On one thread and one connection language, time zone and variables are each request's."""

        def look(request: HttpRequest) -> HttpResponse:
            seen = translation.get_language(), timezone.get_current_timezone_name(), variable.get()
            if "set" in request.GET:
                translation.activate("de")
                timezone.activate("Asia/Tokyo")
                variable.set("set")
            return HttpResponse(" ".join(map(str, seen)))

        site = await serve({"": look}, PAGES=mode, page_threads=1)
        peer = await site.peer()
        before = (await peer.get("/?set=1")).body
        assert (await peer.get("/?set=1")).body == before
        assert (await peer.get("/")).body == before

    @pytest.mark.parametrize("mode", MODES)
    async def test_crossing_over_on_one_thread(self, serve: Serve, mode: str) -> None:
        """async_to_sync and sync_to_async within each other need no second thread."""
        loop = asyncio.get_running_loop()

        async def inner() -> list[Any]:
            assert asyncio.get_running_loop() is loop
            return [await sync_to_async(threading.get_ident)()]

        def view(request: HttpRequest) -> HttpResponse:
            return HttpResponse(str(async_to_sync(inner)() == [threading.get_ident()]))

        async def aview(request: HttpRequest) -> HttpResponse:
            return await sync_to_async(view)(request)

        site = await serve({"sync/": view, "async/": aview}, PAGES=mode, page_threads=1)
        assert (await site.get("/sync/")).body == b"True"
        assert (await site.get("/async/")).body == b"True"

    @pytest.mark.parametrize("mode", MODES)
    async def test_signals(self, serve: Serve, mode: str) -> None:
        """Each request is started with its scope and finished once, by one sender."""
        site = await serve({"": where}, PAGES=mode)
        await site.get("/?a=1")
        await site.finished.count(1)
        ((sender, scope),) = site.finished.started
        assert sender is site.finished.finished[0]
        assert scope["query_string"] == b"a=1"
        assert "page" in site.finished.threads[0]


@pytest.mark.one_loop
@pytest.mark.django_db(transaction=True)
class TestDjango:
    """
    The parts of Django that surround a view.
    """

    @pytest.mark.parametrize("mode", MODES)
    async def test_sessions_users_messages_and_csrf(self, serve: Serve, mode: str) -> None:
        """Startproject's middleware does its work."""
        from django.contrib import messages
        from django.middleware.csrf import get_token

        def view(request: HttpRequest) -> HttpResponse:
            request.session["n"] = request.session.get("n", 0) + 1
            messages.info(request, "hello")
            token = get_token(request)
            return JsonResponse(
                {"n": request.session["n"], "user": str(request.user), "token": token}
            )

        site = await serve({"": view}, PAGES=mode, MIDDLEWARE=MIDDLEWARE)
        peer = await site.peer()
        first = await peer.get("/")
        assert b'"n": 1, "user": "AnonymousUser"' in first.body
        assert first.headers["X-Frame-Options"] == "DENY"
        cookies = "; ".join(
            part.strip().split(";")[0]
            for part in first.headers["Set-Cookie"].split(", ")
            if "=" in part
        )
        assert b'"n": 2' in (await peer.get("/", f"Cookie: {cookies}")).body
        assert (await site.post("/", b"a=1")).status == 403

    @pytest.mark.parametrize("mode", MODES)
    async def test_middleware_that_changes_responses(self, serve: Serve, mode: str) -> None:
        """GZip, conditional GET and the login rule work on plain and streamed responses."""
        views = {
            "plain/": lambda r: HttpResponse("x" * 1000),
            "stream/": lambda r: StreamingHttpResponse("x" * 1000 for _ in range(2)),
        }
        middleware = [
            "django.middleware.gzip.GZipMiddleware",
            "django.middleware.http.ConditionalGetMiddleware",
        ]
        site = await serve(views, PAGES=mode, MIDDLEWARE=middleware)
        plain = await site.get("/plain/", "Accept-Encoding: gzip")
        assert plain.headers["Content-Encoding"] == "gzip"
        again = await site.get(
            "/plain/", "Accept-Encoding: gzip", f"If-None-Match: {plain.headers['ETag']}"
        )
        assert again.status == 304
        assert (await site.get("/stream/", "Accept-Encoding: gzip")).body[:2] == b"\x1f\x8b"

    async def test_the_login_rule(self, serve: Serve) -> None:
        """LoginRequiredMiddleware sends strangers to the login page."""
        middleware = [*MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
        site = await serve({"": where, "a/": awhere}, MIDDLEWARE=middleware, LOGIN_URL="/login/")
        for route in ("/", "/a/"):
            answer = await site.get(route)
            assert (answer.status, answer.headers["Location"]) == (302, f"/login/?next={route}")

    @pytest.mark.parametrize("mode", MODES)
    async def test_atomic_requests(self, serve: Serve, mode: str) -> None:
        """A view that fails has changed nothing; an asynchronous one is refused as by Django."""
        from django.contrib.auth.models import User

        def view(request: HttpRequest) -> HttpResponse:
            assert connection.in_atomic_block
            User.objects.create(username=request.GET["name"])
            if "fail" in request.GET:
                raise ValueError("no")
            return HttpResponse("made")

        site = await serve({"": view, "a/": awhere}, PAGES=mode)
        connections.settings["default"]["ATOMIC_REQUESTS"] = True
        try:
            assert (await site.get("/?name=a&fail=1")).status == 500
            assert (await site.get("/?name=b")).status == 200
            assert (await site.get("/a/")).status == 500
        finally:
            connections.settings["default"]["ATOMIC_REQUESTS"] = False
        names = await sync_to_async(lambda: [user.username for user in User.objects.all()])()
        assert names == ["b"]

    @pytest.mark.parametrize("mode", MODES)
    async def test_connections_are_cleaned_up(self, serve: Serve, mode: str) -> None:
        """With CONN_MAX_AGE=0 no thread of pages keeps a connection after its request."""
        opened: list[Any] = []

        def view(request: HttpRequest) -> HttpResponse:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            opened.append(connections["default"])
            return HttpResponse("ok")

        async def aview(request: HttpRequest) -> HttpResponse:
            await sync_to_async(view)(request)
            return HttpResponse("ok")

        site = await serve({"": view, "a/": aview}, PAGES=mode)
        peer = await site.peer()
        for route in ("/", "/a/", "/"):
            assert (await peer.get(route)).status == 200
        await site.finished.count(3)
        await until(lambda: all(each.connection is None for each in opened))

    @pytest.mark.parametrize("mode", MODES)
    async def test_commit_hooks_run(self, serve: Serve, mode: str) -> None:
        """on_commit callbacks of a view run before its answer."""
        ran: list[str] = []

        def view(request: HttpRequest) -> HttpResponse:
            with transaction.atomic():
                transaction.on_commit(lambda: ran.append("hook"))
            return HttpResponse("ok")

        site = await serve({"": view}, PAGES=mode)
        await site.get("/")
        assert ran == ["hook"]

    @pytest.mark.parametrize("mode", MODES)
    async def test_deferred_rendering(self, serve: Serve, mode: str) -> None:
        """Template responses are rendered after template middleware."""

        class Rendered(SimpleTemplateResponse):
            @property
            def rendered_content(self) -> str:
                return f"rendered in {threading.current_thread().name}"

        site = await serve({"": lambda r: Rendered("none.html")}, PAGES=mode)
        assert b"rendered in fairway-page" in (await site.get("/")).body

    @pytest.mark.parametrize("mode", MODES)
    async def test_the_cache(self, serve: Serve, mode: str) -> None:
        """The cache framework's asynchronous and synchronous halves work."""

        async def aview(request: HttpRequest) -> HttpResponse:
            await cache.aset("k", "v")
            return HttpResponse(await cache.aget("k"))

        site = await serve({"": aview}, PAGES=mode)
        assert (await site.get("/")).body == b"v"


def failing(request: HttpRequest) -> HttpResponse:
    """
    Raise.
    """
    raise ValueError("the view failed")


async def afailing(request: HttpRequest) -> HttpResponse:
    """
    Raise on the loop.
    """
    raise ValueError("the view failed")


def worse(request: HttpRequest) -> HttpResponse:
    """
    A handler500 that fails too.
    """
    raise ValueError("so did its handler")


@pytest.mark.one_loop
class TestFailures:
    """
    Views and middleware that raise.
    """

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("view", [failing, afailing])
    async def test_a_failing_view(
        self, serve: Serve, mode: str, view: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is a 500, logged once by django.request with its traceback."""
        site = await serve({"": view}, PAGES=mode)
        peer = await site.peer()
        assert (await peer.get("/")).status == 500
        assert (await peer.get("/none/")).status == 404
        await site.finished.count(2)
        errors = [each for each in caplog.records if each.levelno == logging.ERROR]
        assert [each.name for each in errors] == ["django.request"]
        assert errors[0].exc_info

    @pytest.mark.parametrize("mode", MODES)
    async def test_the_page_for_developers(self, serve: Serve, mode: str) -> None:
        """With DEBUG the traceback is in the page."""
        site = await serve({"": failing}, PAGES=mode, DEBUG=True)
        answer = await site.get("/")
        assert answer.status == 500
        assert b"the view failed" in answer.body
        assert b"Request Method" in answer.body

    @pytest.mark.filterwarnings("ignore:.*settings.MAILERS:DeprecationWarning")
    @pytest.mark.filterwarnings("ignore:.*settings.MAILERS:PendingDeprecationWarning")
    @pytest.mark.parametrize("mode", MODES)
    async def test_mail_to_admins(self, serve: Serve, mode: str) -> None:
        """ADMINS get a mail by Django's own logging handler."""
        # Names beside addresses are no longer asked for.
        admins: list[Any] = ["a@example.com"] if VERSION >= (6,) else [("A", "a@example.com")]
        site = await serve({"": failing}, PAGES=mode, ADMINS=admins)
        await site.get("/")
        assert [message.to for message in mail.outbox] == [["a@example.com"]]
        assert "the view failed" in mail.outbox[0].body

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
    async def test_what_would_end_a_process(
        self, serve: Serve, mode: str, error: type[BaseException], caplog: pytest.LogCaptureFixture
    ) -> None:
        """sys.exit() in a view is a 500, and the server and the connection go on."""

        def view(request: HttpRequest) -> HttpResponse:
            raise error

        site = await serve({"": view, "ok/": where}, PAGES=mode)
        peer = await site.peer()
        assert (await peer.get("/")).status == 500
        assert (await peer.get("/ok/")).status == 200
        await site.finished.count(2)
        assert caplog.text.count("the application raised") == 1

    @pytest.mark.parametrize("mode", MODES)
    async def test_a_handler_that_fails_too(
        self, serve: Serve, mode: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is a 500, and the request is finished once."""
        site = await serve({"": failing}, PAGES=mode)
        from django.urls import get_resolver

        monkeypatch.setattr(get_resolver().urlconf_module, "handler500", worse, raising=False)
        assert (await site.get("/")).status == 500
        await site.finished.count(1)


class TestLeaving:
    """
    Clients that leave before their answer.
    """

    @pytest.mark.parametrize("leave", ["close", "reset"])
    @pytest.mark.parametrize("absorbing", [False, True])
    async def test_an_asynchronous_view_is_cancelled(
        self, serve: Serve, leave: str, absorbing: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A view learns of it at once, however the client leaves; nothing is logged."""
        events: list[str] = []

        async def view(request: HttpRequest) -> HttpResponse:
            events.append("began")
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                events.append("cancelled")
                if not absorbing:
                    raise
            return HttpResponse("nobody reads this")

        site = await serve({"": view})
        peer = await site.peer()
        await peer.send(harness.request("/"))
        await until(lambda: events)
        getattr(peer, leave)()
        await until(lambda: len(events) == 2)
        await site.finished.count(1)
        await until(lambda: not site.served.worker.late)
        assert events == ["began", "cancelled"]
        assert harness.warnings(caplog) == []

    async def test_a_synchronous_view_runs_to_its_end(
        self, serve: Serve, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Its answer is thrown away, and its request finished."""
        go_on = threading.Event()
        ran: list[str] = []

        def view(request: HttpRequest) -> HttpResponse:
            ran.append("began")
            go_on.wait(5)
            ran.append("ended")
            return HttpResponse("nobody reads this")

        site = await serve({"": view})
        peer = await site.peer()
        await peer.send(harness.request("/"))
        await until(lambda: ran)
        peer.reset()
        await until(lambda: not site.served.worker.connections)
        go_on.set()
        await site.finished.count(1)
        assert ran == ["began", "ended"]
        assert harness.warnings(caplog) == []

    async def test_a_client_that_only_stops_sending(self, serve: Serve) -> None:
        """A half-closed connection gets the answer of a synchronous view."""
        site = await serve({"": where})
        peer = await site.peer()
        await peer.send(harness.request("/"))
        peer.half_close()
        assert (await peer.response()).status == 200

    async def test_a_stuck_view_is_given_up(self, serve: Serve) -> None:
        """Its thread is replaced after the close time-out, and its late answer harms nobody."""
        go_on = threading.Event()
        before = metrics.threads_stuck.value

        def view(request: HttpRequest) -> Any:
            go_on.wait(10)
            return StreamingHttpResponse(["late"])

        site = await serve({"": view, "ok/": where}, page_threads=1, application_close_timeout=0.1)
        peer = await site.peer()
        await peer.send(harness.request("/"))
        await until(lambda: site.finished.started)
        peer.reset()
        assert (await site.get("/ok/")).status == 200
        assert metrics.threads_stuck.value == before + 1
        go_on.set()
        await site.finished.count(2)

    async def test_a_page_that_waits_for_a_thread_is_dropped(self, serve: Serve) -> None:
        """A request whose client has long left is not begun."""
        go_on = threading.Event()
        ran: list[str] = []

        def view(request: HttpRequest) -> HttpResponse:
            ran.append(request.GET["n"])
            go_on.wait(5)
            return HttpResponse("ok")

        site = await serve({"": view}, page_threads=1, application_close_timeout=0.05)
        first, second = await site.peer(), await site.peer()
        await first.send(harness.request("/?n=1"))
        await until(lambda: ran)
        await second.send(harness.request("/?n=2"))
        await until(lambda: len(site.served.worker.connections) == 2)
        await until(lambda: all(each.exchange for each in site.served.worker.connections))
        second.reset()
        await until(
            lambda: len(site.served.worker.connections) == 1 and not site.served.worker.late
        )
        go_on.set()
        assert (await first.response()).status == 200
        assert ran == ["1"]

    async def test_a_page_that_nobody_reads_any_more(self, serve: Serve) -> None:
        """When its turn comes a GET of a client that has left is passed over, a POST is not."""
        go_on = threading.Event()
        ran: list[str] = []

        def view(request: HttpRequest) -> HttpResponse:
            ran.append(f"{request.method} {request.GET['n']}")
            go_on.wait(5)
            return HttpResponse("ok")

        site = await serve({"": view}, page_threads=1)
        peers = [await site.peer() for _ in range(4)]
        queue = site.threads.pages._queue
        for number, (peer, method) in enumerate(
            zip(peers, ["GET", "GET", "POST", "GET"], strict=True)
        ):
            await peer.send(harness.request(f"/?n={number}", method=method))
            await until(lambda number=number: ran and len(queue) == number)  # type: ignore[misc] # nothing to infer
        for peer in peers[1:3]:
            peer.reset()
        await until(lambda: len(site.served.worker.connections) == 2)
        go_on.set()
        assert (await peers[0].response()).status == (await peers[3].response()).status == 200
        assert ran == ["GET 0", "POST 2", "GET 3"]
        await site.finished.count(3)

    async def test_pages_finish_before_a_restart(self, serve: Serve) -> None:
        """A server that drains lets asynchronous and synchronous views answer."""
        began: list[str] = []

        async def aview(request: HttpRequest) -> HttpResponse:
            began.append("async")
            await asyncio.sleep(0.1)
            return HttpResponse("done")

        def view(request: HttpRequest) -> HttpResponse:
            began.append("sync")
            time.sleep(0.1)
            return HttpResponse("done")

        site = await serve({"a/": aview, "": view})
        peers = [await site.peer(), await site.peer()]
        await peers[0].send(harness.request("/a/"))
        await peers[1].send(harness.request("/"))
        await until(lambda: len(began) == 2)
        drained = asyncio.ensure_future(site.served.worker.drain(2.0))
        for peer in peers:
            assert (await peer.response()).body == b"done"
            peer.close()
        await drained
