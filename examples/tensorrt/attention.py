"""Multi-device attention through TensorRT's Python names: each rank holds a part of the sequence and gets the result for it."""

import numpy as np
import tandem.tensorrt as trt
from ranks import bind, nccl_comm, num_gpus, rank, stream

logger = trt.Logger(trt.Logger.WARNING)
builder = trt.Builder(logger)
network = builder.create_network()
query, key, value = (network.add_input(name, trt.DataType.FLOAT, (1, 2, 5, 8)) for name in ("query", "key", "value"))

# Add attention layer and set number of ranks
attention = network.add_attention_v2(query, key, value, trt.AttentionNormalizationOp.SOFTMAX, trt.CausalMaskKind.NONE)
attention.num_ranks = num_gpus

network.mark_output(attention.get_output(0))
serialized_engine = builder.build_serialized_network(network, builder.create_builder_config())

engine = trt.Runtime(logger).deserialize_cuda_engine(serialized_engine)
context = engine.create_execution_context()
whole = np.random.default_rng(0).standard_normal((3, 1, 2, 5 * num_gpus, 8), dtype=np.float32)  # q, k and v of the whole sequence
parts = np.ascontiguousarray(whole[:, :, :, 5 * rank : 5 * (rank + 1)])
outputs = bind(engine, context, dict(zip(("query", "key", "value"), parts, strict=True)))

# At runtime, on each rank, set communicator and run inference
context.set_communicator(nccl_comm)
context.execute_async_v3(stream)

q, k, v = whole.astype(np.float64)
weights = np.exp(q @ k.swapaxes(2, 3))
expected = weights / weights.sum(3, keepdims=True) @ v
error = np.abs(outputs[engine.get_tensor_name(3)] - expected[:, :, 5 * rank : 5 * (rank + 1)]).max()
assert error <= 1e-5, error
print(f"rank {rank} of {num_gpus}: largest error {error:.1e}")
