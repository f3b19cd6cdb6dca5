"""
Payloads that only those can read, or write, who have a key: AES-256 in Galois/Counter Mode.

What travels is the key's id (a byte), a random nonce of 12 bytes, and what AES-GCM made of
the payload, 16 bytes longer. The subject is authenticated with it, so a payload that
somebody copies to another group or queue is refused there. Needs the extra ``crypto``.

Nonces are random: after some 2 ** 32 payloads a key should be replaced.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from fairway.exceptions import ConfigurationError
from fairway.faults import Fault

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["AESCipher"]

NONCE_BYTES = 12
OVERHEAD_BYTES = 1 + NONCE_BYTES + 16
"""
By how much a sealed payload is longer, at least.
"""


class AESCipher:
    """
    A list of keys, of which the first seals and any opens. May be used from any thread.

    To replace a key without a pause: add the new one at the end everywhere, then move it to
    the front everywhere, then remove the old one.
    """

    __slots__ = ("_by_id", "_first", "_first_id")

    def __init__(self, keys: Sequence[str | bytes]) -> None:
        """
        Derive the keys to work with from those given, which may be text of any length.

        Raises:
            ConfigurationError: The library is not installed.
            ValueError: It is no list of keys, or one is empty or neither text nor bytes.
        """
        if isinstance(keys, str | bytes | bytearray) or not isinstance(keys, Sequence):
            raise ValueError(  # noqa: TRY004 - what channels_redis raises
                "symmetric_encryption_keys must be a list of keys, even if there is only one, "
                f"not {type(keys).__name__}"
            )
        if not keys:
            raise ValueError("symmetric_encryption_keys must hold at least one key")
        aes = _aes()
        self._by_id: dict[int, list[AESGCM]] = {}
        for number, key in enumerate(keys):
            derived = _derive(key, number)
            # An id belongs to a key, not to its place in the list, which changes.
            known = blake2b(derived, digest_size=1, person=b"fairway key id").digest()[0]
            self._by_id.setdefault(known, []).append(aes(derived))
            if not number:
                self._first, self._first_id = self._by_id[known][-1], bytes([known])

    def seal(self, subject: str, payload: bytes) -> bytes:
        """
        Encrypt a payload for a subject, with the first key.
        """
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = self._first.encrypt(nonce, payload, self._first_id + subject.encode())
        return self._first_id + nonce + sealed

    def open(self, subject: str, sealed: bytes) -> bytes:
        """
        Decrypt what was sealed for a subject with any of the keys.

        Raises:
            ValueError: It was not: another key, another subject, or other bytes.
        """
        from cryptography.exceptions import InvalidTag

        if len(sealed) < OVERHEAD_BYTES:
            raise ValueError("it is not encrypted, or cut off")
        found = self._by_id.get(sealed[0])
        if found is None:
            raise ValueError("it is not encrypted, or with a key that is not in the list")
        nonce, rest = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        for key in found:
            try:
                return key.decrypt(nonce, rest, sealed[:1] + subject.encode())
            except InvalidTag:
                continue
        raise ValueError("it was changed on its way, or is encrypted with a key not in the list")


def _derive(key: object, number: int) -> bytes:
    """
    Make 256 bits of a key as people write it.

    Raises:
        ValueError: It is none. The key itself is never in the message.
    """
    if isinstance(key, str):
        key = key.encode()
    if not isinstance(key, bytes | bytearray) or not key:
        raise ValueError(
            f"symmetric_encryption_keys[{number}] must be text or bytes, and something, not "
            f"{'nothing' if isinstance(key, bytes | bytearray) else type(key).__name__}"
        )
    return blake2b(key, digest_size=32, person=b"fairway AES-GCM").digest()


def _aes() -> type[AESGCM]:
    """
    Give the library's class.

    Raises:
        ConfigurationError: The library is not installed.
    """
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise ConfigurationError(
            "symmetric_encryption_keys need the library cryptography, which is not installed: "
            f'pip install "fairway[crypto]" ({error})',
            fault=Fault.LAYER_INVALID,
        ) from error
    return AESGCM
