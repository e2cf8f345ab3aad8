"""The counterpart of ../ranks.py for GPUs: memory and streams are torch's, a program alone has a communicator of NCCL.

The programs beside it are the same: copy one to a folder with this file. Ranks that a launcher starts meet in a tandem.Group and take GPUs in turn.
"""

import ctypes
import os

import tandem
import torch

_launched = any(name in os.environ for name in ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"))


def _alone() -> int:
    """An ncclComm_t of one GPU; torch has loaded NCCL."""
    communicator = ctypes.c_void_p()
    status = ctypes.CDLL("libnccl.so.2").ncclCommInitAll(ctypes.byref(communicator), 1, None)
    if status != 0:
        raise SystemExit(f"ncclCommInitAll: error {status}")
    return communicator.value


nccl_comm = tandem.Group.from_env() if _launched else None
rank, num_gpus = (nccl_comm.rank, nccl_comm.size) if _launched else (0, 1)
torch.cuda.set_device(rank % torch.cuda.device_count())
if nccl_comm is None:
    nccl_comm = _alone()
stream = torch.cuda.Stream()
stream_ptr = stream.cuda_stream
_inputs = []


class _Outputs(dict):
    """Memory of the GPU by name; reading one waits for the stream and gives a copy of the host."""

    def __getitem__(self, name):
        stream.synchronize()
        return super().__getitem__(name).cpu().numpy()


def bind(engine, context, inputs):
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
