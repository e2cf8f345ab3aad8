"""Logger: who hears what is going on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import ClassVar

from ..errors import Error, InvalidArgumentError

__all__ = ["ILogger", "Logger"]


class LogSeverity(IntEnum):
    """How bad it is; INTERNAL_ERROR is worst."""

    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    """Derive from it and override log(severity, message) to hear messages."""

    Severity: ClassVar[type[LogSeverity]] = LogSeverity
    INTERNAL_ERROR: ClassVar[LogSeverity] = LogSeverity.INTERNAL_ERROR
    ERROR: ClassVar[LogSeverity] = LogSeverity.ERROR
    WARNING: ClassVar[LogSeverity] = LogSeverity.WARNING
    INFO: ClassVar[LogSeverity] = LogSeverity.INFO
    VERBOSE: ClassVar[LogSeverity] = LogSeverity.VERBOSE

    def log(self, severity: LogSeverity, msg: str) -> None:
        """Gets every message, of any severity, from the thread where it arose."""
        raise NotImplementedError("an ILogger overrides log(severity, msg)")


_levels = {0: logging.CRITICAL, 1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO, 4: logging.DEBUG}


class Logger(ILogger):
    """Hands messages down to `min_severity` to Python's logging, logger "tandem.tensorrt", which decides where they go."""

    def __init__(self, min_severity: LogSeverity = LogSeverity.WARNING) -> None:
        self.min_severity = min_severity

    def log(self, severity: LogSeverity, msg: str) -> None:
        """Writes a message to the log if it is severe enough."""
        if severity <= self.min_severity:
            logging.getLogger("tandem.tensorrt").log(_levels[int(severity)], msg)


def checked_logger(logger: object) -> ILogger:
    """`logger` itself; InvalidArgumentError if it is none."""
    if not isinstance(logger, ILogger):
        raise InvalidArgumentError(
            f"tandem.tensorrt: a logger is expected, trt.Logger or a class derived from trt.ILogger, not {type(logger).__name__}"
        )
    return logger


@contextmanager
def told(logger: ILogger) -> Iterator[None]:
    """Errors from inside are told to the logger, once, and go on their way."""
    try:
        yield
    except Error as error:
        if not getattr(error, "_told", False):
            logger.log(LogSeverity.INTERNAL_ERROR if error.code == "internal" else LogSeverity.ERROR, str(error))
            error._told = True  # type: ignore[attr-defined]
        raise
