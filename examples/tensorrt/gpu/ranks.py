"""The counterpart of ../ranks.py for GPUs: memory and streams are torch's, the communicator is one of NCCL.

The programs beside it are the same: copy one to a folder with this file. Ranks that a launcher starts meet in a tandem.Group, which carries what they
tell one another; where there are fewer GPUs than ranks, which NCCL refuses, it is the communicator too.
"""

import ctypes
import os
from typing import Any

import tandem
import tandem.tensorrt
import torch

_launched = any(name in os.environ for name in ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"))
_group = tandem.Group.from_env() if _launched else tandem.Group.in_process(1)[0]
rank, num_gpus = _group.rank, _group.size


class _Id(ctypes.Structure):
    _fields_ = [("internal", ctypes.c_byte * 128)]


class _Communicator(int):
    """An ncclComm_t, made as its documents say; torch has loaded NCCL."""

    exchange = staticmethod(_group.exchange)

    def __new__(cls) -> "_Communicator":
        nccl, name, made = ctypes.CDLL("libnccl.so.2"), _Id(), ctypes.c_void_p()
        if rank == 0 and (status := nccl.ncclGetUniqueId(ctypes.byref(name))):
            raise SystemExit(f"ncclGetUniqueId: error {status}")
        name = _Id.from_buffer_copy(_group.exchange(bytes(name))[0])
        if status := nccl.ncclCommInitRank(ctypes.byref(made), num_gpus, name, rank):
            raise SystemExit(f"ncclCommInitRank: error {status}")
        return super().__new__(cls, made.value or 0)


torch.cuda.set_device(rank % torch.cuda.device_count())
nccl_comm = _Communicator() if num_gpus <= torch.cuda.device_count() else _group
stream = torch.cuda.Stream()
stream_ptr = stream.cuda_stream
_inputs: list[torch.Tensor] = []


class _Outputs(dict[str, Any]):
    """Memory of the GPU by name; reading one waits for the stream and gives a copy of the host."""

    def __getitem__(self, name: str) -> Any:
        stream.synchronize()
        return super().__getitem__(name).cpu().numpy()


def bind(engine: tandem.tensorrt.ICudaEngine, context: tandem.tensorrt.IExecutionContext, inputs: dict[str, Any]) -> _Outputs:
    """Gives the context memory for every tensor; returns the outputs by name."""
    outputs = _Outputs()
    with torch.cuda.stream(stream):
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            if name in inputs:
                _inputs.append(torch.from_numpy(inputs[name]).cuda())
                context.set_input_shape(name, inputs[name].shape)
                context.set_tensor_address(name, _inputs[-1].data_ptr())
        for i in range(len(inputs), engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            made = torch.full(tuple(context.get_tensor_shape(name)), torch.nan, device="cuda")
            dict.__setitem__(outputs, name, made)
            context.set_tensor_address(name, made.data_ptr())
    return outputs
