"""ITimingCache: measured times of kernels, to be used by later builds."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from .closed import Closed, unsupported

__all__ = ["ITimingCache"]


class ITimingCache(Closed):
    """Times by kernel, shapes and machine, as bytes. IBuilderConfig.create_timing_cache makes one."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def serialize(self) -> bytes:
        """The bytes to keep."""
        return self._data

    def reset(self) -> bool:
        """Forgets all times."""
        self._data = b""
        return True

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        """Refused: builds on one machine share one cache instead."""
        raise unsupported("ITimingCache.combine", "give the same cache to one build after the other")

    @contextmanager
    def _file(self) -> Iterator[str]:
        """As a file for a build, whose contents become the cache's."""
        with tempfile.TemporaryDirectory(prefix="tandem-") as folder:
            path = os.path.join(folder, "times")
            if self._data:
                with open(path, "wb") as file:
                    file.write(self._data)
            yield path
            if os.path.exists(path):
                with open(path, "rb") as file:
                    self._data = file.read()
