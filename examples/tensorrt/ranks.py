"""What a TensorRT program takes from its launcher, NCCL and CUDA, for ranks that are processes on the CPU.

Run with: torchrun --nproc_per_node=2 PROGRAM, mpirun -n 2 python PROGRAM, or RANK and WORLD_SIZE set by hand; without any of these, alone.
"""

import os
from typing import Any

import numpy
import tandem
import tandem.tensorrt

_launched = any(name in os.environ for name in ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"))
nccl_comm = tandem.Group.from_env() if _launched else tandem.Group.in_process(1)[0]
rank, num_gpus = nccl_comm.rank, nccl_comm.size
stream = stream_ptr = 0  # ranks on the CPU run on the thread that calls


def bind(
    engine: tandem.tensorrt.ICudaEngine, context: tandem.tensorrt.IExecutionContext, inputs: dict[str, numpy.ndarray[Any, Any]]
) -> dict[str, numpy.ndarray[Any, Any]]:
    """Gives the context memory for every tensor; returns the outputs by name, which a run fills."""
    outputs = {}
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        if name in inputs:
            context.set_input_shape(name, inputs[name].shape)
            context.set_tensor_address(name, inputs[name].ctypes.data)
    for i in range(len(inputs), engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        outputs[name] = numpy.full(tuple(context.get_tensor_shape(name)), numpy.nan, numpy.float32)
        context.set_tensor_address(name, outputs[name].ctypes.data)
    return outputs
