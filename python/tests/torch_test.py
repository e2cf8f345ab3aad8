"""Torch tensors in, torch tensors out, without copies. Skipped where torch is not installed."""

import numpy as np
import pytest
import tandem

torch = pytest.importorskip("torch", reason="torch is not installed")


def test_same_kind_comes_back(add_model):
    a, b = torch.arange(12, dtype=torch.float32).reshape(3, 4), torch.ones(3, 4)
    with tandem.load(add_model) as model:
        out = model(a=a, b=b)["y"]
        assert isinstance(out, torch.Tensor) and model.last_copies == 0
        assert torch.equal(out, a + b)
        mixed = model(a=a.numpy(), b=b)["y"]
        assert isinstance(mixed, torch.Tensor) and torch.equal(mixed, a + b)
        mine = torch.empty(3, 4)
        assert model.run({"a": a, "b": b}, {"y": mine})["y"] is mine
        assert torch.equal(mine, a + b)


def test_other_layouts(add_model):
    a, b = torch.arange(12, dtype=torch.float32).reshape(4, 3).T, torch.ones(3, 4)
    with tandem.load(add_model) as model:
        assert torch.equal(model(a=a, b=b)["y"], a + b)
        assert model.last_copies == 1


@pytest.mark.parametrize(("onnx_type", "dtype"), [("BFLOAT16", "bfloat16"), ("FLOAT16", "float16"), ("INT64", "int64")])
def test_element_types(typed_add, onnx_type, dtype):
    a = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
    with tandem.load(tandem.build(typed_add(onnx_type))) as model:
        out = model(a=a, b=a)["y"]
    assert out.dtype == a.dtype and torch.equal(out, a + a)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_fp8(folder, dtype):
    from conftest import save_onnx
    from onnx import TensorProto, helper

    kind = getattr(TensorProto, dtype.replace("_", "").upper())
    nodes = [helper.make_node("Reshape", ["a", "shape"], ["y"])]
    path = save_onnx(folder / f"torch_{dtype}.onnx", nodes, {"a": (kind, [2, 3])}, {"y": (kind, [3, 2])}, {"shape": np.array([3, 2])})
    a = torch.arange(6.0).reshape(2, 3).to(getattr(torch, dtype))
    with tandem.load(path) as model:
        out = model(a=a)["y"]
    assert out.dtype == a.dtype and torch.equal(out.float(), a.float().reshape(3, 2))


def test_tensors_are_not_asked_where_torch_has_the_exchange_table(add_model, monkeypatch):
    if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip("this torch has no exchange table")

    def asked(*_, **__):
        raise AssertionError("__dlpack__ was asked")

    monkeypatch.setattr(torch.Tensor, "__dlpack__", asked)
    monkeypatch.setattr(torch.Tensor, "__dlpack_device__", asked)
    a = torch.ones(3, 4)
    with tandem.load(add_model) as model:
        assert torch.equal(model(a=a, b=a)["y"], a + a) and model.last_copies == 0


def test_several_ranks(mlp):
    x = mlp.inputs()
    with tandem.load(tandem.build(mlp.path, mesh={"tp": 2})) as model:
        out = model(x=torch.from_numpy(x))["out"]
    assert isinstance(out, torch.Tensor)
    np.testing.assert_allclose(out.numpy(), mlp(x), rtol=1e-4, atol=1e-4)


def test_other_device(add_model):
    with tandem.load(add_model) as model, pytest.raises(tandem.Error, match="input .a. cannot be read"):
        model(a=torch.empty(3, 4, device="meta"), b=torch.ones(3, 4))


def test_tensors_that_need_gradients(add_model):
    a = torch.ones(3, 4, requires_grad=True)
    with tandem.load(add_model) as model:
        out = model(a=a.detach(), b=a.detach())["y"]
    assert not out.requires_grad
