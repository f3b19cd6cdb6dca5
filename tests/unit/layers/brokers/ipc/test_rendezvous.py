"""
What a directory's rules say without a directory.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import cast

import pytest

from fairway.exceptions import ConfigurationError
from fairway.layers.brokers.ipc.rendezvous import check_peer, open_directory, peer_uid


class OtherSystem:
    """
    A socket of a system that tells of its peers in a struct xucred.
    """

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """
        Give the structure: version, uid, number of groups, groups.
        """
        assert (level, option) == (0, 1)
        return struct.pack("IIh", 0, 501, 1).ljust(size, b"\0")


def test_the_peers_user_is_read_where_there_is_no_so_peercred(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    As on macOS and the BSDs.
    """
    monkeypatch.delattr(socket, "SO_PEERCRED")
    assert peer_uid(cast("socket.socket", OtherSystem())) == 501


def test_a_peer_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    By either end of a connection; one of this user passes.
    """
    one, two = socket.socketpair()
    with one, two:
        check_peer(one)
        me = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
        for end in (one, two):
            with pytest.raises(PermissionError, match=f"uid {me + 1}, found uid {me}"):
                check_peer(end)


def test_a_path_counts_in_bytes() -> None:
    """
    What an address holds is no number of characters.
    """
    with pytest.raises(ConfigurationError, match="bytes, got 107; set"):
        open_directory(Path("/nowhere/" + "é" * 45 + "/project/"))
