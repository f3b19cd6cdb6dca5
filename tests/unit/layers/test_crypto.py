"""
What is sealed is read by those who have the key, for the subject it was sealed for.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from fairway.exceptions import ConfigurationError
from fairway.layers.crypto import OVERHEAD_BYTES, AESCipher


@given(st.text(max_size=50), st.binary(max_size=200), st.lists(st.text(min_size=1), min_size=1))
def test_what_is_sealed_is_read_again(subject: str, payload: bytes, keys: list[str]) -> None:
    """
    By whoever has the first key somewhere in the list.
    """
    sealed = AESCipher(keys).seal(subject, payload)
    assert len(sealed) == len(payload) + OVERHEAD_BYTES
    assert AESCipher(["other", *keys[::-1]]).open(subject, sealed) == payload


def test_equal_payloads_are_never_alike() -> None:
    """
    Nobody sees that a message was sent twice.
    """
    cipher = AESCipher(["key"])
    assert len({cipher.seal("room", b"hello")[1:] for _ in range(100)}) == 100


def test_keys_are_replaced_without_a_pause() -> None:
    """
    A new key is added behind, put in front, and then the old one removed.
    """
    steps = [AESCipher(keys) for keys in (["old"], ["old", "new"], ["new", "old"], ["new"])]
    for before, after in pairwise(steps):
        assert after.open("room", before.seal("room", b"1")) == b"1"
        assert before.open("room", after.seal("room", b"2")) == b"2"
    with pytest.raises(ValueError, match="not in the list"):
        steps[3].open("room", steps[0].seal("room", b"3"))


def test_keys_with_one_id_are_all_tried() -> None:
    """
    Of 600 keys many have the same byte for an id, and each opens its own.
    """
    keys = [str(number) for number in range(600)]
    everything = AESCipher(keys)
    for key in keys:
        assert everything.open("room", AESCipher([key]).seal("room", b"x")) == b"x"


@pytest.mark.parametrize("position", [0, 1, 12, 13, 20, -1])
def test_changed_bytes_are_refused(position: int) -> None:
    """
    Whichever it was: the id, the nonce, the payload or the tag.
    """
    cipher = AESCipher(["key"])
    sealed = bytearray(cipher.seal("room", b"a payload"))
    sealed[position] ^= 1
    with pytest.raises(ValueError, match="encrypted"):
        cipher.open("room", bytes(sealed))


@given(st.binary(max_size=100))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    """
    What nobody sealed raises ValueError and nothing else.
    """
    with pytest.raises(ValueError, match="encrypted"):
        AESCipher(["key"]).open("room", data)


def test_a_payload_is_refused_under_another_subject() -> None:
    """
    A message copied from one group to another does not arrive there.
    """
    cipher = AESCipher(["key"])
    with pytest.raises(ValueError, match="changed"):
        cipher.open("group:b", cipher.seal("group:a", b"x"))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("a secret", "list of keys, even if there is only one, not str"),
        (b"a secret", "list of keys, even if there is only one, not bytes"),
        ({"a secret"}, "not set"),
        ([], "at least one"),
        (["fine", ""], r"\[1\] .* not nothing"),
        ([None], r"\[0\] .* not NoneType"),
    ],
)
def test_what_is_no_list_of_keys_is_refused(keys: Any, told: str) -> None:
    """
    As a ValueError, which never shows a key.
    """
    with pytest.raises(ValueError, match=told) as caught:
        AESCipher(keys)
    assert "secret" not in str(caught.value)


def test_a_missing_library_is_one_line_that_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Whoever has no cryptography installed is told what to install.
    """
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ConfigurationError, match=r'pip install "fairway\[crypto\]"') as caught:
        AESCipher(["key"])
    assert "\n" not in str(caught.value)
