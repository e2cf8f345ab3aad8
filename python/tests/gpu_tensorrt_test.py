"""TensorRT's names on a GPU: device memory, streams, communicators of NCCL. Skipped, with the reason, where there is no GPU."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tandem
import tandem.tensorrt as trt

pytestmark = pytest.mark.skipif(tandem.gpu_count() == 0, reason="this machine has no GPU, or the package was built without CUDA")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "tensorrt"


@pytest.fixture(scope="module")
def torch():
    module = pytest.importorskip("torch", reason="torch is not installed")
    if not module.cuda.is_available():
        pytest.skip("torch sees no GPU")
    return module


@pytest.fixture(scope="module")
def engine():
    """sum = a + b, [2, 3]; as a program for TensorRT builds it, with no word on the device."""
    builder = trt.Builder(trt.Logger())
    network = builder.create_network()
    a, b = (network.add_input(name, trt.DataType.FLOAT, (2, 3)) for name in "ab")
    layer = network.add_elementwise(a, b, trt.ElementWiseOperation.SUM)
    layer.get_output(0).name = "sum"
    network.mark_output(layer.get_output(0))
    config = builder.create_builder_config()
    assert config.default_device_type == trt.DeviceType.GPU
    return trt.Runtime(trt.Logger()).deserialize_cuda_engine(builder.build_serialized_network(network, config))


def numbers(torch):
    return [torch.arange(6, dtype=torch.float32, device="cuda").reshape(2, 3) * factor for factor in (1, 10)]


def bound(engine, torch):
    context = engine.create_execution_context()
    tensors = dict(zip(("a", "b", "sum"), (*numbers(torch), torch.zeros(2, 3, device="cuda")), strict=True))
    for name, tensor in tensors.items():
        context.set_tensor_address(name, tensor.data_ptr())
    return context, tensors


def test_tensors_lie_on_the_device(engine):
    assert [engine.get_tensor_location(name) for name in "ab"] == [trt.TensorLocation.DEVICE] * 2
    assert engine.tandem_engine.device == "cuda"


@pytest.mark.parametrize("kind", ["zero", "number", "object"])
def test_streams(engine, torch, kind):
    context, tensors = bound(engine, torch)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    for _ in range(4):
        tensors["sum"].zero_()
        torch.cuda.synchronize()
        assert context.execute_async_v3({"zero": 0, "number": stream.cuda_stream, "object": stream}[kind])
        (torch.cuda.default_stream() if kind == "zero" else stream).synchronize()
        assert torch.equal(tensors["sum"], tensors["a"] + tensors["b"])


def test_synchronous(engine, torch):
    context, tensors = bound(engine, torch)
    torch.cuda.synchronize()
    assert context.execute_v2([tensors[name].data_ptr() for name in ("a", "b", "sum")])
    assert torch.equal(tensors["sum"], tensors["a"] + tensors["b"])


def test_within_a_graph(engine, torch):
    context, tensors = bound(engine, torch)
    torch.cuda.synchronize()
    context.execute_async_v3(0)
    torch.cuda.synchronize()
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.graph(graph, stream=stream):
        context.execute_async_v3(stream)
    tensors["a"].fill_(5)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(tensors["sum"], tensors["a"] + tensors["b"])


def test_weight_streaming():
    """The same bits with less and less of the weights on the GPU."""
    builder = trt.Builder(trt.Logger())
    network = builder.create_network()
    x = network.add_input("x", trt.DataType.FLOAT, (4, 512))
    generator = np.random.default_rng(1)
    for i in range(8):
        weight = generator.uniform(-0.1, 0.1, (512, 512)).astype(np.float32)
        constant = network.add_constant((512, 512), weight)
        constant.name = f"w{i}"
        product = network.add_matrix_multiply(x, trt.MatrixOperation.NONE, constant.get_output(0), trt.MatrixOperation.NONE)
        x = network.add_activation(product.get_output(0), trt.ActivationType.RELU).get_output(0)
    x.name = "y"
    network.mark_output(x)
    config = builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(builder.build_serialized_network(network, config))
    total = engine.streamable_weights_size
    assert total >= 8 * 512 * 512 * 4 and engine.weight_streaming_budget_v2 == total
    assert engine.weight_streaming_scratch_memory_size == 0 and 0 < engine.get_weight_streaming_automatic_budget() <= total
    given = generator.uniform(-1, 1, (4, 512)).astype(np.float32)

    def outputs(budget):
        context = tandem.Context(engine.tandem_engine, weight_budget=budget)
        return [context(x=given)["y"].tobytes() for _ in range(3)]

    wanted = outputs(None)
    for part in (0, total // 3, total // 2, total - 1):
        engine.weight_streaming_budget_v2 = part
        budget = engine.weight_streaming_budget_v2
        assert part <= budget < total and 0 < engine.weight_streaming_scratch_memory_size <= budget
        assert engine.create_execution_context().num_ranks == 1
        assert outputs(budget) == wanted
    engine.weight_streaming_budget_v2 = total
    assert engine.weight_streaming_scratch_memory_size == 0
    with pytest.raises(tandem.Error, match="0 streams as much"):
        engine.weight_streaming_budget_v2 = -1


def test_a_communicator_of_nccl(engine, torch):
    import ctypes

    nccl = ctypes.CDLL("libnccl.so.2")
    communicator = ctypes.c_void_p()
    assert nccl.ncclCommInitAll(ctypes.byref(communicator), 1, None) == 0
    context, tensors = bound(engine, torch)
    assert context.set_communicator(communicator.value)
    torch.cuda.synchronize()
    context.execute_async_v3(0)
    torch.cuda.synchronize()
    assert torch.equal(tensors["sum"], tensors["a"] + tensors["b"])
    with pytest.raises(tandem.Error, match="no communicator"):
        context.set_communicator(0)
    with tandem.Group.from_nccl(communicator.value) as group:
        assert (group.rank, group.size) == (0, 1)
    assert nccl.ncclCommDestroy(communicator) == 0


DEAD = """
import ctypes
import numpy as np
import tandem
import torch

