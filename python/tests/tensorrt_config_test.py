"""tandem.tensorrt: settings of a build, with its timing cache and progress."""

import pytest
import tandem
import tandem.tensorrt as trt
from conftest import Heard, add_network

FLOAT = trt.DataType.FLOAT


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
