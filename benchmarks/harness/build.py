"""
Compiles the C programs, where they are missing or older than their source.

Everything built or logged lies in ``benchmarks/.build``, which git ignores.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

__all__ = ["BUILD", "HERE", "BuildError", "build"]

HERE = Path(__file__).resolve().parents[1]
BUILD = HERE / ".build"
FLAGS = ("-O2", "-std=gnu11", "-pthread", "-Wall", "-Wextra")


class BuildError(Exception):
    """
    A program could not be compiled.
    """


def build(name: str) -> Path:
    """
    Return the up-to-date program made from ``c/<name>.c``.

    Raises:
        BuildError: There is no C compiler, or it refused the source.
    """
    source, program = HERE / "c" / f"{name}.c", BUILD / name
    newest = max(path.stat().st_mtime for path in (source, HERE / "c" / "wire.h"))
    if program.exists() and program.stat().st_mtime >= newest:
        return program
    compiler = os.environ.get("CC") or shutil.which("cc")
    if compiler is None:
        raise BuildError("a C compiler was expected as cc, and there is none. Hint: install gcc.")
    BUILD.mkdir(exist_ok=True)
    # Another run may be executing the program that is replaced.
    fresh = BUILD / f"{name}.{os.getpid()}"
    command = [compiler, *FLAGS, "-o", str(fresh), str(source)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"{source.name} does not compile:\n{done.stderr}")
    fresh.replace(program)
    return program
