"""
Where Fairway's own log lines go when a project says nothing about them.

Every logger of Fairway is ``fairway`` or below. They are written to stderr by one
handler, unless ``LOGGING`` names one of them, or the root logger writes there already.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

from fairway.server.log import FORMAT

__all__ = ["configure_logging"]


class StderrHandler(logging.StreamHandler[Any]):
    """
    Fairway's own handler; its class tells it apart from a project's.

    It looks ``sys.stderr`` up for each line, so that redirecting works.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter(FORMAT))

    @property
    def stream(self) -> Any:
        """
        The present stderr.
        """
        return sys.stderr


def configure_logging(setting: Mapping[str, Any] | None = None) -> None:
    """
    See to it that Fairway's lines are seen. May be called again, after the project's own.

    Args:
        setting: The project's ``LOGGING``, in the form of ``logging.config.dictConfig``.
    """
    logger = logging.getLogger("fairway")
    _enable_again()
    own = [handler for handler in logger.handlers if isinstance(handler, StderrHandler)]
    if _is_named(setting or {}) or _root_writes_there():
        for handler in own:
            logger.removeHandler(handler)
        return
    if not own:
        logger.addHandler(StderrHandler())
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def _is_named(setting: Mapping[str, Any]) -> bool:
    """
    Whether ``LOGGING`` says something about a logger of Fairway.
    """
    return any(_is_ours(name) for name in setting.get("loggers", {}))


def _root_writes_there() -> bool:
    """
    Whether the root logger shows what reaches it on this terminal.
    """
    return any(
        isinstance(handler, logging.StreamHandler) and handler.stream in {sys.stderr, sys.stdout}
        for handler in logging.getLogger().handlers
    )


def _enable_again() -> None:
    """
    Undo ``disable_existing_loggers``, which silences loggers made before ``LOGGING`` was read.
    """
    for name, logger in logging.Logger.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and _is_ours(name):
            logger.disabled = False


def _is_ours(name: str) -> bool:
    return name == "fairway" or name.startswith("fairway.")
