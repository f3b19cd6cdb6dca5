"""
From a scope to an application: the routers projects write, and the one that reads urls.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import clear_url_caches, include, path, re_path, register_converter
from pytest_django import Settings

from fairway.exceptions import ClientFault, ConfigurationError, RouteNotFound
from fairway.routing import (
    ChannelNameRouter,
    ProtocolTypeRouter,
    UrlconfRouter,
    URLRouter,
    get_default_application,
    single_callable,
)

pytestmark = pytest.mark.one_loop

Scope = dict[str, Any]


async def receive() -> Any:
    """
    Routers never receive.
    """
    raise AssertionError


async def send(message: Any) -> None:
    """
    Nor send.
    """
    raise AssertionError


class Recording:
    """
    An application that answers with its name and keeps the scope it was called with.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.scope: Scope = {}

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> str:
        """
        Keep the scope.
        """
        self.scope = scope
        return self.name

    @property
    def route(self) -> Any:
        """
        What the last scope holds of the route.
        """
        return self.scope["url_route"]["args"], self.scope["url_route"]["kwargs"]


def Recorder(name: str) -> Any:  # noqa: N802 - stands where a class would
    """
    Make an application; typed so that path() takes it.
    """
    return Recording(name)


def Consumer(name: str) -> Any:  # noqa: N802 - as above
    """
    Make an application with the attribute by which urls.py knows a consumer from a view.
    """
    made: Any = Recording(name)
    made.consumer_class = object
    return made


async def call(router: Any, given: str, **scope: Any) -> Any:
    """
    Call a router for a WebSocket with this path.
    """
    return await router({"type": "websocket", "path": given, **scope}, receive, send)


def view(request: HttpRequest) -> HttpResponse:
    """
    A page, never to be called here.
    """
    raise AssertionError


class Even:
    """
    A converter of a project's own: even numbers.
    """

    regex = r"\d+"

    def to_python(self, value: str) -> int:
        """
        Refuse odd numbers.
        """
        if int(value) % 2:
            raise ValueError
        return int(value)

    def to_url(self, value: int) -> str:
        """
        Write a number.
        """
        return str(value)


register_converter(Even, "fairway_even")


class Urls:
    """
    A URL configuration, as a module would be.
    """

    urlpatterns: list[Any]


def urlconf(*patterns: Any) -> type[Urls]:
    """
    Make a URL configuration of its own.
    """
    return type("Urls", (Urls,), {"urlpatterns": list(patterns)})


@pytest.fixture(autouse=True)
def fresh_urls() -> Iterator[None]:
    """
    Leave no resolver behind.
    """
    yield
    clear_url_caches()


class TestProtocolTypeRouter:
    """
    Dispatch by type.
    """

    async def test_calls_the_application_of_the_type(self) -> None:
        """Each type of scope reaches its own application, and its result comes back."""
        router = ProtocolTypeRouter({"websocket": Recorder("ws"), "http": Recorder("http")})
        assert await call(router, "/") == "ws"
        assert await router({"type": "http"}, receive, send) == "http"

    async def test_names_an_unknown_type(self) -> None:
        """A type without an application is a ValueError that names it, as in Channels."""
        with pytest.raises(ValueError, match="No application configured for scope type 'aprs'"):
            await ProtocolTypeRouter({})({"type": "aprs"}, receive, send)

    def test_keeps_what_it_was_given(self) -> None:
        """Applications that are ready to be called stay the objects they were."""
        given = Recorder("ws")
        assert ProtocolTypeRouter({"websocket": given}).application_mapping["websocket"] is given


class TestChannelNameRouter:
    """
    Dispatch by channel.
    """

    async def test_calls_the_application_of_the_channel(self) -> None:
        """Each channel reaches its own application."""
        router = ChannelNameRouter({"thumbnails": Recorder("thumbnails")})
        assert await router({"channel": "thumbnails"}, receive, send) == "thumbnails"

    @pytest.mark.parametrize("scope", [{"type": "http"}, {"channel": "other"}])
    async def test_refuses_other_scopes(self, scope: Scope) -> None:
        """A scope without a channel, or with an unknown one, is a ValueError."""
        with pytest.raises(ValueError, match="channel"):
            await ChannelNameRouter({})(scope, receive, send)


