"""A Group from the process group of torch.distributed."""

from __future__ import annotations

import os
import socket
import uuid
from typing import Any

from ._core import Group
from .errors import UnsupportedError


def from_torch(process_group: Any = None) -> Group:
    """The ranks of `process_group` as a Group; collective. Raises UnsupportedError where they are on several hosts."""
    import torch.distributed as dist

    size = dist.get_world_size(process_group)
    told: list[Any] = [None] * size
    dist.all_gather_object(told, (socket.gethostname(), _boot(), uuid.uuid4().hex), group=process_group)
    if len({(host, boot) for host, boot, _ in told}) > 1:
        raise UnsupportedError("the ranks of the process group are on several hosts; this build joins ranks of one host only, over shared memory")
    return Group.on_host(f"torch.{told[0][2]}", dist.get_rank(process_group), size)


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read() + os.readlink("/proc/self/ns/net")
    except OSError:
        return ""
