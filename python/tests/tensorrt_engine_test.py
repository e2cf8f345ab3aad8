"""tandem.tensorrt: serialized engines, inspection and contexts of one rank."""

import json

import numpy as np
import pytest
import tandem
import tandem.tensorrt as trt
from conftest import add_network

FLOAT = trt.DataType.FLOAT


def test_serialized_engine(builder, config, tmp_path):
    memory = builder.build_serialized_network(add_network(builder), config)
    assert isinstance(memory, trt.IHostMemory) and memory and len(memory) == memory.nbytes == len(bytes(memory))
    file = tmp_path / "add.engine"
    file.write_bytes(memory)
    assert tandem.is_engine_file(file) and tandem.load_engine(file).ranks == 1
    runtime = trt.Runtime(trt.Logger())
    for data in (memory, bytes(memory), bytearray(memory), memoryview(memory), np.frombuffer(memory, np.uint8), file.read_bytes()):
        engine = runtime.deserialize_cuda_engine(data)
        assert bytes(engine.serialize()) == bytes(memory)
    damaged = bytearray(memory)
    damaged[200] ^= 1
    with pytest.raises(tandem.Error) as caught:
        runtime.deserialize_cuda_engine(damaged)
    assert caught.value.code == "invalid_engine"


def test_stripped_engine(builder, config):
    network = builder.create_network()
    x = network.add_input("x", FLOAT, (4, 64))
    w = network.add_constant((64, 64), np.ones((64, 64), np.float32))
    w.name = "w"
    network.mark_output(network.add_matrix_multiply(x, trt.MatrixOperation.NONE, w.get_output(0), trt.MatrixOperation.NONE).get_output(0))
    whole = builder.build_serialized_network(network, config)
    config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    stripped = builder.build_serialized_network(network, config)
    assert len(stripped) + 64 * 64 * 4 <= len(whole) + 4096
    engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(stripped)
    assert engine.refittable
    with pytest.raises(tandem.Error, match="STRIP_PLAN"):
        engine.create_execution_context()
    with pytest.raises(tandem.Error, match="STRIP_PLAN"):
        builder.build_engine_with_config(network, config)


def test_inspection(engine):
    assert engine.num_io_tensors == len(engine) == 3
    assert [engine.get_tensor_name(i) for i in range(3)] == ["a", "b", "sum"] == [engine[0], engine[1], engine[2]]
    assert [engine.get_tensor_mode(n).name for n in ("a", "sum", "other")] == ["INPUT", "OUTPUT", "NONE"]
    assert engine.get_tensor_dtype("a") == FLOAT and engine.get_tensor_shape("sum") == (2, 3)
    assert engine.get_tensor_location("a") == trt.TensorLocation.HOST and engine.get_tensor_format("a") == trt.TensorFormat.LINEAR
    assert (engine.get_tensor_bytes_per_component("a"), engine.get_tensor_vectorized_dim("a"), engine.num_optimization_profiles) == (
        4,
        -1,
        1,
    )
    assert (engine.num_ranks, engine.num_layers, engine.num_aux_streams, bool(engine)) == (1, 1, 0, True)
    assert engine.device_memory_size_v2 >= 0 and not engine.is_shape_inference_io("a")
    for wrong in (lambda: engine.get_tensor_name(3), lambda: engine.get_tensor_shape("c"), lambda: engine.get_tensor_profile_shape("a", 1)):
        with pytest.raises(tandem.Error) as caught:
            wrong()
        assert caught.value.code == "invalid_argument"
    inspector = engine.create_engine_inspector()
    assert "Add" in inspector.get_layer_information(0, trt.LayerInformationFormat.ONELINE)
    told = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    assert len(told["Layers"]) == 1 and told["world_size"] == 1


def test_weight_streaming_is_for_gpus(engine):
    with pytest.raises(tandem.Error, match="weight_streaming_budget_v2.*where they lie") as caught:
        engine.weight_streaming_budget_v2 = 5
    assert caught.value.code == "unsupported"
    for ask in (
        lambda: engine.streamable_weights_size,
        lambda: engine.weight_streaming_budget_v2,
        lambda: engine.weight_streaming_scratch_memory_size,
        lambda: engine.get_weight_streaming_automatic_budget(),
    ):
        with pytest.raises(tandem.Error, match="where they lie"):
            ask()


def test_context(engine):
    context = engine.create_execution_context()
    context.name = "mine"
    assert context.name == "mine" and context.engine is engine and context.num_ranks == 1
    assert context.all_binding_shapes_specified and context.infer_shapes() == []
    assert context.get_tensor_strides("sum") == (3, 1) and context.get_max_output_size("sum") == 24
    a, b, out = np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32), np.zeros((2, 3), np.float32)
    with pytest.raises(tandem.Error, match="a, b, sum: no address"):
        context.execute_async_v3(0)
    assert context.set_tensor_address("a", a.ctypes.data) and context.get_tensor_address("a") == a.ctypes.data
    with pytest.raises(tandem.Error, match="expected an int"):
        context.set_tensor_address("b", b)
    assert context.execute_v2([a.ctypes.data, b.ctypes.data, out.ctypes.data])
    assert (out == 3).all()
    with pytest.raises(tandem.Error, match="expected 3"):
        context.execute_v2([0])
    with pytest.raises(tandem.Error, match="no input 'sum'"):
        context.set_input_shape("sum", (2, 3))
    with pytest.raises(tandem.Error, match="cannot be"):
        context.set_input_shape("a", (3, 3))
    with pytest.raises(tandem.Error, match="profiler"):
        context.profiler = object()
    assert context.set_optimization_profile_async(0, 0)


def test_auxiliary_streams(builder, config):
    assert config.max_aux_streams == -1
    with pytest.raises(tandem.Error, match="max_aux_streams is -2") as caught:
        config.max_aux_streams = -2
    assert caught.value.code == "invalid_argument"
    config.max_aux_streams = 0
    config.device = "cpu"
    engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(builder.build_serialized_network(add_network(builder), config))
    context = engine.create_execution_context()
    context.set_aux_streams([7, 8])  # beyond those in use, and so left alone
    assert engine.num_aux_streams == 0
    a, b, out = (np.ones((2, 3), np.float32) for _ in range(3))
    for name, array in (("a", a), ("b", b), ("sum", out)):
        context.set_tensor_address(name, array.ctypes.data)
    assert context.execute_async_v3(0) and (out == 2).all()
    context.set_aux_streams([])
    assert context.execute_async_v3(0)


class Stream:
    def __init__(self, number):
        self.cuda_stream = number


def test_streams(engine):
    context = engine.create_execution_context()
    arrays = [np.zeros((2, 3), np.float32) for _ in range(3)]
    for name, array in zip(("a", "b", "sum"), arrays, strict=True):
        context.set_tensor_address(name, array.ctypes.data)
    assert context.execute_async_v3(0) and context.execute_async_v3(stream_handle=Stream(0))
    for stream in (1234, Stream(99)):
        with pytest.raises(tandem.Error, match="CPU ranks") as caught:
            context.execute_async_v3(stream)
        assert caught.value.code == "unsupported"
    with pytest.raises(tandem.Error, match="no stream"):
        context.execute_async_v3("0")
