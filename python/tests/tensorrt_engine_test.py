"""tandem.tensorrt: settings, parser, serialized engines, inspection and contexts of one rank."""

import json
import logging

import numpy as np
import onnx
import pytest
import tandem
import tandem.tensorrt as trt
from onnx import TensorProto, helper

FLOAT = trt.DataType.FLOAT


class Heard(trt.ILogger):
    def __init__(self):
        super().__init__()
        self.messages = []

    def log(self, severity, msg):
        self.messages.append((severity, msg))


def add_network(builder, shape=(2, 3)):
    network = builder.create_network()
    a, b = (network.add_input(name, FLOAT, shape) for name in "ab")
    layer = network.add_elementwise(a, b, trt.ElementWiseOperation.SUM)
    layer.get_output(0).name = "sum"
    network.mark_output(layer.get_output(0))
    return network


@pytest.fixture
def builder():
    return trt.Builder(trt.Logger())


@pytest.fixture
def config(builder):
    return builder.create_builder_config()


@pytest.fixture
def engine(builder, config):
    return trt.Runtime(trt.Logger()).deserialize_cuda_engine(builder.build_serialized_network(add_network(builder), config))


# Logger


def test_logger_hands_down_to_logging(caplog):
    logger = trt.Logger(trt.Logger.WARNING)
    with caplog.at_level(logging.DEBUG, "tandem.tensorrt"):
        logger.log(trt.Logger.ERROR, "bad")
        logger.log(trt.Logger.INFO, "not told")
        logger.min_severity = trt.Logger.Severity.VERBOSE
        logger.log(trt.ILogger.VERBOSE, "told")
    assert [(r.levelname, r.message) for r in caplog.records] == [("ERROR", "bad"), ("DEBUG", "told")]


def test_errors_are_told_once_and_raised():
    logger = Heard()
    runtime = trt.Runtime(logger)
    with pytest.raises(tandem.Error, match="not an engine") as caught:
        runtime.deserialize_cuda_engine(b"not one")
    assert caught.value.code == "invalid_engine"
    assert [(severity, "not an engine" in text) for severity, text in logger.messages] == [(trt.Logger.ERROR, True)]
    with pytest.raises(tandem.Error, match="logger is expected"):
        trt.Builder(None)


# Settings


ACCEPTED = "REFIT REFIT_IDENTICAL STRIP_PLAN DISABLE_TIMING_CACHE TF32 DEBUG STRICT_NANS DISABLE_COMPILATION_CACHE WEIGHT_STREAMING".split()


@pytest.mark.parametrize("flag", ACCEPTED)
def test_flags_that_mean_something(config, flag):
    flag = trt.BuilderFlag[flag]
    config.clear_flag(flag)
    assert not config.get_flag(flag)
    config.set_flag(flag)
    assert config.get_flag(flag) and config.flags >> int(flag) & 1


def test_tf32_is_asked_for(builder, config):
    assert not config.get_flag(trt.BuilderFlag.TF32) and config.flags == 0  # other than in TensorRT
    config.device = "cpu"
    heard = Heard()
    for asked in (False, True):
        if asked:
            config.set_flag(trt.BuilderFlag.TF32)
        listening = trt.Builder(heard)
        plan = listening.build_serialized_network(add_network(listening), config)
        engine = trt.Runtime(heard).deserialize_cuda_engine(plan)
        report = engine._engine.describe()
        assert ("tf32" in report["built_with"].get("options", "").split()) == asked
        assert report["tf32"] is False  # on the CPU
        assert any("TF32 changes nothing on CPU ranks" in text for _, text in heard.messages) == asked


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


REFUSED = [
    "EDITABLE_TIMING_CACHE",
    "ERROR_ON_TIMING_CACHE_MISS",
    "SPARSE_WEIGHTS",
    "VERSION_COMPATIBLE",
    "EXCLUDE_LEAN_RUNTIME",
]
REFUSED += ["REFIT_INDIVIDUAL", "MONITOR_MEMORY", "DISTRIBUTIVE_INDEPENDENCE"]


