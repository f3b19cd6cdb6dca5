"""
The ids of faults: in order, explained, used, and each with its row in docs/errors.md.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from fairway import faults
from fairway.faults import Fault

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text()
SOURCE = Path(faults.__file__)

BLOCKS = {
    "1": "Start and configuration",
    "2": "Routes and handshakes",
    "3": "Consumers and messages",
    "4": "Channel layer and publishing",
    "5": "Identity and limits",
    "6": "Pages and threads",
    "7": "Commands",
}


def test_ids_are_in_order() -> None:
    """
    Each id is fairway.R and three digits, and they rise.
    """
    ids = [fault.value for fault in Fault]
    assert all(re.fullmatch(r"fairway\.R[1-7]\d\d", each) for each in ids)
    assert ids == sorted(set(ids))


def test_page_has_each_id_once() -> None:
    """
    The page has one row with an anchor for each fault, and none for anything else.
    """
    rows = re.findall(r'^\| <a id="(R\d{3})"></a>`(fairway\.R\d{3})` \|', PAGE, re.MULTILINE)
    assert [row for _, row in rows] == [fault.value for fault in Fault]
    assert [f"fairway.{anchor}" for anchor, _ in rows] == [row for _, row in rows]


def test_rows_are_whole_and_in_their_block() -> None:
    """
    Each row says what was found, what follows and what helps, below its block's heading.
    """
    heading = ""
    for line in PAGE.splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif line.startswith('| <a id="R'):
            _, number, *cells, _ = re.split(r"(?<!\\)\|", line)
            assert BLOCKS[re.findall(r"R(\d)", number)[0]] == heading
            assert len(cells) == 3
            assert all(cell.strip() for cell in cells)


def test_each_member_is_explained() -> None:
    """
    A line of text stands below each member of the enum.
    """
    (enum,) = (
        node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.ClassDef)
    )
    after = dict(zip(enum.body, enum.body[1:], strict=False))
    for node, following in after.items():
        if isinstance(node, ast.Assign):
            assert isinstance(following, ast.Expr), ast.unparse(node)
    assert isinstance(enum.body[-1], ast.Expr)


def test_each_member_is_used() -> None:
    """
    No id is kept that nothing reports.
    """
    sources = "".join(path.read_text() for path in SOURCE.parent.rglob("*.py") if path != SOURCE)
    unused = [fault.name for fault in Fault if f"Fault.{fault.name}" not in sources]
    assert unused == []
