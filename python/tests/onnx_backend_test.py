"""ONNX's node tests through tandem.onnx_backend, on one rank and with the inputs split over two; what is refused is listed by name.

The list is renewed with TANDEM_RENEW_DOCS=1; everything else passes.
"""

from __future__ import annotations

import importlib
import os
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import tandem
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case import node as cases_of_onnx
from tandem import onnx_backend

LIST = Path(__file__).with_name("onnx_refused.txt")
# Of onnx.backend.test.case.node; each holds the cases of an op.
MODULES = (
    "abs add and_ argmax argmin attention averagepool batch_normalization cast ceil clip concat conv convtranspose cos cumsum div dropout einsum elu equal erf exp expand flatten floor gather gatherelements gathernd "
    "gelu gemm globalaveragepool globalmaxpool greater greater_or_equal groupnormalization hardsigmoid hardswish identity instance_normalization isinf isnan layernormalization leakyrelu less less_or_equal log logsoftmax matmul max maxpool "
    "min mod mul neg nonzero not_ or_ pad pow reciprocal reduce_log_sum reduce_log_sum_exp reducel1 reducel2 reducemax reducemean reducemin reduceprod reducesum "
    "reducesumsquare relu reshape resize rmsnormalization rotaryembedding round scatternd shape sigmoid sign sin size slice softmax softplus split sqrt squeeze sub "
    "sum swish tanh tile topk transpose trilu unsqueeze upsample where xor"
).split()
# The reference rounds to bf16 after every step, tandem once: one step of bf16 apart, which ONNX's tolerance of 1e-3 does not know.
BF16_TOLERANCE = 1.6e-2


def cases_of(module: str) -> list:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = len(cases_of_onnx._NodeTestCases)
        made = importlib.import_module(f"onnx.backend.test.case.node.{module}")
    if not hasattr(made, "tandem_cases"):
        made.tandem_cases = cases_of_onnx._NodeTestCases[before:]
    return made.tandem_cases


def as_array(value):
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def compare(case, got, want) -> None:
    assert got.dtype == want.dtype and got.shape == want.shape, case.name
    if got.dtype.kind in "iub":
        np.testing.assert_array_equal(got, want, case.name)
        return
    rounds = got.dtype.name == "bfloat16"
    got, want = got.astype(np.float64), want.astype(np.float64)
    largest = np.max(np.abs(want[np.isfinite(want)]), initial=0)
    np.testing.assert_allclose(
        got, want, rtol=0 if rounds else case.rtol, atol=BF16_TOLERANCE * largest if rounds else case.atol, err_msg=case.name
    )


def refused(module: str, ranks: int) -> list[str]:
    """The cases that are refused; every other one gives the recorded outputs."""
    names = []
    for case in cases_of(module):
        try:
            prepared = onnx_backend.prepare(case.model, "CPU", ranks=ranks, threads=1)
        except (tandem.errors.UnsupportedError, tandem.errors.InvalidModelError):
            names.append(case.name)
            continue
        with prepared.model:
            for inputs, outputs in case.data_sets:
                try:
                    got = prepared.run([as_array(value) for value in inputs])
                except (tandem.errors.UnsupportedError, tandem.errors.InvalidArgumentError) as error:
                    assert "no engine takes" in str(error) or "cannot be given to Python" in str(error), error  # types of half a byte
                    names.append(case.name)
                    break
                assert len(got) == len(outputs), case.name
                for a, b in zip(got, outputs, strict=True):
                    compare(case, np.asarray(a), np.asarray(as_array(b)))
    return names


def listed() -> dict[str, list[str]]:
    lines = LIST.read_text(encoding="utf-8").splitlines() if LIST.exists() else []
    return {line.split(": ")[0]: line.split(": ")[1].split() for line in lines if not line.startswith("#")}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("module", MODULES)
def test_node_cases(module, ranks):
    names, key = refused(module, ranks), f"{module} {ranks}"
    assert len(cases_of(module)) > 0
    if os.environ.get("TANDEM_RENEW_DOCS"):
        every = {**listed(), key: names}
        head = "# Cases of onnx.backend.test.case.node that tandem.onnx_backend refuses: module, ranks, cases. See onnx_backend_test.py.\n"
        LIST.write_text(head + "".join(f"{k}: {' '.join(every[k])}\n" for k in sorted(every) if every[k]), encoding="utf-8")
        return
    assert names == listed().get(key, [])


def with_constant(model: onnx.ModelProto, name: str, value: np.ndarray) -> onnx.ModelProto:
    """The model with one of its inputs given."""
    given = onnx.ModelProto()
    given.CopyFrom(model)
    kept = [i for i in model.graph.input if i.name != name]
    del given.graph.input[:]
    given.graph.input.extend(kept)
    given.graph.initializer.append(numpy_helper.from_array(value, name))
    return given


@pytest.mark.parametrize("ranks", [1, 2])
def test_top_k_of_a_known_k(ranks):
    """Refused above, where K is an input; files of models have it as a constant."""
    for case in cases_of("topk"):
        for (x, k), outputs in case.data_sets:
            prepared = onnx_backend.prepare(with_constant(case.model, "k", as_array(k)), ranks=ranks, threads=1)
            with prepared.model:
                for got, want in zip(prepared.run([as_array(x)]), outputs, strict=True):
                    compare(case, np.asarray(got), np.asarray(as_array(want)))


def test_run_node_and_run_model():
    x, y = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)
    node = helper.make_node("Add", ["x", "y"], ["z"])
    np.testing.assert_array_equal(onnx_backend.run_node(node, [x, y])[0], x + y)
    np.testing.assert_array_equal(onnx_backend.run_node(node, {"y": y, "x": x}, opset_version=13)[0], x + y)
    kinds = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", ["N", 3]), ("y", [3]))]
    graph = helper.make_graph([node], "add", kinds, [helper.make_empty_tensor_value_info("z")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    np.testing.assert_array_equal(onnx_backend.run_model(model, [x, y])[0], x + y)
    prepared = onnx_backend.prepare(model, ranks=2)
    with prepared.model:
        assert prepared.model.engine.ranks == 2 and "dp" in prepared.model.engine.inputs[0].sharding
        np.testing.assert_array_equal(prepared.run({"x": x, "y": y})[0], x + y)
        with pytest.raises(tandem.Error, match="1 inputs are given, the model has 2: x, y"):
            prepared.run([x])


def test_devices():
    assert onnx_backend.supports_device("CPU") and not onnx_backend.supports_device("CUDA") and not onnx_backend.supports_device("abacus")
    with pytest.raises(tandem.errors.UnsupportedError, match="device is 'CUDA'"):
        onnx_backend.prepare(onnx.ModelProto(), "CUDA")


def test_is_compatible():
    for op, fits in (("Relu", True), ("Mish", False)):
        kind = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
        graph = helper.make_graph([helper.make_node(op, ["x"], ["y"])], "one", [kind], [helper.make_empty_tensor_value_info("y")])
        assert onnx_backend.is_compatible(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)) is fits