class TestURLRouter:
    """
    Dispatch by path, through a list of routes.
    """

    @pytest.mark.parametrize(
        ("given", "name", "route"),
        [
            ("/", "root", ((), {})),
            ("/year/2012/", "year", ((), {"year": 2012})),
            ("/author/anne/", "author", ((), {"name": "anne"})),
            ("/posarg/123/", "posarg", (("123",), {})),
            ("/defaults/", "defaults", ((), {"colour": "red"})),
            ("/bar/baz/", "bar", ((), {})),
            ("//year/2012/", "year", ((), {"year": 2012})),
        ],
    )
    async def test_routes_and_converts(
        self, given: str, name: str, route: tuple[tuple[Any, ...], dict[str, Any]]
    ) -> None:
        """path() and re_path() match as in Django; converters and defaults reach url_route."""
        names = ("root", "year", "author", "posarg", "defaults", "bar")
        apps = {each: Recorder(each) for each in names}
        router = URLRouter(
            [
                path("", apps["root"]),
                path("year/<int:year>/", apps["year"]),
                path("author/<name>/", apps["author"]),
                re_path(r"^posarg/(\d+)/$", apps["posarg"]),
                path("defaults/", apps["defaults"], {"colour": "red"}),
                re_path(r"bar", apps["bar"]),
            ]
        )
        assert await call(router, given) == name
        assert apps[name].route == route

    async def test_leaves_the_outer_scope_alone(self) -> None:
        """The application gets a scope of its own."""
        scope = {"type": "websocket", "path": "/"}
        await URLRouter([path("", Recorder("root"))])(scope, receive, send)
        assert scope == {"type": "websocket", "path": "/"}

    async def test_nested_routers_merge_what_they_capture(self) -> None:
        """Keyword arguments of inner and outer routers come together, positional ones in order."""
        app = Recorder("page")
        inner = URLRouter(
            [path("book/<slug:book>/page/<int:page>/", app), re_path(r"^test/(\d+)/$", app)]
        )
        outer = URLRouter(
            [path("universe/<int:universe>/", inner), re_path(r"^positional/(\w+)/", inner)]
        )
        await call(outer, "/universe/42/book/guide/page/10/")
        assert app.route == ((), {"universe": 42, "book": "guide", "page": 10})
        await call(outer, "/positional/foo/test/3/")
        assert app.route == (("foo", "3"), {})

    async def test_a_route_before_a_router_is_a_prefix(self) -> None:
        """path() before a router need not match to the end, also with middleware between."""

        class Middleware:
            def __init__(self, inner: Any) -> None:
                self.inner = inner

            async def __call__(self, scope: Scope, receive: Any, send: Any) -> Any:
                return await self.inner(scope, receive, send)

        async def closure(scope: Scope, receive: Any, send: Any) -> Any:
            return await inner(scope, receive, send)

        closure._path_routing = True  # type: ignore[attr-defined] # the flag of Channels
        inner = URLRouter([path("test/<int:page>/", Recorder("page"))])
        for wrapped in (inner, Middleware(inner), closure):
            outer = URLRouter([path("number/<int:number>/", wrapped)])
            assert await call(outer, "/number/42/test/3/") == "page"
            with pytest.raises(RouteNotFound):
                await call(outer, "/number/42/other/")

    async def test_the_outer_router_goes_on_after_a_nested_one(self) -> None:
        """A nested router without a match gives way to the next route of the outer one."""
        inner = URLRouter([path("no-match/", Recorder("inner"))])
        outer = URLRouter([path("prefix/", inner), path("prefix/stuff/", Recorder("outer"))])
        outermost = URLRouter([path("", outer)])
        assert await call(outermost, "/prefix/stuff/") == "outer"
        assert await call(outermost, "/root/prefix/stuff/", root_path="/root") == "outer"

    async def test_root_path_is_stripped_once(self) -> None:
        """The path must lie under root_path, and loses it once."""
        router = URLRouter([path("foo/", Recorder("foo"))])
        assert await call(router, "/root/foo/", root_path="/root") == "foo"
        for given in ("/foo/", "/root/root/foo/"):
            with pytest.raises(ValueError, match="No route found"):
                await call(router, given, root_path="/root")

    async def test_include_with_namespaces_and_converters(self) -> None:
        """include() works, with lists, namespaces, converters and arguments of its own."""
        app = Recorder("room")
        chat = ([path("room/<slug:room>/", app)], "chat")
        router = URLRouter(
            [
                path("<int:site>/", include(chat, namespace="main"), {"kind": "chat"}),
                re_path(r"^(\w+)/", include([re_path(r"^x/(\d+)/$", app)])),
            ]
        )
        assert await call(router, "/7/room/lobby/") == "room"
        assert app.route == ((), {"site": 7, "kind": "chat", "room": "lobby"})
        await call(router, "/word/x/5/")
        assert app.route == (("word", "5"), {})

    async def test_no_route_is_the_fault_of_the_client(self) -> None:
        """The outermost router raises what Channels' does, which is a 404 to our server."""
        with pytest.raises(ValueError, match=re.escape("No route found for path '/x/'.")) as caught:
            await call(URLRouter([]), "/x/")
        assert isinstance(caught.value, ClientFault)
        assert (caught.value.status, caught.value.code) == (404, 4404)

    @pytest.mark.parametrize(
        ("given", "meant"), [("/chat/lobby", "/chat/lobby/"), ("/api/room/", "/api/room")]
    )
    async def test_suggests_the_slash(self, given: str, meant: str) -> None:
        """A missing or superfluous slash is named, also through nested routers."""
        inner = URLRouter([path("lobby/", Recorder("lobby"))])
        router = URLRouter([path("chat/", inner), path("api/room", Recorder("api"))])
        with pytest.raises(RouteNotFound, match=re.escape(f"Did you mean '{meant}'?")):
            await call(router, given)

    @pytest.mark.parametrize("given", ["/", "", "/other", "/chat/other"])
    async def test_suggests_nothing_that_leads_nowhere(self, given: str) -> None:
        """Without a route at the other spelling there is no suggestion."""
        inner = URLRouter([path("lobby/", Recorder("lobby"))])
        with pytest.raises(RouteNotFound) as caught:
            await call(URLRouter([path("chat/", inner)]), given)
        assert "Did you mean" not in str(caught.value)

    async def test_a_missing_path_is_a_mistake(self) -> None:
        """A scope without a path cannot be routed."""
        with pytest.raises(ValueError, match="No 'path' key"):
            await URLRouter([])({"type": "channel"}, receive, send)


