"""What engines are for where a program does not say."""

from __future__ import annotations

import os

from .._core import device_kinds, gpu_count
from ..errors import InvalidArgumentError
from .closed import unsupported

__all__ = ["checked_device", "default_device"]


def checked_device(device: str) -> str:
    """The same; an error for what is no device of this build."""
    if device not in ("cpu", "cuda"):
        raise InvalidArgumentError(f"device is {device!r}, expected 'cpu' or 'cuda'")
    if device not in device_kinds():
        raise unsupported(
            "a GPU", "this build's engines are for CPU ranks; `make cuda`, or pip with -C cmake.define.TANDEM_CUDA=ON, makes one for GPUs"
        )
    return device


def default_device() -> str:
    """A GPU where there is one, as programs for TensorRT expect, else the CPU; TANDEM_DEVICE in the environment says otherwise."""
    asked = os.environ.get("TANDEM_DEVICE", "")
    return checked_device(asked) if asked else "cuda" if gpu_count() > 0 else "cpu"
