"""Small models that the tests make themselves, with their oracles in plain numpy, and what tests of tandem.tensorrt share."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import tandem.tensorrt as trt
from onnx import TensorProto, helper, numpy_helper

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as a shell starts what runs in its background; the programs that tests start would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

MODELS = Path(__file__).resolve().parents[2] / "tests" / "models"


def save_onnx(path: Path, nodes: list[onnx.NodeProto], inputs: dict, outputs: dict, weights: dict | None = None) -> Path:
    """An ONNX file; inputs and outputs are name → (element type, shape)."""
    infos = [[helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in side.items()] for side in (inputs, outputs)]
    tensors = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(nodes, "test", *infos, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def on_threads(works: Sequence[Callable[[], object]]) -> list:
    """What each of the callables returned, run at once; the first error if any raised."""
    results: list = [None] * len(works)
    errors: list[BaseException] = []

    def run(i: int) -> None:
        try:
            results[i] = works[i]()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def add_model(folder: Path) -> Path:
    """y = a + b, of any [n, 4] f32."""
    node = helper.make_node("Add", ["a", "b"], ["y"])
    kind = (TensorProto.FLOAT, ["n", 4])
    return save_onnx(folder / "add.onnx", [node], {"a": kind, "b": kind}, {"y": kind})


@pytest.fixture(scope="session")
def typed_add(folder: Path) -> Callable[[str], Path]:
    """y = a + b, f32-sized [2, 3], of a named ONNX element type."""

    def make(name: str) -> Path:
        kind = (getattr(TensorProto, name), [2, 3])
        return save_onnx(folder / f"add_{name}.onnx", [helper.make_node("Add", ["a", "b"], ["y"])], {"a": kind, "b": kind}, {"y": kind})

    return make


class Mlp:
    """out = relu(x·W1 + b1)·W2 for x [n, 8]; 16 hidden units."""

    def __init__(self, path: Path) -> None:
        generator = np.random.default_rng(0)
        self.w1 = generator.standard_normal((8, 16), dtype=np.float32)
        self.b1 = generator.standard_normal(16, dtype=np.float32)
        self.w2 = generator.standard_normal((16, 8), dtype=np.float32)
        nodes = [
            helper.make_node("MatMul", ["x", "w1"], ["h"], "up"),
            helper.make_node("Add", ["h", "b1"], ["hb"], "bias"),
            helper.make_node("Relu", ["hb"], ["r"], "relu"),
            helper.make_node("MatMul", ["r", "w2"], ["out"], "down"),
        ]
        kind = (TensorProto.FLOAT, ["n", 8])
        self.path = save_onnx(path, nodes, {"x": kind}, {"out": kind}, {"w1": self.w1, "b1": self.b1, "w2": self.w2})

    def __call__(self, x: np.ndarray) -> np.ndarray:
        h = np.maximum(x.astype(np.float64) @ self.w1.astype(np.float64) + self.b1, 0)
        return h @ self.w2.astype(np.float64)

    def inputs(self, rows: int = 6) -> np.ndarray:
        return np.random.default_rng(1).standard_normal((rows, 8), dtype=np.float32)


@pytest.fixture(scope="session")
def mlp(folder: Path) -> Mlp:
    return Mlp(folder / "mlp.onnx")


class Heard(trt.ILogger):
    def __init__(self):
        super().__init__()
        self.messages = []

    def log(self, severity, msg):
        self.messages.append((severity, msg))


def add_network(builder, shape=(2, 3)):
    network = builder.create_network()
    a, b = (network.add_input(name, trt.DataType.FLOAT, shape) for name in "ab")
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