@pytest.mark.parametrize("flag", REFUSED)
def test_flags_that_are_refused(config, flag):
    with pytest.raises(tandem.Error, match=flag) as caught:
        config.set_flag(trt.BuilderFlag[flag])
    assert caught.value.code == "unsupported" and not config.get_flag(trt.BuilderFlag[flag])
    with pytest.raises(tandem.Error, match=flag):
        config.flags = 1 << int(trt.BuilderFlag[flag])


def test_every_flag_is_decided():
    assert {*ACCEPTED, *REFUSED} == {flag.name for flag in trt.BuilderFlag}


@pytest.mark.parametrize("name", ["FP16", "INT8", "BF16", "OBEY_PRECISION_CONSTRAINTS"])
def test_flags_that_tensorrt_11_removed(name):
    assert not hasattr(trt.BuilderFlag, name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("profiling_verbosity", trt.ProfilingVerbosity.NONE),
        ("engine_capability", trt.EngineCapability.SAFETY),
        ("engine_capability", trt.EngineCapability.DLA_STANDALONE),
        ("default_device_type", trt.DeviceType.DLA),
        ("hardware_compatibility_level", trt.HardwareCompatibilityLevel.AMPERE_PLUS),
        ("runtime_platform", trt.RuntimePlatform.WINDOWS_AMD64),
        ("int8_calibrator", None),
        ("algorithm_selector", None),
        ("a_word_of_nobody", 1),
    ],
)
def test_settings_that_are_refused(config, name, value):
    with pytest.raises(tandem.Error) as caught:
        setattr(config, name, value)
    assert caught.value.code == "unsupported"


def test_devices(config):
    from tandem._core import device_kinds

    for device in ("cpu", *(["cuda"] if "cuda" in device_kinds() else [])):
        config.device = device
        assert config.device == device
    if "cuda" in device_kinds():
        config.default_device_type = trt.DeviceType.GPU
        assert config.default_device_type == trt.DeviceType.GPU and config.device == "cuda"
    else:
        with pytest.raises(tandem.Error, match="make cuda") as caught:
            config.default_device_type = trt.DeviceType.GPU
        assert caught.value.code == "unsupported"
    config.device = "cpu"
    with pytest.raises(tandem.Error, match="no name"):
        _ = config.default_device_type
    with pytest.raises(tandem.Error, match="expected 'cpu' or 'cuda'"):
        config.device = "tpu"


def test_settings_that_hold(config):
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.engine_capability = trt.EngineCapability.STANDARD
    config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.NONE
    config.runtime_platform = trt.RuntimePlatform.SAME_AS_BUILD
    config.set_preview_feature(trt.PreviewFeature.MULTIDEVICE_RUNTIME_10_16, True)
    assert config.get_preview_feature(trt.PreviewFeature.MULTIDEVICE_RUNTIME_10_16)
    with pytest.raises(tandem.Error, match="ALIASED_PLUGIN_IO"):
        config.set_preview_feature(trt.PreviewFeature.ALIASED_PLUGIN_IO_10_03, True)
    config.mesh = {"tp": 2}
    assert config.mesh.size == 2


def test_memory_limit(builder, config):
    config.set_memory_pool_limit(trt.MemoryPoolType.TACTIC_SHARED_MEMORY, 1 << 30)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 20)
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 1 << 20
    network = builder.create_network()
    x = network.add_input("x", FLOAT, (64, 64))
    y = network.add_softmax(network.add_matrix_multiply(x, trt.MatrixOperation.NONE, x, trt.MatrixOperation.TRANSPOSE).get_output(0))
    network.mark_output(network.add_reduce(y.get_output(0), trt.ReduceOperation.SUM, 1, False).get_output(0))
    builder.build_serialized_network(network, config)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 16)
    with pytest.raises(tandem.Error, match="WORKSPACE limit is 16") as caught:
        builder.build_serialized_network(network, config)
    assert caught.value.code == "out_of_memory"
    for pool in ("DLA_MANAGED_SRAM", "TACTIC_DRAM"):
        with pytest.raises(tandem.Error, match=pool):
            config.set_memory_pool_limit(trt.MemoryPoolType[pool], 1)


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


