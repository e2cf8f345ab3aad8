"""What Builder and Runtime have in common."""

from __future__ import annotations

from ..errors import InvalidArgumentError
from .closed import Closed
from .logger import ILogger, checked_logger

__all__ = ["EntryPoint"]


class EntryPoint(Closed):
    """Made with a logger by the user; all else comes from it."""

    _missing = {
        "gpu_allocator": "ranks on the CPU allocate host memory",
        "error_recorder": "errors are exceptions; the logger hears them too",
    }

    def __init__(self, logger: ILogger) -> None:
        self._logger = checked_logger(logger)
        self._threads = 0

    @property
    def logger(self) -> ILogger:
        """Who hears what is going on."""
        return self._logger

    @property
    def num_DLA_cores(self) -> int:
        """There are none: 0."""
        return 0

    @property
    def max_threads(self) -> int:
        """How many threads a rank has, of a Builder while kernels are timed, of a Runtime while engines run; 0, unless it is set: cores /
        ranks.
        """
        return self._threads

    @max_threads.setter
    def max_threads(self, threads: int) -> None:
        if threads < 0:
            raise InvalidArgumentError(f"max_threads is {threads}, expected a number from 0")
        self._threads = threads
