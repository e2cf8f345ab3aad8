"""IHostMemory: the bytes of a serialized engine."""

from __future__ import annotations

from .._core import HostMemory as IHostMemory

__all__ = ["IHostMemory"]
