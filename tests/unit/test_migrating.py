"""
What docs/migrating.md says about imports is true.
"""

from __future__ import annotations

import re
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text()
ROWS = re.findall(
    r"^\| `channels\.([\w.]+)` \| `fairway\.([\w.]+)` \| (.*) \|$", TEXT, re.MULTILINE
)


def test_every_module_is_named() -> None:
    """The table has the modules that Channels documents."""
    assert len(ROWS) == 14


@pytest.mark.parametrize(("theirs", "ours", "names"), ROWS)
def test_imports(theirs: str, ours: str, names: str) -> None:
    """A module has its name, and in it are the names of the table."""
    assert theirs == ours
    module = import_module(f"fairway.{ours}")
    assert [name for name in re.findall(r"`(\w+)`", names) if not hasattr(module, name)] == []


def test_command(tmp_path: Path) -> None:
    """The command changes imports and nothing else."""
    (tmp_path / "chat").mkdir()
    file = tmp_path / "chat" / "consumers.py"
    other = tmp_path / "chat" / "notes.txt"
    file.write_text(
        "from channels.db import database_sync_to_async\n"
        "import channels.layers\n"
        "from channels_redis.core import RedisChannelLayer\n"
        "    from channels import layers\n"
        "channels = 3  # from channels\n"
    )
    other.write_text("from channels import this\n")
    command = re.search(r"^grep .*$", TEXT, re.MULTILINE)
    assert command
    subprocess.run(command[0], shell=True, cwd=tmp_path, check=True)
    assert file.read_text() == (
        "from fairway.db import database_sync_to_async\n"
        "import fairway.layers\n"
        "from channels_redis.core import RedisChannelLayer\n"
        "    from fairway import layers\n"
        "channels = 3  # from channels\n"
    )
    assert other.read_text() == "from channels import this\n"
