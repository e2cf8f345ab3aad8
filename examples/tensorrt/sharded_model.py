"""An ONNX model of one device through TensorRT's Python names, sharded over the ranks by context parallelism: rank 0 builds, the others load.

The counterpart of TensorRT's sample attention_mdtrt, which has another tool rewrite the file first. The numbers are checked.
"""

import sys

import numpy as np
import onnx
import tandem.tensorrt as trt
from onnx import TensorProto, helper, numpy_helper
from ranks import bind, nccl_comm, num_gpus, rank, stream

HEADS, SIZE, ROWS = 4, 16, int(sys.argv[1]) if len(sys.argv) > 1 else 64
WIDTH = HEADS * SIZE
weights = {name: np.random.default_rng(i).standard_normal((WIDTH, WIDTH), dtype=np.float32) / 8 for i, name in enumerate(("wq", "wk", "wv", "wo"))}


def make_model() -> bytes:
    """Self-attention of [rows, width] as an exporter writes it."""
    nodes = []
    for name in "qkv":
        nodes.append(helper.make_node("MatMul", ["x", "w" + name], [name + "_flat"], f"project_{name}"))
        nodes.append(helper.make_node("Reshape", [name + "_flat", "split"], [name + "_heads"]))
        nodes.append(helper.make_node("Transpose", [name + "_heads"], [name], perm=[0, 2, 1, 3]))
    nodes.append(helper.make_node("Attention", ["q", "k", "v"], ["mixed"], "attention"))
    nodes.append(helper.make_node("Transpose", ["mixed"], ["rows"], perm=[0, 2, 1, 3]))
    nodes.append(helper.make_node("Reshape", ["rows", "join"], ["joined"]))
    nodes.append(helper.make_node("MatMul", ["joined", "wo"], ["y"], "project_out"))
    shapes = {"split": np.array([0, 0, HEADS, SIZE]), "join": np.array([0, 0, WIDTH])}
    tensors = [numpy_helper.from_array(value, name) for name, value in {**weights, **shapes}.items()]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "rows", WIDTH]) for name in "xy"]
    graph = helper.make_graph(nodes, "attention", ports[:1], ports[1:], tensors)
    model = onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    return bytes(model.SerializeToString())


logger = trt.Logger(trt.Logger.WARNING)


def build() -> bytes:
    """The engine for all ranks."""
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(make_model()):
        raise SystemExit("\n".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 30)
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, (1, num_gpus, WIDTH), (1, ROWS, WIDTH), (1, 4096, WIDTH))
    config.add_optimization_profile(profile)
    config.mesh = {"cp": num_gpus}  # ours: TensorRT leaves it to the user to shard the model
    return bytes(builder.build_serialized_network(network, config))


engine_bytes = nccl_comm.exchange(build() if rank == 0 else b"")[0]
engine = trt.Runtime(logger).deserialize_cuda_engine(engine_bytes)
context = engine.create_execution_context()
context.set_communicator(nccl_comm)

x = np.random.default_rng(9).standard_normal((1, ROWS, WIDTH), dtype=np.float32)
rows = slice(rank * ROWS // num_gpus, (rank + 1) * ROWS // num_gpus)
mine = np.ascontiguousarray(x[:, rows] if engine.tandem_engine.inputs[0].sharding != "{}" else x)
outputs = bind(engine, context, {"x": mine})
context.execute_async_v3(stream)

q, k, v = ((x.astype(np.float64) @ weights[name]).reshape(1, ROWS, HEADS, SIZE).swapaxes(1, 2) for name in ("wq", "wk", "wv"))
scores = np.exp(q @ k.swapaxes(2, 3) / np.sqrt(SIZE))
expected = (scores / scores.sum(3, keepdims=True) @ v).swapaxes(1, 2).reshape(1, ROWS, WIDTH) @ weights["wo"].astype(np.float64)
got = outputs["y"]
error = np.abs(got - (expected if got.shape == expected.shape else expected[:, rows])).max() / np.abs(expected).max()
assert error <= 1e-5, error
print(f"rank {rank} of {num_gpus}: largest relative error {error:.1e}")
