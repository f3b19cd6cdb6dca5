"""
Close codes: which may travel, and what the table says of each.
"""

from __future__ import annotations

import pytest

from fairway.wire import codes

ASSIGNED = {1000, 1001, 1002, 1003, *range(1007, 1015)}


def test_a_client_may_send_the_registered_codes_and_the_free_ranges() -> None:
    """
    Of all sixteen-bit codes, a close frame may carry the registered ones and 3000 to 4999.
    """
    allowed = {code for code in range(65536) if codes.is_receivable(code)}
    assert allowed == ASSIGNED | set(range(3000, 5000))


def test_the_server_may_send_the_same_but_for_the_clients_own_code() -> None:
    """
    1010 is for clients: a server refuses extensions in the handshake.
    """
    allowed = {code for code in range(65536) if codes.is_sendable(code)}
    assert allowed == (ASSIGNED - {1010}) | set(range(3000, 5000))


def test_every_constant_has_an_entry_of_its_name() -> None:
    """
    The table and the constants are the same list.
    """
    constants = {
        name: value for name, value in vars(codes).items() if name.isupper() and type(value) is int
    }
    assert {entry.name.upper(): code for code, entry in codes.CLOSE_CODES.items()} == constants


def test_the_module_tells_each_code_as_its_table_does() -> None:
    """
    The documentation lists every code with the name and advice that the data give.
    """
    rows = {
        line.split()[0]: line.split()[1:3]
        for line in (codes.__doc__ or "").splitlines()
        if line[:4].isdigit()
    }
    expected = {
        str(code): [entry.name.upper(), "yes" if entry.reconnect else "no"]
        for code, entry in codes.CLOSE_CODES.items()
    }
    assert rows == expected


@pytest.mark.parametrize("code", [1001, 1006, 1011, 1012, 1013])
def test_what_may_pass_by_itself_invites_a_reconnect(code: int) -> None:
    """
    A restart, a failure or a lost connection is worth another try.
    """
    assert codes.CLOSE_CODES[code].reconnect


@pytest.mark.parametrize("code", [1000, 1002, 1008, 1009, 4400, 4401, 4404])
def test_what_will_happen_again_does_not(code: int) -> None:
    """
    The same request would be refused again.
    """
    assert not codes.CLOSE_CODES[code].reconnect