def single_input(builder):
    network = builder.create_network()
    network.mark_output(network.add_unary(network.add_input("x", FLOAT, (-1,)), trt.UnaryOperation.NEG).get_output(0))
    return network


def test_timing_cache(builder, config):
    cache = config.create_timing_cache(b"")
    assert config.set_timing_cache(cache, False)
    config.builder_optimization_level = 3
    network = builder.create_network()
    x = network.add_input("x", FLOAT, (8, 8))
    network.mark_output(network.add_matrix_multiply(x, trt.MatrixOperation.NONE, x, trt.MatrixOperation.NONE).get_output(0))
    builder.build_serialized_network(network, config)
    first = bytes(config.get_timing_cache().serialize())
    assert first
    builder.build_serialized_network(network, config)
    assert cache.serialize() == first  # nothing was timed again
    assert config.create_timing_cache(first).serialize() == first
    cache.reset()
    assert cache.serialize() == b""
    for refused in (lambda: config.set_timing_cache(cache, True), lambda: cache.combine(cache, False)):
        with pytest.raises(tandem.Error) as caught:
            refused()
        assert caught.value.code == "unsupported"
    with pytest.raises(tandem.Error, match="0 to 5"):
        config.builder_optimization_level = 6


class Monitor(trt.IProgressMonitor):
    def __init__(self, stop_at=None):
        super().__init__()
        self.phases, self.open, self.steps, self.stop_at = [], 0, 0, stop_at

    def phase_start(self, phase_name, parent_phase, num_steps):
        assert num_steps > 0 and parent_phase is None
        self.phases.append(phase_name)
        self.open += 1

    def step_complete(self, phase_name, step):
        assert phase_name == self.phases[-1]
        self.steps += 1
        return self.steps != self.stop_at

    def phase_finish(self, phase_name):
        assert phase_name == self.phases[-1]
        self.open -= 1


def test_progress_monitor(builder, config):
    config.progress_monitor = monitor = Monitor()
    builder.build_serialized_network(add_network(builder), config)
    assert monitor.phases and monitor.open == 0 and monitor.steps >= len(monitor.phases)
    config.progress_monitor = Monitor(stop_at=1)
    with pytest.raises(tandem.Error, match="progress monitor") as caught:
        builder.build_serialized_network(add_network(builder), config)
    assert caught.value.code == "interrupted"


def test_create_network_flags(builder):
    for flags in (0, 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH), 3):
        assert builder.create_network(flags).get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    with pytest.raises(tandem.Error, match="flags 0x4"):
        builder.create_network(4)


# Parser


def onnx_model(op="Add", opset=18):
    nodes = [helper.make_node(op, ["a", "b"], ["y"], "the_node")]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "aby"]
    return helper.make_model(
        helper.make_graph(nodes, "g", ports[:2], ports[2:]), opset_imports=[helper.make_opsetid("", opset)], ir_version=9
    )


def test_parser_of_bytes_and_files(builder, config, tmp_path):
    file = tmp_path / "add.onnx"
    onnx.save(onnx_model(), file)
    for parse in (
        lambda p: p.parse(file.read_bytes()),
        lambda p: p.parse(file.read_bytes(), str(file)),
        lambda p: p.parse_from_file(str(file)),
    ):
        network = builder.create_network()
        parser = trt.OnnxParser(network, trt.Logger())
        assert parse(parser) is True and parser.num_errors == 0
        assert (network.num_inputs, network.num_outputs) == (2, 1)
        x = network.get_input(0)
        assert (x.name, x.shape, x.dtype, x.get_dimension_name(0)) == ("a", (-1, 3), FLOAT, "n")
        assert network.get_output(0).name == "y" and network.get_output(0).is_network_output
        engine = builder.build_engine_with_config(network, config)
        assert run_add(engine, "y")