class TestSingleCallable:
    """
    What older projects write into routers.
    """

    async def test_a_class_without_as_asgi_is_accepted(self) -> None:
        """A consumer class works, with a warning that names the route."""

        class Chat:
            @classmethod
            def as_asgi(cls) -> Any:
                return Recorder("chat")

        expected = re.escape("route 'ws/<room>/': write Chat.as_asgi() [fairway.R207]")
        with pytest.warns(DeprecationWarning, match=expected):
            router = URLRouter([path("ws/<room>/", Chat)])  # type: ignore[arg-type] # on purpose
        assert await call(router, "/ws/lobby/") == "chat"

    async def test_a_double_callable_is_accepted(self) -> None:
        """Classes and functions of ASGI 2 work, with a warning that names the place."""

        class Old:
            def __init__(self, scope: Scope) -> None:
                self.scope = scope

            async def __call__(self, receive: Any, send: Any) -> str:
                return str(self.scope["path"])

        def function(scope: Scope) -> Old:
            return Old(scope)

        for old in (Old, function):
            with pytest.warns(DeprecationWarning, match=r"ProtocolTypeRouter\['websocket'\]"):
                router = ProtocolTypeRouter({"websocket": old})
            assert await call(router, "/x/") == "/x/"

    @pytest.mark.parametrize(
        "single",
        [
            Recorder("instance"),
            lambda scope, receive, send: receive(),
            lambda *args: None,
            lambda scope, receive, send, extra=None: None,
            max,  # A built-in that does not tell what it takes.
        ],
    )
    def test_the_present_protocol_is_taken_as_it_is(self, single: Any) -> None:
        """Whatever takes three arguments is neither wrapped nor warned about."""
        assert single_callable(single, "here") is single