torch.cuda.init()
nccl, communicator = ctypes.CDLL("libnccl.so.2"), ctypes.c_void_p()
assert nccl.ncclCommInitAll(ctypes.byref(communicator), 1, None) == 0
assert nccl.ncclCommDestroy(communicator) == 0
zeros = np.zeros(1 << 17)
for number in (communicator.value, zeros.ctypes.data):
    try:
        tandem.Group.from_nccl(number)
    except tandem.Error as error:
        print(error.code)
"""


def test_a_communicator_that_is_destroyed(torch):
    """What NCCL itself says of memory that holds none; in a process of its own, for it may say that by a crash."""
    done = subprocess.run([sys.executable, "-c", DEAD], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "invalid_argument\n" * 2), done.stderr


class Comm:
    """As cupy's communicators are."""

    def __init__(self, address):
        self.comm = address


def test_what_is_no_communicator(reducing):
    context = reducing.create_execution_context()
    for bad in (5, 8, -1, 1 << 46, 1 << 70, Comm(8)):  # where no process has memory
        with pytest.raises(tandem.Error) as caught:
            context.set_communicator(bad)
        assert caught.value.code == "invalid_argument", caught.value
    with pytest.raises(tandem.Error, match="2 ranks.*set_communicator"):
        context.execute_async_v3(0)


@pytest.fixture(scope="module")
def reducing():
    """sum over two ranks, [2, 3]."""
    builder = trt.Builder(trt.Logger())
    network = builder.create_network()
    layer = network.add_dist_collective(
        network.add_input("x", trt.DataType.FLOAT, (2, 3)), trt.CollectiveOperation.ALL_REDUCE, trt.ReduceOperation.SUM, -1, None
    )
    layer.num_ranks = 2
    layer.get_output(0).name = "sum"
    network.mark_output(layer.get_output(0))
    return trt.Runtime(trt.Logger()).deserialize_cuda_engine(builder.build_serialized_network(network, builder.create_builder_config()))


def run_programs(folder, program, ranks):
    """The program as it is, beside the launcher's part for GPUs; what each rank prints."""
    shutil.copy(EXAMPLES / program, folder)
    shutil.copy(EXAMPLES / "gpu" / "ranks.py", folder)
    bare = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    places = [{}]
    if ranks > 1:
        from tensorrt_snippets_test import free_port

        common = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        places = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
    command = [sys.executable, str(folder / program)]
    started = [
        subprocess.Popen(command, env={**bare, **place}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for place in places
    ]
    ended = [process.communicate(timeout=120) for process in started]
    for process, (_, errors) in zip(started, ended, strict=True):
        assert process.returncode == 0, errors
    return [printed for printed, _ in ended]


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("program", ["collective.py", "attention.py", "sharded_model.py"])
def test_programs_of_the_documents(tmp_path, program, ranks, torch):
    """With a communicator of NCCL where there is a GPU for each rank."""
    printed = run_programs(tmp_path, program, ranks)
    assert all(f"rank {rank} of {ranks}" in text for rank, text in enumerate(printed))


def test_an_engine_for_the_cpu_by_word(torch):
    builder = trt.Builder(trt.Logger())
    network = builder.create_network()
    x = network.add_input("x", trt.DataType.FLOAT, (2, 3))
    layer = network.add_activation(x, trt.ActivationType.RELU)
    layer.get_output(0).name = "y"
    network.mark_output(layer.get_output(0))
    config = builder.create_builder_config()
    config.device = "cpu"
    context = builder.build_engine_with_config(network, config).create_execution_context()
    given, out = np.arange(-3, 3, dtype=np.float32).reshape(2, 3), np.empty((2, 3), np.float32)
    context.set_tensor_address("x", given.ctypes.data)
    context.set_tensor_address("y", out.ctypes.data)
    context.execute_async_v3(0)
    np.testing.assert_array_equal(out, np.maximum(given, 0))
    with pytest.raises(tandem.Error, match="pass 0"):
        context.execute_async_v3(torch.cuda.Stream())
