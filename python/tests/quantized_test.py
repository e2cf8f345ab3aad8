"""Quantised weights from the file to the ranks: what is read, that it stays small, on one rank and split over two."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
import tandem
from conftest import MODELS
from onnx import TensorProto, helper, numpy_helper

CODES = {
    "int8": np.int8,
    "uint8": np.uint8,
    "int4": ml_dtypes.int4,
    "uint4": ml_dtypes.uint4,
    "fp8": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
}
INNER, HIDDEN = 64, 128


def quantised(rng, shape, kind, block):
    """Codes, scales and zero points, and the matrix of floats that they stand for."""
    dtype = np.dtype(CODES[kind])
    if kind.startswith("fp8"):
        codes, most = (rng.standard_normal(shape) * 2).astype(dtype), 8.0
    else:
        low, high = ml_dtypes.iinfo(dtype).min, ml_dtypes.iinfo(dtype).max
        codes, most = rng.integers(low, high + 1, shape).astype(dtype), float(high)
    scales = (0.1 + rng.random((shape[0] // block, shape[1]) if block else shape[1:])).astype(np.float32) / most / 4
    zeros = rng.integers(0, 4, scales.shape).astype(dtype) if kind.startswith("u") else None

    def spread(a):
        return np.repeat(a, block, axis=0) if block else a

    floats = codes.astype(np.float32) - (0 if zeros is None else spread(zeros.astype(np.float32)))
    return codes, scales, zeros, floats * spread(scales)


def save(path, nodes, columns, weights, rows="n"):
    """A model from x to y, which have so many columns."""
    ports = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, n])] for name, n in zip("xy", columns, strict=True)]
    tensors = [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in weights.items()]
    graph = helper.make_graph(nodes, "test", *ports, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


def save_mlp(path, kind, block, *, transposed=False):
    """y = relu(x·w1)·w2 with dequantised matrices; returns its oracle."""
    rng = np.random.default_rng(7)
    nodes, weights, floats = [], {}, []
    for i, shape in enumerate([(INNER, HIDDEN), (HIDDEN, INNER)]):
        turned = transposed and i == 1
        *tensors, matrix = quantised(rng, shape, kind, block)
        floats.append(matrix)
        given = {f"{name}{i}": a.T if turned else a for name, a in zip("wsz", tensors, strict=True) if a is not None}
        weights |= given
        where = {"axis": 1 if turned else 0, "block_size": block} if block else {"axis": 0 if turned else 1}
        nodes.append(helper.make_node("DequantizeLinear", list(given), [f"d{i}"], **where))
        if turned:
            nodes.append(helper.make_node("Transpose", [f"d{i}"], [f"t{i}"], perm=[1, 0]))
        nodes.append(helper.make_node("MatMul", ["xr"[i], f"t{i}" if turned else f"d{i}"], ["hy"[i]], name=f"product{i}"))
        if i == 0:
            nodes.append(helper.make_node("Relu", ["h"], ["r"]))
    save(path, nodes, (INNER, INNER), weights)
    return lambda x: np.maximum(x @ floats[0], 0) @ floats[1]


def ops_of(engine):
    return [step["op"] for step in engine.describe()["steps"]]


@pytest.mark.parametrize("mesh", [None, {"tp": 2}, {"dp": 2}], ids=["one", "tp", "dp"])
@pytest.mark.parametrize("block", [0, 32])
@pytest.mark.parametrize("kind", list(CODES))
def test_products_keep_their_codes(tmp_path, kind, block, mesh):
    oracle = save_mlp(tmp_path / "mlp.onnx", kind, block, transposed=block != 0)
    engine = tandem.build(tmp_path / "mlp.onnx", mesh=mesh)
    ops = ops_of(engine)
    assert ops.count("DequantMatMul") == 2 and "DequantizeLinear" not in ops and "MatMul" not in ops
    engine.save(tmp_path / "mlp.tandem")
    whole = INNER * HIDDEN * 2 * (4 if "int4" in kind else 8) // 8
    scales = 2 * (INNER * HIDDEN // block if block else INNER + HIDDEN) * 4
    assert (tmp_path / "mlp.tandem").stat().st_size < 3 * (whole + scales) + 40_000  # far from floats, which take 4 · INNER · HIDDEN · 2
    x = np.random.default_rng(1).standard_normal((6, INNER)).astype(np.float32)
    for source in (engine, tmp_path / "mlp.tandem"):
        with tandem.load(source) as model:
            for rows in (x, x[:2]):
                expected = oracle(rows)
                np.testing.assert_allclose(model(x=rows)["y"], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def save_both_quantised(path, kind, columns):
    """y = q(relu(q(x)·w0 + b0))·w1ᵀ + b1 as quantisers write it; returns its oracle. Scales are powers of two and codes few, so that f32
    holds every sum and a border between two codes is met alike."""
    rng = np.random.default_rng(5)
    weight_type = np.dtype(np.int8 if kind == "int8" else ml_dtypes.float8_e4m3fn)
    type_ = np.dtype(CODES[kind])

    def quantise(x, scale):
        if kind == "int8":
            return np.clip(np.rint(x / scale), -128, 127)
        most = float(ml_dtypes.finfo(type_).max)
        return np.clip(x / scale, -most, most).astype(type_).astype(np.float32)

    nodes, weights, floats, biases, scales = [], {}, [], [], [0.25, 16.0]
    for i, (k, n) in enumerate([(INNER, HIDDEN), (HIDDEN, INNER)]):
        codes = rng.integers(-12, 13, (k, n)).astype(np.float32) * (1 if kind == "int8" else 0.25)
        scale = np.float32(2.0) ** rng.integers(-3, 1, n if columns else ()).astype(np.float32)
        floats.append(codes.astype(weight_type).astype(np.float32) * scale)
        biases.append(rng.integers(-8, 9, n).astype(np.float32))
        stored = codes.T if i == 1 else codes
        weights |= {f"sx{i}": np.float32(scales[i]), f"zx{i}": np.zeros((), type_), f"b{i}": biases[i]}
        weights |= {f"w{i}": stored.astype(weight_type), f"s{i}": scale, f"z{i}": np.zeros(scale.shape, weight_type)}
        nodes.append(helper.make_node("QuantizeLinear", ["xr"[i], f"sx{i}", f"zx{i}"], [f"q{i}"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"q{i}", f"sx{i}", f"zx{i}"], [f"a{i}"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"w{i}", f"s{i}", f"z{i}"], [f"d{i}"], axis=1 - i))
    nodes.insert(3, helper.make_node("MatMul", ["a0", "d0"], ["p"]))
    nodes.insert(4, helper.make_node("Add", ["p", "b0"], ["h"]))
    nodes.insert(5, helper.make_node("Relu", ["h"], ["r"]))
    nodes.append(helper.make_node("Gemm", ["a1", "d1", "b1"], ["y"], transB=1))
    save(path, nodes, (INNER, INNER), weights)

    def oracle(x):
        h = np.maximum(quantise(x, scales[0]) * scales[0] @ floats[0] + biases[0], 0)
        return quantise(h, scales[1]) * scales[1] @ floats[1] + biases[1]

    return oracle


@pytest.mark.parametrize("mesh", [None, {"tp": 2}, {"dp": 2}], ids=["one", "tp", "dp"])
@pytest.mark.parametrize("columns", [False, True], ids=["one scale", "columns"])
@pytest.mark.parametrize("kind", ["int8", "fp8", "fp8_e5m2"])
def test_codes_are_multiplied(tmp_path, kind, columns, mesh):
    oracle = save_both_quantised(tmp_path / "m.onnx", kind, columns)
    engine = tandem.build(tmp_path / "m.onnx", mesh=mesh)
    ops = ops_of(engine)
    assert ops.count("QuantMatMul") == 2 and not {"MatMul", "DequantMatMul", "DequantizeLinear", "Relu"} & set(ops)
    engine.save(tmp_path / "m.tandem")
    x = np.random.default_rng(1).integers(-20, 21, (6, INNER)).astype(np.float32) / 4
    for source in (engine, tmp_path / "m.tandem"):
        with tandem.load(source) as model:
            for rows in (x, x[:2]):
                expected = oracle(rows)
                np.testing.assert_allclose(model(x=rows)["y"], expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_codes_are_multiplied_in_half_precision(tmp_path):
    oracle = save_both_quantised(tmp_path / "m.onnx", "int8", True)
    engine = tandem.build(tmp_path / "m.onnx", dtype="bf16")
    assert ops_of(engine).count("QuantMatMul") == 2
    x = np.random.default_rng(1).integers(-20, 21, (6, INNER)).astype(np.float32) / 4
    with tandem.load(engine) as model:
        expected = oracle(x)
        np.testing.assert_allclose(model(x=x)["y"], expected, rtol=0, atol=0.03 * np.abs(expected).max())


def test_a_border_inside_a_block_is_named(tmp_path):
    save_mlp(tmp_path / "mlp.onnx", "int8", 64)
    with pytest.raises(tandem.errors.UnsupportedError, match=r"product1.*128 in quantisation blocks of 64 cannot be split over tp"):
        tandem.build(tmp_path / "mlp.onnx", mesh={"tp": 4})


def test_scales_that_do_not_fit_are_named(tmp_path):
    nodes = [helper.make_node("DequantizeLinear", ["w", "s"], ["d"], name="wrong"), helper.make_node("MatMul", ["x", "d"], ["y"])]
    save(tmp_path / "m.onnx", nodes, (64, 96), {"w": np.ones((64, 96), np.int8), "s": np.ones(95, np.float32)}, rows=2)
    words = r'DequantizeLinear "wrong".*95 scales are given for axis 1 of i8\[64,96\], which has 96'
    with pytest.raises(tandem.errors.InvalidModelError, match=words):
        tandem.build(tmp_path / "m.onnx")


@pytest.mark.parametrize("mesh", [None, {"tp": 2}], ids=["one", "tp"])
@pytest.mark.parametrize(("weights", "most"), [("int8", 0.02), ("fp8", 0.06), ("int4", 0.15)])
def test_a_model_of_floats_is_quantised(tmp_path, weights, most, mesh):
    rng = np.random.default_rng(3)
    w = [(rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32) for shape in ((256, 512), (512, 256))]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w1"], ["y"]),
    ]
    save(tmp_path / "m.onnx", nodes, (256, 256), {"w0": w[0], "w1": w[1]})
    engine = tandem.build(tmp_path / "m.onnx", mesh=mesh, weights=weights)
    assert ops_of(engine).count("DequantMatMul") == 2
    engine.save(tmp_path / "m.tandem")
    assert (tmp_path / "m.tandem").stat().st_size < 0.4 * 4 * 2 * 256 * 512
    x = rng.standard_normal((20, 256)).astype(np.float32)
    exact = np.maximum(x @ w[0], 0) @ w[1]
    with tandem.load(engine) as model:
        error = np.abs(model(x=x)["y"] - exact).max() / np.abs(exact).max()
    assert 1e-4 < error < most  # it was quantised, and well


def test_what_cannot_be_quantised(tmp_path):
    with pytest.raises(tandem.errors.InvalidArgumentError, match="expected 'int8', 'int4' or 'fp8'"):
        tandem.build(MODELS / "mlp_dynamo.onnx", weights="int3")
    with pytest.raises(tandem.errors.InvalidArgumentError, match="cannot be refitted"):
        tandem.build(MODELS / "mlp_dynamo.onnx", weights="int8", refittable=True)
