"""A Group from a process group of torch.distributed."""

from __future__ import annotations

import uuid
from typing import Any

from ._core import Group, _this_host
from .errors import UnsupportedError

__all__ = ["from_torch"]


def from_torch(process_group: Any, rendezvous_deadline: float, step_deadline: float) -> Group:
    """Joins the ranks of `process_group` (None: the default one). Collective. Raises UnsupportedError where they are on several hosts."""
    import torch.distributed as dist

    told: list[Any] = [None] * dist.get_world_size(process_group)
    dist.all_gather_object(told, (_this_host(), uuid.uuid4().hex), group=process_group)
    hosts = [host for host, _ in told]
    if len({boot for _, boot in hosts}) > 1:
        names = ", ".join(sorted({name for name, _ in hosts}))
        raise UnsupportedError(
            f"the ranks of the process group are on more than one host ({names}), which is not supported yet: start all of them on one; "
            "on GPUs a communicator of NCCL that they made can be given to contexts (Context.set_communicator)"
        )
    return Group.join(
        dist.get_rank(process_group),
        len(told),
        "localhost:0",
        run_id=f"torch/{told[0][1]}",
        rendezvous_deadline=rendezvous_deadline,
        step_deadline=step_deadline,
    )
