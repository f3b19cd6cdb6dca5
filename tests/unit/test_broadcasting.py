"""
What a broadcast sends, and which commit it waits for.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from django.conf import LazySettings
from django.utils.connection import ConnectionDoesNotExist
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from fairway import broadcasting
from fairway.broadcasting import encode, transaction_to_wait_for
from fairway.layers.codec import Kind


class TestEncode:
    """
    From a message to bytes.
    """

    @pytest.mark.parametrize(
        ("message", "kind", "payload"),
        [
            ("grüße", Kind.TEXT, "grüße".encode()),
            (mark_safe("<b>"), Kind.TEXT, b"<b>"),
            (gettext_lazy("hello"), Kind.TEXT, b"hello"),
            (b"\x00\xff", Kind.BINARY, b"\x00\xff"),
            (bytearray(b"a"), Kind.BINARY, b"a"),
            (memoryview(b"a"), Kind.BINARY, b"a"),
            ({"text": "grüße", "n": 1}, Kind.JSON, '{"text":"grüße","n":1}'.encode()),
            ([None, True, 1.5], Kind.JSON, b"[null,true,1.5]"),
            (7, Kind.JSON, b"7"),
            (None, Kind.JSON, b"null"),
            ([Decimal("1.50")], Kind.JSON, b'["1.50"]'),
            ([UUID(int=0)], Kind.JSON, b'["00000000-0000-0000-0000-000000000000"]'),
            (
                [dt.datetime(2026, 1, 2, 3, 4, 5, 6789, dt.UTC)],
                Kind.JSON,
                b'["2026-01-02T03:04:05.006Z"]',
            ),
            ([dt.timedelta(hours=1)], Kind.JSON, b'["P0DT01H00M00S"]'),
            ([gettext_lazy("hello")], Kind.JSON, b'["hello"]'),
        ],
    )
    def test_says_what_djangos_encoder_says(self, message: Any, kind: Kind, payload: bytes) -> None:
        """Text as text, bytes as binary, anything else as DjangoJSONEncoder would."""
        assert encode(message) == (kind, payload)

    @pytest.mark.parametrize("message", [object(), {1, 2}, {"a": object()}, {(1, 2): 3}])
    def test_refuses_what_cannot_be_said(self, message: Any) -> None:
        """A message that cannot be encoded is a TypeError where it was made."""
        with pytest.raises(TypeError):
            encode(message)

    @pytest.mark.parametrize("message", ["\ud800", ["\ud800"]])
    def test_refuses_half_characters(self, message: Any) -> None:
        """Text that UTF-8 cannot say could reach no browser."""
        with pytest.raises(TypeError, match="UTF-8"):
            encode(message)


TEST = SimpleNamespace(_from_testcase=True)
OWN = SimpleNamespace(_from_testcase=False)


class Connections(dict[str, Any]):
    """
    Databases of a project: None for one without a connection, else whether it is in a block, or
    the blocks it is in.
    """

    def all(self, *, initialized_only: bool) -> list[Any]:
        """
        Give the connections there are; nobody may ask for others.
        """
        assert initialized_only
        return [
            SimpleNamespace(
                alias=alias,
                in_atomic_block=bool(blocks),
                atomic_blocks=blocks if isinstance(blocks, list) else [OWN] * blocks,
            )
            for alias, blocks in self.items()
            if blocks is not None
        ]


class TestTransactionToWaitFor:
    """
    The rule for one database and for several.
    """

    @pytest.mark.parametrize(
        ("open_blocks", "using", "expected"),
        [
            ({"default": None}, None, None),
            ({"default": False}, None, None),
            ({"default": True}, None, "default"),
            ({"default": False, "other": True}, None, "other"),
            ({"default": True, "other": True}, None, "default"),
            ({"default": True, "other": True}, "other", "other"),
            ({"default": True, "other": False}, "other", None),
            ({"default": True, "other": None}, "other", None),
            ({"default": None, "one": True, "two": True}, "two", "two"),
            ({"default": [TEST], "other": [TEST, OWN]}, None, "other"),
            ({"default": [TEST, OWN], "other": [TEST, OWN]}, None, "default"),
            ({"default": [TEST], "other": [TEST]}, None, "default"),
            ({"one": [TEST], "two": [TEST]}, None, "one"),
            ({"one": [TEST], "two": [TEST]}, "two", "two"),
            ({"one": []}, None, None),
        ],
    )
    def test_finds_the_one_that_counts(
        self,
        monkeypatch: pytest.MonkeyPatch,
        open_blocks: Any,
        using: str | None,
        expected: str | None,
    ) -> None:
        """
        The named one if it is open, the only open one, or default; what TestCase opens around a
        test only where the test opened none.
        """
        monkeypatch.setattr(broadcasting, "connections", Connections(open_blocks))
        assert transaction_to_wait_for(using) == expected

    def test_does_not_guess(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Several open ones without default are named, for the caller to choose."""
        monkeypatch.setattr(broadcasting, "connections", Connections(two=True, one=True))
        with pytest.raises(ValueError, match=r"open on one, two\. Hint: broadcast\(\.\.\., using="):
            transaction_to_wait_for(None)

    def test_knows_the_databases(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A database that the project has not is named."""
        monkeypatch.setattr(broadcasting, "connections", Connections(default=True))
        with pytest.raises(ConnectionDoesNotExist, match="'others' doesn't exist"):
            transaction_to_wait_for("others")

    def test_without_settings_there_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A script without a project publishes at once, as abroadcast does."""
        monkeypatch.setattr(broadcasting, "settings", LazySettings())
        monkeypatch.setattr(broadcasting, "connections", None)
        assert transaction_to_wait_for(None) is None
