"""An all-reduce through TensorRT's Python names: every rank gives its numbers and gets the sum of all."""

import numpy as np
import tandem.tensorrt as trt
from ranks import bind, nccl_comm, num_gpus, rank, stream_ptr

logger = trt.Logger(trt.Logger.WARNING)
builder = trt.Builder(logger)
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
x = network.add_input("x", trt.DataType.FLOAT, (2, 3))
collective_layer = network.add_dist_collective(x, trt.CollectiveOperation.ALL_REDUCE, trt.ReduceOperation.SUM, -1, None)

collective_layer.num_ranks = num_gpus

collective_layer.get_output(0).name = "sum"
network.mark_output(collective_layer.get_output(0))
serialized_engine = builder.build_serialized_network(network, builder.create_builder_config())

engine = trt.Runtime(logger).deserialize_cuda_engine(serialized_engine)
context = engine.create_execution_context()
numbers = [np.arange(6, dtype=np.float32).reshape(2, 3) + 10 * r for r in range(num_gpus)]
outputs = bind(engine, context, {"x": numbers[rank]})

context.set_communicator(nccl_comm)

context.execute_async_v3(stream_ptr)

np.testing.assert_array_equal(outputs["sum"], sum(numbers))
print(f"rank {rank} of {num_gpus}: {outputs['sum'].tolist()}")
