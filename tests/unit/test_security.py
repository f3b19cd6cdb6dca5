"""
Who may open a WebSocket: Host, Origin, and what the log says about those who may not.
"""

from __future__ import annotations

import logging
from itertools import product
from typing import Any

import pytest
from pytest_django import Settings

from fairway import metrics
from fairway.security import (
    AllowedHostsOriginValidator,
    OriginValidator,
    admit,
    handshake as handshake_module,
    refusal,
)
from fairway.security.handshake import Admitted, describe_hosts

pytestmark = pytest.mark.one_loop

PROXY = ("HTTP_X_FORWARDED_PROTO", "https")


def handshake(
    *, origin: str | None = None, host: str = "example.com", scheme: str = "ws", **headers: str
) -> dict[str, Any]:
    """
    Make the scope of a handshake; more headers by keyword, with underscores for hyphens.
    """
    given = (
        {"host": host, **headers} if origin is None else {"host": host, "origin": origin} | headers
    )
    return {
        "type": "websocket",
        "path": "/ws/chat/",
        "scheme": scheme,
        "server": ("127.0.0.1", 8000),
        "headers": [
            (name.replace("_", "-").encode(), value.encode("latin1"))
            for name, value in given.items()
        ],
    }


async def connecting() -> dict[str, Any]:
    """
    The first thing an application receives.
    """
    return {"type": "websocket.connect"}


@pytest.fixture
def sent() -> list[dict[str, Any]]:
    """
    What an application sent.
    """
    return []


@pytest.fixture
def send(sent: list[dict[str, Any]]) -> Any:
    """
    Keep what an application sends.
    """

    async def keep(message: dict[str, Any]) -> None:
        sent.append(message)

    return keep


@pytest.fixture(autouse=True)
def site(settings: Settings) -> None:
    """
    A site on one host, with one origin and one family of origins that it trusts.
    """
    settings.ALLOWED_HOSTS = ["example.com", ".example.org"]
    settings.CSRF_TRUSTED_ORIGINS = ["https://trusted.net", "https://*.trusted.net"]


