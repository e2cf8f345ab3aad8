"""Arrays go in and come out where they lie: numpy, buffers, DLPack, ml_dtypes; copies are counted."""

import array
import ctypes
import gc

import ml_dtypes
import numpy as np
import pytest
import tandem


@pytest.fixture(scope="module")
def add(add_model):
    with tandem.load(add_model) as model:
        yield model


@pytest.fixture(scope="module", params=[None, {"tp": 2}, {"dp": 2}], ids=["one", "tp", "dp"])
def any_mlp(request, mlp):
    with tandem.load(tandem.build(mlp.path, mesh=request.param)) as model:
        yield model


def pair(rows=3):
    return np.arange(rows * 4, dtype=np.float32).reshape(rows, 4), np.full((rows, 4), 2, np.float32)


def test_contiguous_arrays_are_not_copied(any_mlp, mlp):
    x = mlp.inputs(6)
    out = any_mlp(x=x)["out"]
    assert any_mlp.last_copies == 0
    np.testing.assert_allclose(out, mlp(x), rtol=1e-4, atol=1e-4)


def test_ragged_parts_are_copied_and_right(mlp):
    with tandem.load(tandem.build(mlp.path, mesh={"dp": 2})) as model:
        x = mlp.inputs(5)
        np.testing.assert_allclose(model(x=x)["out"], mlp(x), rtol=1e-4, atol=1e-4)
        assert model.last_copies == 2  # the last rank's part, with its padding, in and out


def test_processes_copy_each_array_once_per_rank(mlp):
    with tandem.load(tandem.build(mlp.path, mesh={"tp": 2}), isolate="processes") as model:
        model(x=mlp.inputs())
        assert model.last_copies == 3  # in for both ranks, out from one


def test_outputs_into_arrays_of_the_caller(any_mlp, mlp):
    x, mine = mlp.inputs(6), np.full((6, 8), np.nan, np.float32)
    result = any_mlp.run({"x": x}, {"out": mine})
    assert result["out"] is mine and any_mlp.last_copies == 0
    np.testing.assert_allclose(mine, mlp(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda a: a[::-1],
        lambda a: a[:, ::-1],
        lambda a: np.repeat(a, 2, axis=0)[::2],
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: np.broadcast_to(a[:1], a.shape),
    ],
    ids=["fortran", "rows backwards", "columns backwards", "every other row", "every other column", "broadcast"],
)
def test_other_layouts_are_packed(add, change):
    a, b = pair()
    given = change(a)
    assert not given.flags.c_contiguous
    np.testing.assert_array_equal(add(a=given, b=b)["y"], given + b)
    assert add.last_copies == 1


def test_other_layouts_on_several_ranks(mlp):
    with tandem.load(tandem.build(mlp.path, mesh={"tp": 2})) as model:
        x = mlp.inputs(6)[::-1]
        np.testing.assert_allclose(model(x=x)["out"], mlp(x), rtol=1e-4, atol=1e-4)
        assert model.last_copies == 1


def test_dimensions_of_one_may_have_any_stride(add):
    a, b = pair(1)
    given = np.lib.stride_tricks.as_strided(a, strides=(4096, 4))
    np.testing.assert_array_equal(add(a=given, b=b)["y"], a + b)
    assert add.last_copies == 0


def test_read_only_inputs(add):
    a, b = pair()
    a.flags.writeable = False
    np.testing.assert_array_equal(add(a=a, b=b)["y"], a + b)
    assert add.last_copies == 0


def test_buffers(add):
    a, b = pair()
    view = memoryview(array.array("f", a.ravel())).cast("B").cast("f", [3, 4])
    out = add(a=view, b=memoryview(b))["y"]
    assert isinstance(out, np.ndarray) and add.last_copies == 0
    np.testing.assert_array_equal(out, a + b)


class Exporter:
    """Has DLPack and nothing else; `version` None: as before DLPack 1.0."""

    def __init__(self, values, versioned=True, device=(1, 0)):
        self.values, self.versioned, self.device = values, versioned, device

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **options):
        if not self.versioned and options:
            raise TypeError("unexpected keyword")
        return self.values.__dlpack__(**options)


@pytest.mark.parametrize("versioned", [True, False])
def test_dlpack(add, versioned):
    a, b = pair()
    out = add(a=Exporter(a, versioned), b=Exporter(b[:], versioned))["y"]
    np.testing.assert_array_equal(out, a + b)
    assert add.last_copies == 0


class Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("id", ctypes.c_int32)]


class Tensor(ctypes.Structure):  # DLTensor
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", Device),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    ]


class Table(ctypes.Structure):  # DLPackExchangeAPI 1.x
    _fields_ = [("version", ctypes.c_uint32 * 2), ("previous", ctypes.c_void_p), ("functions", ctypes.c_void_p * 5)]


class Tabled:
    """What the table of its type lends; never to be asked by Python calls."""

    def __init__(self, values):
        self.values = values
        strides = [stride // values.itemsize for stride in values.strides]
        self.extents = [(ctypes.c_int64 * values.ndim)(*numbers) for numbers in (values.shape, strides)]

    def __dlpack_device__(self):
        raise AssertionError("asked")

    __dlpack__ = __dlpack_device__


@ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(Tensor))
def lend(array, out):
    out[0] = Tensor(array.values.ctypes.data, Device(1, 0), array.values.ndim, 2, 32, 1, *array.extents, 0)
    return 0


