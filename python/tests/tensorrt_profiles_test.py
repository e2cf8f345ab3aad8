"""tandem.tensorrt: optimization profiles and shapes that are not known, or known only after a run."""

import numpy as np
import pytest
import tandem
import tandem.tensorrt as trt
from conftest import add_network
from onnx import TensorProto, helper

FLOAT = trt.DataType.FLOAT


def single_input(builder):
    network = builder.create_network()
    network.mark_output(network.add_unary(network.add_input("x", FLOAT, (-1,)), trt.UnaryOperation.NEG).get_output(0))
    return network


def test_profiles(builder, config):
    profile = builder.create_optimization_profile()
    assert not profile
    with pytest.raises(tandem.Error, match="min <= opt <= max"):
        profile.set_shape("a", (1, 3), (8, 3), (4, 3))
    with pytest.raises(tandem.Error, match="same number"):
        profile.set_shape("a", (1, 3), (8,), (4, 3))
    for name in "ab":
        profile.set_shape(name, (1, 3), (4, 3), (9, 3))
    assert profile.get_shape("a")[2] == (9, 3) and profile.get_shape("c") == []
    assert config.add_optimization_profile(profile) == 0 and config.num_optimization_profiles == 1
    engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(builder.build_serialized_network(add_network(builder, (-1, 3)), config))
    assert engine.get_tensor_shape("a") == (-1, 3) and engine.get_tensor_profile_shape("a", 0) == [(1, 3), (4, 3), (9, 3)]
    assert engine.get_tensor_profile_shape("sum", 0)[2] == (9, 3)
    other = builder.create_builder_config()
    other.add_optimization_profile(profile)
    with pytest.raises(tandem.Error, match="no inputs for"):
        builder.build_serialized_network(single_input(builder), other)


def test_several_profiles(builder, config):
    network = builder.create_network()
    network.mark_output(network.add_unary(network.add_input("x", FLOAT, (-1,)), trt.UnaryOperation.NEG).get_output(0))
    network.get_output(0).name = "y"
    ranges = [[(1,), (1,), (2,)], [(2,), (8,), (9,)]]
    for i, (low, typical, high) in enumerate(ranges):
        profile = builder.create_optimization_profile()
        profile.set_shape("x", low, typical, high)
        assert config.add_optimization_profile(profile) == i
    assert config.num_optimization_profiles == 2
    engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(builder.build_serialized_network(network, config))
    assert engine.num_optimization_profiles == 2
    for i, expected in enumerate(ranges):
        assert engine.get_tensor_profile_shape("x", i) == engine.get_tensor_profile_shape("y", i) == expected
    assert engine.get_device_memory_size_for_profile_v2(1) == engine.device_memory_size_v2
    context = engine.create_execution_context()

    def run(count):
        x, y = np.arange(count, dtype=np.float32) + 1, np.zeros(count, np.float32)
        context.set_input_shape("x", (count,))
        assert context.set_tensor_address("x", x.ctypes.data) and context.set_tensor_address("y", y.ctypes.data)
        assert context.execute_async_v3(0)
        np.testing.assert_array_equal(y, -x)

    assert context.active_optimization_profile == 0 and context.get_max_output_size("y") == 8
    run(1)
    with pytest.raises(tandem.Error, match=r"profile 0: input 'x'.* = 5 is outside 1 … 2; profile 1 would"):
        run(5)
    assert context.set_optimization_profile_async(1, 0) and context.active_optimization_profile == 1
    assert context.get_max_output_size("y") == 36
    run(5)
    run(2)
    for wrong in (2, -2):
        with pytest.raises(tandem.Error, match="no optimization profile"):
            context.set_optimization_profile_async(wrong, 0)
        with pytest.raises(tandem.Error, match="no optimization profile"):
            engine.get_tensor_profile_shape("x", wrong)
    run(9)
    empty = builder.create_builder_config()
    for profile in (builder.create_optimization_profile(), builder.create_optimization_profile()):
        empty.add_optimization_profile(profile)
    with pytest.raises(tandem.Error, match="optimization profile 0 gives no input a shape"):
        builder.build_serialized_network(network, empty)


def test_dynamic_shapes_of_a_context(builder, config):
    engine = builder.build_engine_with_config(add_network(builder, (-1, 3)), config)
    context = engine.create_execution_context()
    assert context.get_tensor_shape("sum") == (-1, 3) and context.infer_shapes() == ["a", "b"]
    with pytest.raises(tandem.Error, match="no shape was set"):
        context.execute_v2([1, 1, 1])
    context.set_input_shape("a", (5, 3))
    assert context.infer_shapes() == ["b"] and context.get_tensor_shape("sum") == (-1, 3)
    context.set_input_shape("b", (5, 3))
    assert context.infer_shapes() == [] and context.get_tensor_shape("sum") == (5, 3)
    context.set_input_shape("b", (6, 3))
    with pytest.raises(tandem.Error, match="5"):
        context.get_tensor_shape("sum")


class Allocated(trt.IOutputAllocator):
    def __init__(self):
        super().__init__()
        self.memory, self.asked, self.shape = None, [], None

    def reallocate_output_async(self, tensor_name, memory, size, alignment, stream):
        self.asked.append((tensor_name, memory, size, stream))
        self.memory = np.full(size, 0x5A, np.uint8)
        return self.memory.ctypes.data

    def notify_shape(self, tensor_name, shape):
        self.shape = (tensor_name, tuple(shape))


def test_output_allocator(builder, config):
    network = builder.create_network()
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["x"], ["y"], name="find"), helper.make_node("Neg", ["x"], ["z"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 3])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [2, "n"]), helper.make_tensor_value_info("z", TensorProto.FLOAT, ["B", 3])],
    )
    parser = trt.OnnxParser(network, trt.Logger())
    assert parser.parse(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString())
    engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(builder.build_serialized_network(network, config))
    assert engine.get_tensor_shape("y") == (2, -1)
    context = engine.create_execution_context()
    assert context.set_input_shape("x", (2, 3)) and context.get_tensor_shape("y") == (2, -1) and context.get_tensor_shape("z") == (2, 3)
    x, z = np.array([[0, 1, 0], [2, 0, 3]], np.float32), np.zeros((2, 3), np.float32)
    context.set_tensor_address("x", x.ctypes.data)
    context.set_tensor_address("z", z.ctypes.data)
    with pytest.raises(tandem.Error, match="y: no address was set"):
        context.execute_async_v3(0)
    room = np.zeros(12, np.int64)  # without an allocator: for the most
    context.set_tensor_address("y", room.ctypes.data)
    assert context.execute_async_v3(0)
    np.testing.assert_array_equal(room[:6], np.stack(np.nonzero(x)).ravel())
    outputs, other = Allocated(), Allocated()
    assert context.set_output_allocator("y", outputs) and context.get_output_allocator("y") is outputs
    assert context.set_output_allocator("z", other)
    assert context.execute_async_v3(0)
    assert outputs.asked == [("y", room.ctypes.data, 96, 0)] and outputs.shape == ("y", (2, 3))
    np.testing.assert_array_equal(outputs.memory.view(np.int64)[:6], np.stack(np.nonzero(x)).ravel())
    assert other.shape == ("z", (2, 3)) and context.get_tensor_shape("y") == (2, -1)
    np.testing.assert_array_equal(other.memory.view(np.float32).reshape(2, 3), -x)
    with pytest.raises(tandem.Error, match="no output 'x'"):
        context.set_output_allocator("x", outputs)
    assert context.set_output_allocator("y", None) and context.get_output_allocator("y") is None