def run_add(engine, output):
    context = engine.create_execution_context()
    a, b = np.arange(12, dtype=np.float32).reshape(4, 3), np.ones((4, 3), np.float32)
    out = np.zeros((4, 3), np.float32)
    for name, array in (("a", a), ("b", b), (output, out)):
        if name != output:
            context.set_input_shape(name, array.shape)
        context.set_tensor_address(name, array.ctypes.data)
    context.execute_async_v3(0)
    return (out == a + b).all()


def test_layers_after_a_parsed_model(builder, config):
    network = builder.create_network()
    assert trt.OnnxParser(network, trt.Logger()).parse(onnx_model().SerializeToString())
    y = network.get_output(0)
    network.unmark_output(y)
    negated = network.add_unary(network.add_unary(y, trt.UnaryOperation.NEG).get_output(0), trt.UnaryOperation.NEG).get_output(0)
    negated.name = "same"
    network.mark_output(negated)
    assert negated.shape == (-1, 3) and "same" in network.to_text()
    assert run_add(builder.build_engine_with_config(network, config), "same")
    with pytest.raises(tandem.Error, match="of a parsed model"):
        network.get_input(0).shape = (4, 3)
    with pytest.raises(tandem.Error, match="not empty"):
        trt.OnnxParser(network, trt.Logger()).parse(onnx_model().SerializeToString())


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        (b"not a model", None, "."),
        (onnx_model("NoSuchOperator").SerializeToString(), "UNSUPPORTED_NODE", "NoSuchOperator"),
        (onnx_model(opset=3).SerializeToString(), None, "opset"),
    ],
)
def test_parser_errors(builder, model, code, words):
    logger, network = Heard(), builder.create_network()
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(model) is False and parser.num_errors == 1
    error = parser.get_error(0)
    assert words in str(error) or words == "."
    assert error.code() != trt.ErrorCode.SUCCESS and (code is None or error.code().name == code)
    if code:
        assert error.node_operator() == "NoSuchOperator" and error.node_name() == "the_node"
    assert len(logger.messages) == 1
    parser.clear_errors()
    assert parser.num_errors == 0
    with pytest.raises(tandem.Error, match="no error 0"):
        parser.get_error(0)
    assert parser.parse(onnx_model().SerializeToString())  # the network stayed empty


def test_parser_flags(builder):
    parser = trt.OnnxParser(builder.create_network(), trt.Logger())
    parser.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)
    assert parser.get_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)
    with pytest.raises(tandem.Error, match="ENABLE_PLUGIN_OVERRIDE"):
        parser.set_flag(trt.OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE)


# Engines


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


# Contexts


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


# The module


@pytest.mark.parametrize("name", ["Refitter", "init_libnvinfer_plugins", "IInt8Calibrator", "SomethingElse"])
def test_names_that_are_missing(name):
    assert not hasattr(trt, name)
    with pytest.raises(tandem.Error, match=name):
        getattr(trt, name)


def test_types():
    assert trt.volume((2, 3, 4)) == 24 and trt.volume(()) == 1
    assert trt.nptype(trt.float32) is np.float32 and trt.DataType.BF16.itemsize == 2 and trt.DataType.FP8.itemsize == 1
    with pytest.raises(TypeError, match="BF16"):
        trt.nptype(trt.bfloat16)
    assert trt.Dims((2, 3)) == (2, 3) and trt.Dims((2, 3)).numel() == 6 and trt.__version__.startswith("11.")
    weights = trt.Weights(np.ones((2, 3), np.float32))
    assert (weights.dtype, weights.size, len(weights), weights.nbytes) == (FLOAT, 6, 6, 24)
    with pytest.raises(tandem.Error, match="float64"):
        trt.Weights(np.ones(3))
    assert [op.name for op in trt.CollectiveOperation] == [
        "ALL_REDUCE",
        "ALL_GATHER",
        "BROADCAST",
        "REDUCE",
        "REDUCE_SCATTER",
        "ALL_TO_ALL",
        "GATHER",
        "SCATTER",
    ]
    assert [int(op) for op in trt.ReduceOperation] == list(range(6)) and trt.LayerType.DIST_COLLECTIVE == 56
