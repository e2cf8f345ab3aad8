"""Shapes that depend on data: arrays of the real shape from models and contexts, of torch's exports too."""

import numpy as np
import onnx
import pytest
import tandem
from onnx import TensorProto, helper


def selection(opset=13, dtype=TensorProto.FLOAT):
    """x · one [B,4] → where it is not zero, as torch.nonzero exports it, and those elements."""
    one = helper.make_tensor("one", dtype, [4, 4], np.eye(4).ravel())
    nodes = [
        helper.make_node("MatMul", ["x", "one"], ["same"]),
        helper.make_node("NonZero", ["same"], ["indices"], name="find"),
        helper.make_node("Transpose", ["indices"], ["tuples"], perm=[1, 0]),
        helper.make_node("GatherND", ["same", "tuples"], ["picked"]),
    ]
    outputs = [("tuples", TensorProto.INT64, ["n", 2]), ("picked", dtype, ["n"]), ("same", dtype, ["B", 4])]
    graph = helper.make_graph(
        nodes,
        "selection",
        [helper.make_tensor_value_info("x", dtype, ["B", 4])],
        [helper.make_tensor_value_info(*output) for output in outputs],
        [one],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("measured") / "selection.onnx"
    onnx.save(selection(), path)
    return path


def samples():
    random = np.random.default_rng(0)
    for rows, share in ((6, 0.3), (6, 1.0), (6, 0.0), (8, 0.5), (6, 0.3)):
        yield (random.random((rows, 4)) + 1).astype(np.float32) * (random.random((rows, 4)) < share)


def check(got, x):
    np.testing.assert_array_equal(got["tuples"], np.argwhere(x))
    np.testing.assert_array_equal(got["picked"], x[np.nonzero(x)])
    np.testing.assert_array_equal(got["same"], x)
    assert got["tuples"].dtype == np.int64


@pytest.mark.parametrize(("mesh", "isolate"), [(None, "threads"), (None, "processes"), ({"dp": 2}, "threads"), ({"dp": 2}, "processes")])
def test_models_give_arrays_of_the_real_shape(path, mesh, isolate):
    with tandem.load(tandem.build(path, mesh=mesh), isolate=isolate) as model:
        for x in samples():
            check(model(x=x), x)


def test_arrays_of_the_caller_have_room_for_the_most(path):
    x = next(samples())
    engine = tandem.build(path)
    for isolate in ("threads", "processes"):
        with tandem.load(engine, isolate=isolate) as model:
            room = np.zeros((24, 2), np.int64)
            got = model.run({"x": x}, {"tuples": room})
            check(got, x)
            assert np.shares_memory(got["tuples"], room)
            with pytest.raises(tandem.Error, match=r"'tuples' has shape \[3,2\], expected \[24,2\]"):
                model.run({"x": x}, {"tuples": np.zeros((3, 2), np.int64)})


def test_contexts_tell_the_largest_shape_and_the_real_one(path):
    x = next(samples())
    with tandem.Context(tandem.build(path), threads=1) as context:
        context.set_input_shape("x", x.shape)
        assert context.output_shape("tuples") == (24, 2)
        assert context.measured_dims("tuples") == (True, False) and context.measured_dims("picked") == (True,)
        with pytest.raises(tandem.Error, match="known after a run"):
            context.last_output_shape("tuples")
        check(context(x=x), x)
        assert context.last_output_shape("tuples") == np.argwhere(x).shape
        assert context.output_shape("tuples") == (24, 2)


def test_networks():
    net = tandem.Network()
    x = net.input("x", "f32", ["B"])
    indices, count = net.non_zero(x)
    net.output("indices", indices)
    net.output("count", count)
    with tandem.load(tandem.build(net)) as model:
        got = model(x=np.array([0, 2, 0, -1], np.float32))
    np.testing.assert_array_equal(got["indices"], [[1, 3]])
    assert got["count"] == 2


def test_torch_nonzero(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")

    class Positive(torch.nn.Module):
        def forward(self, x):
            return torch.nonzero(x > 0), x[x > 0]

    x = torch.randn(5, 7)
    torch.onnx.export(Positive(), (x,), tmp_path / "m.onnx", input_names=["x"], output_names=["tuples", "picked"], dynamo=False)
    got = tandem.load(tandem.build(tmp_path / "m.onnx"))(x=x)
    for name, expected in zip(("tuples", "picked"), Positive()(x), strict=True):
        assert torch.equal(torch.as_tensor(got[name]), expected)