class TestOrigin:
    """
    The rule of Django's CsrfViewMiddleware, for WebSockets.
    """

    @pytest.mark.parametrize(
        "scope",
        [
            pytest.param(handshake(), id="no origin"),
            pytest.param(handshake(origin="http://example.com"), id="plain"),
            pytest.param(handshake(origin="https://example.com", scheme="wss"), id="tls"),
            pytest.param(
                handshake(origin="http://example.com:8000", host="example.com:8000"), id="port"
            ),
            pytest.param(
                handshake(origin="http://chat.example.org", host="chat.example.org"),
                id="subdomain of an allowed host",
            ),
            pytest.param(handshake(origin="https://trusted.net"), id="trusted"),
            pytest.param(handshake(origin="https://a.b.trusted.net"), id="below trusted"),
        ],
    )
    def test_lets_pass(self, scope: dict[str, Any]) -> None:
        """The site itself, what it trusts, and clients that are no browsers."""
        assert refusal(scope) is None

    @pytest.mark.parametrize(
        "scope",
        [
            pytest.param(handshake(origin="http://evil.net"), id="other host"),
            pytest.param(handshake(origin="http://example.com.evil.net"), id="suffix"),
            pytest.param(handshake(origin="http://evilexample.com"), id="prefix"),
            pytest.param(handshake(origin="http://sub.example.com"), id="subdomain of the site"),
            pytest.param(handshake(origin="http://example.com:8001"), id="port differs"),
            pytest.param(handshake(origin="https://example.com"), id="page by tls"),
            pytest.param(handshake(origin="http://example.com", scheme="wss"), id="page plain"),
            pytest.param(handshake(origin="null"), id="null"),
            pytest.param(handshake(origin=""), id="empty"),
            pytest.param(handshake(origin="example.com"), id="no scheme"),
            pytest.param(handshake(origin="http://example.com/"), id="with a path"),
            pytest.param(handshake(origin="http://example.com@evil.net"), id="user part"),
            pytest.param(handshake(origin="http://[::1"), id="broken address"),
            pytest.param(handshake(origin="http://example.com:port"), id="broken port"),
            pytest.param(handshake(origin="http://ex\xe4mple.com"), id="not ascii"),
            pytest.param(handshake(origin="http://trusted.net"), id="trusted by tls only"),
            pytest.param(handshake(origin="https://trusted.net.evil.net"), id="trusted suffix"),
            pytest.param(handshake(origin="https://eviltrusted.net"), id="trusted prefix"),
            pytest.param(handshake(origin="https://a.trusted.net:444"), id="below, other port"),
        ],
    )
    def test_refuses(self, scope: dict[str, Any]) -> None:
        """Everything else, however close it looks."""
        found = refusal(scope)
        assert found is not None
        assert found.kind == "origin"

    def test_a_doubled_origin_is_refused(self) -> None:
        """Two Origins are one that fits nothing."""
        scope = handshake(origin="http://example.com")
        scope["headers"].append((b"origin", b"http://example.com"))
        assert refusal(scope) is not None

    def test_null_cannot_be_trusted(self, settings: Settings) -> None:
        """No setting lets `null` pass: it is every page that hides where it is from."""
        settings.CSRF_TRUSTED_ORIGINS = ["null", "https://*"]
        assert refusal(handshake(origin="null")) is not None

    @pytest.mark.parametrize(
        ("origin", "proto", "passes"),
        [
            ("https://example.com", "https", True),
            ("http://example.com", "http", True),
            ("http://example.com", "https", False),
            ("https://example.com", "http", False),
        ],
    )
    def test_believes_the_proxy_it_was_told_of(
        self, settings: Settings, origin: str, proto: str, passes: bool
    ) -> None:
        """SECURE_PROXY_SSL_HEADER says whether the browser came by TLS."""
        settings.SECURE_PROXY_SSL_HEADER = PROXY
        scope = handshake(origin=origin, x_forwarded_proto=proto)
        assert (refusal(scope) is None) is passes

    def test_believes_no_other_proxy(self) -> None:
        """Without the setting, a header of that name changes nothing."""
        assert refusal(handshake(origin="https://example.com", x_forwarded_proto="https"))

    def test_the_proxy_header_has_hyphens(self, settings: Settings) -> None:
        """A header whose name imitates it with underscores is none."""
        settings.SECURE_PROXY_SSL_HEADER = PROXY
        scope = handshake(origin="https://example.com")
        scope["headers"].append((b"x_forwarded_proto", b"https"))
        assert refusal(scope) is not None

    def test_the_forwarded_host_counts_where_pages_use_it(self, settings: Settings) -> None:
        """USE_X_FORWARDED_HOST means for sockets what it means for pages."""
        scope = handshake(
            origin="http://example.com", host="127.0.0.1:8000", x_forwarded_host="example.com"
        )
        assert refusal(scope) is not None
        settings.USE_X_FORWARDED_HOST = True
        assert refusal(scope) is None


