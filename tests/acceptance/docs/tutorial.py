"""
The tutorial as its reader takes it: a list of steps, read from the page.

A step is a command to type or a file to write. A file's block comes below a line that names it,
``**mysite/chat.py**:`` for the whole of it or with the place behind: ``, at the end:`` or
``, instead of what is above `NAME`:``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

PAGE = Path(__file__).parents[3] / "docs" / "tutorial.md"

BLOCK = re.compile(
    r"(?:^(?P<lead>\*\*[^\n]*:)\n\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LEAD = re.compile(r"\*\*(?P<path>[\w/.]+)\*\*(?:, (?P<place>.*))?:")


@dataclass(frozen=True)
class CommandStep:
    """
    A command as it is typed.
    """

    line: str


@dataclass(frozen=True)
class FileStep:
    """
    Text for a file, and where in the file it goes.
    """

    path: str
    place: str
    text: str

    def write(self, folder: Path) -> None:
        """
        Do what the page says, below the folder of the project.
        """
        file = folder / self.path
        if not self.place:
            text = self.text
        elif self.place == "at the end":
            text = file.read_text() + self.text
        else:
            name = self.place.removeprefix("instead of what is above `").removesuffix("`")
            below = re.search(
                rf"^{re.escape(name)} = .*", file.read_text(), re.MULTILINE | re.DOTALL
            )
            assert below, f"{self.place}: not found in {self.path}"
            text = self.text + below[0]
        file.write_text(text)


Step: TypeAlias = CommandStep | FileStep


def sections() -> dict[str, list[Step]]:
    """
    Read the page: the steps below each heading. A block that is neither fails.
    """
    _, *parts = re.split(r"^## (.*)\n", PAGE.read_text(), flags=re.MULTILINE)
    return {
        heading: list(_steps(text)) for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


def _steps(text: str) -> Iterator[Step]:
    for block in BLOCK.finditer(text):
        if block["language"] == "console":
            for line in block["text"].splitlines():
                assert line.startswith("$ "), f"not a command: {line}"
                yield CommandStep(line.removeprefix("$ "))
        else:
            lead = LEAD.fullmatch(block["lead"] or "")
            assert lead, f"a block without a file: {block['text']}"
            yield FileStep(lead["path"], lead["place"] or "", block["text"])


def lines_added(before: dict[str, str], folder: Path) -> dict[str, int]:
    """
    Count the lines that are not blank and were not there, for each file made or changed.

    Args:
        before: Each file's text at the start.
        folder: Where they are now.
    """
    added = {}
    for path, text in texts(folder).items():
        if text != before.get(path):
            lines = Counter(filter(str.strip, text.splitlines()))
            added[path] = (lines - Counter(before.get(path, "").splitlines())).total()
    return added


def texts(folder: Path) -> dict[str, str]:
    """
    Read what a person may have written below a folder.
    """
    return {
        str(file.relative_to(folder)): file.read_text()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.suffix not in {".pyc", ".sqlite3"}
    }