class TestUrlconfRouter:
    """
    Consumers in urls.py.
    """

    async def test_finds_a_consumer_beside_pages(self, settings: Settings) -> None:
        """A catch-all page hides no socket, and one path may hold a page and a consumer."""
        chat = Consumer("chat")
        settings.ROOT_URLCONF = urlconf(
            re_path(r"^.*$", view), path("chat/<slug:room>/", view), path("chat/<slug:room>/", chat)
        )
        assert await call(UrlconfRouter(), "/chat/lobby/") == "chat"
        assert chat.route == ((), {"room": "lobby"})

    async def test_follows_include_namespaces_and_converters(self, settings: Settings) -> None:
        """The tree is walked as Django walks it, with what includes capture and add."""
        chat = Consumer("chat")
        pages_only = include(([path("", view)], "pages"))
        inner = include(([path("room/<uuid:room>/", chat), path("", view)], "chat"))
        settings.ROOT_URLCONF = urlconf(
            path("chat/", pages_only), path("<int:site>/", inner, {"kind": "chat"})
        )
        assert await call(
            UrlconfRouter(), f"/3/room/{'0' * 8}-{'0' * 4}-{'0' * 4}-{'0' * 4}-{'0' * 12}/"
        )
        assert (chat.route[1]["site"], chat.route[1]["kind"]) == (3, "chat")
        assert chat.route[1]["room"].int == 0

    async def test_unnamed_groups_count_where_nothing_is_named(self, settings: Settings) -> None:
        """Positional arguments follow Django's rule and not that of nested URLRouters."""
        chat = Consumer("chat")
        settings.ROOT_URLCONF = urlconf(
            re_path(r"^(\w+)/", include([re_path(r"^a/(\d+)/$", chat), path("b/<x>/", chat)]))
        )
        await call(UrlconfRouter(), "/one/a/2/")
        assert chat.route == (("one", "2"), {})
        await call(UrlconfRouter(), "/one/b/2/")
        assert chat.route == ((), {"x": "2"})

    async def test_project_converters_are_used(self, settings: Settings) -> None:
        """A converter of the project's own decides, and may refuse."""
        chat = Consumer("chat")
        settings.ROOT_URLCONF = urlconf(path("<fairway_even:n>/", chat))
        await call(UrlconfRouter(), "/4/")
        assert chat.route == ((), {"n": 4})
        with pytest.raises(RouteNotFound):
            await call(UrlconfRouter(), "/5/")

    def test_an_instance_is_refused(self, settings: Settings) -> None:
        """An object that all connections would share ends the start, with what to write."""

        class Chat:
            @classmethod
            def as_asgi(cls) -> Any:
                """As consumers have it."""

            def __call__(self) -> None:
                """As path() wants it."""

        settings.ROOT_URLCONF = urlconf(path("ws/", Chat()))  # type: ignore[arg-type] # on purpose
        with pytest.raises(ConfigurationError, match=r"write Chat\.as_asgi\(\)"):
            UrlconfRouter().load()

    def test_as_asgi_that_was_not_called_is_refused(self, settings: Settings) -> None:
        """A method that would make the consumer ends the start too, instead of being a page."""

        class Chat:
            @classmethod
            def as_asgi(cls) -> Any:
                """As consumers have it."""

        settings.ROOT_URLCONF = urlconf(path("ws/", Chat.as_asgi))
        with pytest.raises(ConfigurationError, match=r"not called; write Chat\.as_asgi\(\)"):
            UrlconfRouter().load()

    async def test_a_class_without_as_asgi_is_a_consumer(self, settings: Settings) -> None:
        """A consumer class in urls.py works, with the route in the warning."""

        class Chat:
            @classmethod
            def as_asgi(cls) -> Any:
                return Recorder("chat")

        settings.ROOT_URLCONF = urlconf(path("ws/", include([path("chat/", Chat)])))  # type: ignore[arg-type] # on purpose
        with pytest.warns(DeprecationWarning, match=r"'ws/chat/': write Chat\.as_asgi\(\)"):
            assert await call(UrlconfRouter(), "/ws/chat/") == "chat"

    async def test_no_route(self, settings: Settings) -> None:
        """A page is no route for a socket; a slash too few or too many is named."""
        settings.ROOT_URLCONF = urlconf(path("page/", view), path("chat/", Consumer("chat")))
        with pytest.raises(RouteNotFound, match=r"^No route found for path '/page/'\.$"):
            await call(UrlconfRouter(), "/page/")
        for wrong in ("/chat", "//chat/", "/chat//"):
            with pytest.raises(RouteNotFound, match=r"Did you mean '/chat/'\?"):
                await call(UrlconfRouter(), wrong)

    @pytest.mark.parametrize(
        ("given", "route", "value", "name"),
        [
            ("/ws/a-b/", r"^ws/(?P<room>\\w+)/$", "a-b", "room"),
            ("/in/x/b/1/", "in/<int:site>/b/<fairway_even:n>/", "x", "site"),
            ("/in/3/b/1/", "in/<int:site>/b/<fairway_even:n>/", "1", "n"),
            ("/q/cc)/", r"^q/(?P<odd>(a|b[)])[^)]{1,2})/$", "cc)", "odd"),
        ],
    )
    async def test_a_part_that_does_not_fit_is_named(
        self, settings: Settings, given: str, route: str, value: str, name: str
    ) -> None:
        """Where a path fits but for one named part, route, part and value are in the reason."""
        settings.ROOT_URLCONF = urlconf(
            re_path(r"^ws/(?P<room>\w+)/$", Consumer("chat")),
            path("in/<int:site>/", include([path("b/<fairway_even:n>/", Consumer("chat"))])),
            re_path(r"^q/(?P<odd>(a|b[)])[^)]{1,2})/$", Consumer("chat")),
        )
        with pytest.raises(RouteNotFound) as caught:
            await call(UrlconfRouter(), given)
        expected = f"Route '{route}' does not take '{value}' for '{name}'; <str:{name}> would."
        assert str(caught.value) == f"No route found for path '{given}'. {expected}"

    async def test_what_fits_nowhere_near_is_just_missing(self, settings: Settings) -> None:
        """A path that differs by more than one part's kind gets no hint."""
        settings.ROOT_URLCONF = urlconf(path("a/<int:n>/<int:m>/", Consumer("chat")))
        for given in ("/a/x/", "/b/1/2/", "/"):
            with pytest.raises(RouteNotFound, match=r"path '[^']+'\.$"):
                await call(UrlconfRouter(), given)

    async def test_the_mount_point_is_taken_off(self, settings: Settings) -> None:
        """root_path is no part of the route, whether the path still carries it or not."""
        settings.ROOT_URLCONF = urlconf(path("chat/", Consumer("chat")))
        for given in ("/site/chat/", "/chat/"):
            assert await call(UrlconfRouter(), given, root_path="/site") == "chat"

    async def test_reads_the_urls_once_and_again_after_a_change(self, settings: Settings) -> None:
        """The tree is cached until ROOT_URLCONF changes or the URL caches are cleared."""
        router = UrlconfRouter()
        first = urlconf(path("first/", Consumer("first")))
        settings.ROOT_URLCONF = first
        assert await call(router, "/first/") == "first"
        first.urlpatterns.append(path("late/", Consumer("late")))
        with pytest.raises(RouteNotFound):
            await call(router, "/late/")
        clear_url_caches()
        assert await call(router, "/late/") == "late"
        settings.ROOT_URLCONF = urlconf(path("second/", Consumer("second")))
        assert await call(router, "/second/") == "second"

    async def test_a_404_of_the_consumer_is_its_own(self, settings: Settings) -> None:
        """An Http404 raised by a consumer is not taken for a route that is missing."""

        async def failing(scope: Scope, receive: Any, send: Any) -> None:
            raise Http404("no such room")

        failing.consumer_class = object  # type: ignore[attr-defined] # as as_asgi() marks it
        settings.ROOT_URLCONF = urlconf(path("chat/", failing))  # type: ignore[arg-type] # a consumer
        with pytest.raises(Http404, match="no such room"):
            await call(UrlconfRouter(), "/chat/")


class TestGetDefaultApplication:
    """
    Channels' way to find ASGI_APPLICATION.
    """

    def test_gives_what_the_setting_names(self, settings: Settings) -> None:
        """The object itself is returned."""
        settings.ASGI_APPLICATION = "fairway.routing.get_default_application"
        assert get_default_application() is get_default_application

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            (None, "Cannot find ASGI_APPLICATION setting."),
            ("asgi", "Cannot find ASGI_APPLICATION setting."),
            ("no.such.application", "Cannot import ASGI_APPLICATION module 'no.such'"),
            ("fairway.routing.nothing", "Cannot find 'nothing' in ASGI_APPLICATION module"),
        ],
    )
    def test_says_what_is_missing(
        self, settings: Settings, setting: str | None, message: str
    ) -> None:
        """A missing setting, module or name is ImproperlyConfigured."""
        settings.ASGI_APPLICATION = setting
        with pytest.raises(ImproperlyConfigured, match=re.escape(message)):
            get_default_application()