class TestHost:
    """
    ALLOWED_HOSTS, as for pages.
    """

    @pytest.mark.parametrize("host", ["evil.net", "example.com.evil.net", "a b", ""])
    def test_refuses_other_hosts(self, host: str) -> None:
        """A Host outside ALLOWED_HOSTS is refused, with or without an Origin."""
        for origin in (None, f"http://{host}"):
            found = refusal(handshake(origin=origin, host=host))
            assert found is not None
            assert found.kind == "host"

    def test_debug_allows_this_machine(self, settings: Settings) -> None:
        """With DEBUG and no ALLOWED_HOSTS, localhost passes and nothing else."""
        settings.ALLOWED_HOSTS = []
        settings.DEBUG = True
        for host in ("localhost:8000", "127.0.0.1:8000", "[::1]:8000", "app.localhost"):
            assert refusal(handshake(origin=f"http://{host}", host=host)) is None
        assert refusal(handshake(host="example.com")) is not None

    def test_the_start_says_that_none_can_pass(self, settings: Settings) -> None:
        """A project that goes to production without ALLOWED_HOSTS is told, and no other."""
        settings.DEBUG, settings.ALLOWED_HOSTS = False, []
        (line,) = describe_hosts()
        assert line.startswith("ALLOWED_HOSTS is empty and DEBUG is off: ")
        assert line.endswith("[fairway.R205]")
        settings.ALLOWED_HOSTS = ["example.com"]
        assert describe_hosts() == []
        settings.DEBUG, settings.ALLOWED_HOSTS = True, []
        assert describe_hosts() == []

    def test_a_scope_without_a_host_claims_none(self) -> None:
        """Tests call applications with bare scopes; servers let no such request through."""
        scope: dict[str, Any] = {"type": "websocket", "path": "/", "headers": []}
        assert refusal(scope) is None
        scope["headers"] = [(b"origin", b"http://example.com")]
        assert refusal(scope) is not None

    def test_a_scope_without_server_is_readable(self) -> None:
        """A Unix socket has no server address; the Host still decides."""
        scope = handshake(origin="http://example.com")
        scope["server"] = None
        assert refusal(scope) is None

    def test_what_passed_is_remembered_within_bounds(self) -> None:
        """A thousand ways at most, and none that is long: headers of strangers are in them."""
        for number in range(1100):
            assert refusal(handshake(host=f"a{number}.example.org")) is None
            assert refusal(handshake(x_forwarded_host=f"{number}" + "a" * 60_000)) is None
        seen = handshake_module._admitted.seen
        assert 0 < len(seen) <= 1024
        assert all(len(str(each)) < 2000 for each in seen)

    def test_hosts_that_change_as_the_project_runs(self, settings: Settings) -> None:
        """A host that is added to the list passes, and one that is taken out does not any more."""
        settings.ALLOWED_HOSTS = ["a.net", "b.net"]
        assert refusal(handshake(host="a.net")) is refusal(handshake(host="b.net")) is None
        settings.ALLOWED_HOSTS.remove("b.net")
        assert refusal(handshake(host="b.net")) is not None
        settings.ALLOWED_HOSTS[0] = "c.net"
        assert refusal(handshake(host="a.net")) is not None
        assert refusal(handshake(host="c.net")) is None

    def test_origins_that_change_as_the_project_runs(self, settings: Settings) -> None:
        """So it is with the origins that are trusted."""
        settings.CSRF_TRUSTED_ORIGINS = ["http://a.net"]
        scope = handshake(origin="http://a.net")
        assert refusal(scope) is None
        settings.CSRF_TRUSTED_ORIGINS.clear()
        assert refusal(scope) is not None

    @pytest.mark.parametrize("base", [object, list])
    def test_hosts_that_are_looked_up(self, settings: Settings, base: type[Any]) -> None:
        """Where the hosts are no plain list, as tenants in a database, each is asked for."""
        known = ["a.net"]
        hosts = type("Hosts", (base,), {"__iter__": lambda self: iter(known)})()
        settings.ALLOWED_HOSTS = hosts
        assert refusal(handshake(host="a.net")) is None
        known[0] = "b.net"
        assert refusal(handshake(host="a.net")) is not None
        assert refusal(handshake(host="b.net")) is None

    def test_what_passed_is_not_judged_again(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As long as nothing changes, the pages of a site cost the rule once."""
        assert refusal(handshake(origin="http://example.com")) is None
        monkeypatch.setattr(handshake_module, "HandshakeRequest", None)
        assert refusal(handshake(origin="http://example.com")) is None

    def test_what_passed_lets_nothing_else_pass(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever passed before, in whatever order its fields came: others are judged anew."""
        settings.SECURE_PROXY_SSL_HEADER = PROXY
        settings.USE_X_FORWARDED_HOST = settings.USE_X_FORWARDED_PORT = True
        names = [b"host", b"origin", b"x-forwarded-host", b"x-forwarded-port", b"Origin"]
        values = [b"example.com", b"http://example.com", b"http://evil.net", b"origin", b"443"]
        fields = [*product(names, values), (b"x-forwarded-proto", b"https")]
        scopes = [
            {"type": "websocket", "scheme": scheme, "server": server, "headers": [first, second]}
            for scheme, server in [
                ("ws", None),
                ("wss", ("example.com", 443)),
                (None, ("/a", None)),
            ]
            for first, second in product(fields, fields)
        ]
        alone = []
        for scope in scopes:
            monkeypatch.setattr(handshake_module, "_admitted", Admitted([], set()))
            alone.append(refusal(scope))
        assert [refusal(scope) for scope in scopes * 2] == alone * 2
        assert len({*map(type, alone)}) == 2


class TestRefusal:
    """
    What becomes of a handshake that is refused.
    """

    async def test_is_closed_logged_and_counted(
        self, send: Any, sent: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
    ) -> None:
        """One close, which the server answers with 403; one record; one count."""
        before = metrics.refusals.values.get("origin", 0)
        assert await admit(handshake(origin="http://evil.net"), connecting, send) is False
        assert sent == [{"type": "websocket.close"}]
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("fairway.security", logging.WARNING)
        assert record.getMessage() == (
            "WebSocket '/ws/chat/' refused with 403: origin 'http://evil.net' is neither this "
            "site 'http://example.com' nor in CSRF_TRUSTED_ORIGINS. "
            'If it is yours: CSRF_TRUSTED_ORIGINS += ["http://evil.net"] [fairway.R204]'
        )
        assert metrics.refusals.values["origin"] == before + 1

    async def test_tells_the_client_in_development(
        self, send: Any, sent: list[dict[str, Any]], settings: Any
    ) -> None:
        """With DEBUG the reason is in the answer too, where the server takes one."""
        settings.DEBUG = True
        scope = handshake(origin="http://evil.net")
        scope["extensions"] = {"websocket.http.response": {}}
        assert await admit(scope, connecting, send) is False
        assert [each["type"] for each in sent] == [
            "websocket.http.response.start",
            "websocket.http.response.body",
        ]
        assert sent[0]["status"] == 403
        assert sent[1]["body"].endswith(b'+= ["http://evil.net"] [fairway.R204]\n')

    async def test_says_nothing_when_it_passes(
        self, send: Any, sent: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
    ) -> None:
        """A handshake that may pass is left to the application."""
        assert await admit(handshake(), connecting, send) is True
        assert (sent, caplog.records) == ([], [])

    @pytest.mark.parametrize(
        ("scope", "fix"),
        [
            (handshake(host="evil.net:81"), 'ALLOWED_HOSTS += ["evil.net"]'),
            (handshake(host="a b"), "send a valid Host header"),
            (handshake(origin="null"), "serve the page from an origin of its own"),
            (
                handshake(origin="https://example.com"),
                'SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")',
            ),
            (
                handshake(origin="https://other.net:8443"),
                'CSRF_TRUSTED_ORIGINS += ["https://other.net:8443"]',
            ),
        ],
    )
    def test_names_the_line_to_add(self, scope: dict[str, Any], fix: str) -> None:
        """The record ends with the very line for the settings."""
        found = refusal(scope)
        assert found is not None
        assert found.fix == fix

    async def test_the_forwarded_host_is_the_one_to_add(self, settings: Settings) -> None:
        """Where a proxy names the host, that name is the one refused."""
        settings.USE_X_FORWARDED_HOST = True
        found = refusal(handshake(x_forwarded_host="evil.net"))
        assert found is not None
        assert found.fix == 'ALLOWED_HOSTS += ["evil.net"]'

    async def test_cannot_forge_or_flood_the_log(
        self, send: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What the peer sent is escaped and cut."""
        scope = handshake(origin="http://a\r\nb\x1b[31m" + "c" * 60_000)
        await admit({**scope, "path": "/x\r\ny"}, connecting, send)
        line = caplog.records[0].getMessage()
        assert line.isprintable()
        assert len(line) < 1_000

    async def test_a_peer_that_left_is_not_answered(
        self, send: Any, sent: list[dict[str, Any]]
    ) -> None:
        """A client that is gone already gets no close."""

        async def gone() -> dict[str, Any]:
            return {"type": "websocket.disconnect", "code": 1006}

        assert await admit(handshake(origin="null"), gone, send) is False
        assert sent == []


class TestOriginValidator:
    """
    Channels' validator, for projects that write their stack themselves.
    """

    @pytest.mark.parametrize(
        ("allowed", "origin", "passes"),
        [
            (["*"], "http://any.net", True),
            (["*"], None, True),
            (["example.com", "*"], None, True),
            (["example.com"], None, False),
            (["example.com"], "http://example.com", True),
            (["example.com"], "https://EXAMPLE.com:8443", True),
            (["example.com"], "http://sub.example.com", False),
            (["example.com"], "http://example.com.evil.net", False),
            ([".example.com"], "http://sub.example.com", True),
            ([".example.com"], "http://example.com", True),
            (["http://example.com"], "http://example.com", True),
            (["http://example.com"], "http://example.com:80", True),
            (["http://example.com"], "https://example.com", False),
            (["http://example.com"], "http://example.com:81", False),
            (["https://example.com:443"], "https://example.com", True),
            (["wss://example.com"], "wss://example.com:443", True),
            (["http://.example.com:8000"], "http://a.example.com:8000", True),
            (["example.com:8000"], "http://example.com:8000", True),
            (["example.com:8000"], "http://example.com:8001", False),
            (["[::1]"], "http://[::1]:8000", True),
            (["example.com"], "null", False),
            (["example.com"], "http://[::1", False),
            (["app://desktop"], "app://desktop", True),
        ],
    )
    async def test_compares_as_channels_does(
        self,
        send: Any,
        sent: list[dict[str, Any]],
        allowed: list[str],
        origin: str | None,
        passes: bool,
    ) -> None:
        """Hosts, leading dots, schemes and ports; no Origin passes only with `*`."""
        reached = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            reached.append(scope)

        await OriginValidator(application, allowed)(handshake(origin=origin), connecting, send)
        assert bool(reached) is passes
        assert sent == ([] if passes else [{"type": "websocket.close"}])

    async def test_says_why_in_one_record(
        self, send: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The log holds the origin and what would have been allowed."""
        validator = OriginValidator(None, ["example.com"])
        await validator(handshake(origin="http://evil.net"), connecting, send)
        (record,) = caplog.records
        assert "origin 'http://evil.net' is not in the allowed origins ['example.com']" in (
            record.getMessage()
        )

    async def test_is_for_websockets_alone(self, send: Any) -> None:
        """Any other scope is a mistake in the stack."""
        with pytest.raises(ValueError, match="non-WebSocket"):
            await OriginValidator(None, ["*"])({"type": "http"}, connecting, send)

    def test_allowed_hosts_are_the_list(self, settings: Settings) -> None:
        """AllowedHostsOriginValidator takes ALLOWED_HOSTS, and this machine while developing."""
        assert AllowedHostsOriginValidator(None).allowed_origins == settings.ALLOWED_HOSTS
        settings.ALLOWED_HOSTS = []
        assert AllowedHostsOriginValidator(None).allowed_origins == []
        settings.DEBUG = True
        assert AllowedHostsOriginValidator(None).allowed_origins == [
            "localhost",
            "127.0.0.1",
            "[::1]",
        ]