@pytest.fixture
def table(monkeypatch):
    table = Table((1, 3), None, (ctypes.c_void_p * 5)(None, None, None, ctypes.cast(lend, ctypes.c_void_p), None))
    ctypes.pythonapi.PyCapsule_New.restype = ctypes.py_object
    capsule = ctypes.pythonapi.PyCapsule_New(ctypes.byref(table), b"dlpack_exchange_api", None)
    monkeypatch.setattr(Tabled, "__dlpack_c_exchange_api__", capsule, raising=False)
    return table


def test_exchange_tables_are_used_where_a_type_has_one(add, table):
    a, b = pair()
    np.testing.assert_array_equal(add(a=Tabled(a), b=Tabled(b))["y"], a + b)
    assert add.last_copies == 0
    np.testing.assert_array_equal(add(a=Tabled(a[::-1]), b=Tabled(b))["y"], a[::-1] + b)
    assert add.last_copies == 1
    with pytest.raises(tandem.Error, match="extent 3 in dimension 1"):
        add(a=Tabled(a[:, :3]), b=Tabled(b))


def test_dlpack_is_given_back(add):
    import sys

    a, b = pair()
    before = sys.getrefcount(a)
    for _ in range(10):
        add(a=Exporter(a), b=b)
        with pytest.raises(tandem.Error):
            add(a=Exporter(a.astype(np.float64)), b=b)
    gc.collect()
    assert sys.getrefcount(a) == before


@pytest.mark.parametrize(
    ("onnx_type", "dtype"),
    [
        ("FLOAT", np.float32),
        ("FLOAT16", np.float16),
        ("BFLOAT16", ml_dtypes.bfloat16),
        ("DOUBLE", np.float64),
        ("INT32", np.int32),
        ("INT64", np.int64),
        ("INT8", np.int8),
        ("UINT8", np.uint8),
    ],
)
def test_element_types(typed_add, onnx_type, dtype):
    try:
        engine = tandem.build(typed_add(onnx_type))
    except tandem.Error as error:
        pytest.skip(f"no such model: {error}")
    a, b = np.arange(6).reshape(2, 3).astype(dtype), np.full((2, 3), 2).astype(dtype)
    with tandem.load(engine) as model:
        out = model(a=a, b=b)["y"]
        assert out.dtype == np.dtype(dtype) and model.last_copies == 0
        np.testing.assert_array_equal(out.astype(np.float64), np.arange(6).reshape(2, 3) + 2.0)
        packed = model(a=np.asfortranarray(a), b=b)["y"]
        np.testing.assert_array_equal(packed.astype(np.float64), out.astype(np.float64))


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_fp8(folder, dtype):
    from conftest import save_onnx
    from onnx import TensorProto, helper

    kind = getattr(TensorProto, "FLOAT8E4M3FN" if dtype is ml_dtypes.float8_e4m3fn else "FLOAT8E5M2")
    node = helper.make_node("Reshape", ["a", "shape"], ["y"])
    path = save_onnx(folder / f"{kind}.onnx", [node], {"a": (kind, [2, 3])}, {"y": (kind, [3, 2])}, {"shape": np.array([3, 2])})
    try:
        engine = tandem.build(path)
    except tandem.Error as error:
        pytest.skip(f"no such model: {error}")
    a = np.arange(6).reshape(2, 3).astype(dtype)
    with tandem.load(engine) as model:
        out = model(a=a)["y"]
    assert out.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(out.astype(np.float32), np.arange(6).reshape(3, 2))


def test_arrays_outlive_the_model(add_model):
    a, b = pair()
    model = tandem.load(add_model)
    out = model(a=a, b=b)["y"]
    model.close()
    del model
    gc.collect()
    np.testing.assert_array_equal(out, a + b)
    out += 1  # writable, and the caller's own
    np.testing.assert_array_equal(out, a + b + 1)


def test_each_call_gives_arrays_of_its_own(any_mlp, mlp):
    x = mlp.inputs(6)
    first = any_mlp(x=x)["out"].copy()
    kept = any_mlp(x=x)["out"]
    any_mlp(x=x * 0)
    np.testing.assert_array_equal(kept, first)


def test_the_model_outlives_arrays(add_model):
    with tandem.load(add_model) as model:
        for rows in range(1, 20):
            a, b = pair(rows)
            wanted = a + b
            out = model({"a": a, "b": b})["y"]
            del a, b
            gc.collect()
            np.testing.assert_array_equal(out, wanted)


def test_zero_size(add, add_model):
    engine = tandem.build(add_model, shapes={"a": "0x4:2x4:8x4", "b": "0x4:2x4:8x4"})
    with tandem.load(engine) as model:
        out = model(a=np.zeros((0, 4), np.float32), b=np.zeros((0, 4), np.float32))["y"]
    assert out.shape == (0, 4)
