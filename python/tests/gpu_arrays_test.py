"""Arrays of a GPU: used where they lie, given back there, in the order of streams. Skipped, with the reason, where there is no GPU."""

import sys
import threading

import numpy as np
import pytest
import tandem

pytestmark = pytest.mark.skipif(tandem.gpu_count() == 0, reason="this machine has no GPU, or the package was built without CUDA")


@pytest.fixture(scope="module")
def engine(mlp):
    return tandem.build(mlp.path, device="cuda")


@pytest.fixture
def context(engine):
    with tandem.Context(engine) as made:
        yield made


@pytest.fixture(scope="module")
def torch():
    module = pytest.importorskip("torch", reason="torch is not installed")
    if not module.cuda.is_available():
        pytest.skip("torch sees no GPU")
    return module


@pytest.fixture(scope="module")
def cupy():
    return pytest.importorskip("cupy", reason="cupy is not installed")


def near(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_what_it_is_for(engine, context):
    assert engine.device == "cuda" and context.device == "cuda:0"
    with pytest.raises(tandem.Error, match="not cpu"):
        tandem.load(engine, device="cpu")


# Arrays of the host


def test_arrays_of_the_host(context, mlp):
    x = mlp.inputs()
    out = context(x=x)["out"]
    assert isinstance(out, np.ndarray)
    near(out, mlp(x))


# Our own


def test_device_array_there_and_back():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    array = tandem.DeviceArray(values)
    assert (array.shape, array.dtype, array.device, array.nbytes) == ((2, 3), "f32", "cuda:0", 24)
    assert array.__dlpack_device__() == (2, 0)
    np.testing.assert_array_equal(array.numpy(), values)
    np.testing.assert_array_equal(tandem.DeviceArray(values.T).numpy(), values.T)
    assert tandem.DeviceArray(np.empty((0, 3), np.float32)).numpy().shape == (0, 3)
    with pytest.raises(tandem.Error):
        tandem.DeviceArray(values, gpu=99)
    with pytest.raises(BufferError):
        array.__dlpack__(dl_device=(1, 0))


def test_pinned_memory_may_be_used_again(torch):
    """The copy begins late, behind other work of the stream."""
    pinned = torch.ones(64 << 20, dtype=torch.float32, pin_memory=True)
    torch.cuda._sleep(200_000_000)
    array = tandem.DeviceArray(pinned)
    pinned.fill_(2)
    assert (array.numpy() == 1).all()


def test_device_arrays(context, mlp):
    x = mlp.inputs()
    given = tandem.DeviceArray(x)
    for _ in range(4):  # eager, recorded, replayed
        out = context(x=given)["out"]
        assert isinstance(out, tandem.DeviceArray) and out.shape == (6, 8) and context.last_copies == 0
        near(out.numpy(), mlp(x))
    mine = tandem.DeviceArray(np.zeros((6, 8), np.float32))
    assert context.run({"x": given}, {"out": mine})["out"] is mine
    near(mine.numpy(), mlp(x))
    context.synchronize()


@pytest.mark.parametrize("taken", [False, True], ids=["ours", "taken by torch"])
def test_the_gil_is_free_while_memory_is_given_back(torch, taken):
    """The last user of an array waits for the GPU; other threads of Python go on meanwhile, for they may have to give it what it waits for."""
    array = tandem.DeviceArray(np.zeros(4, np.float32))
    if taken:
        array = torch.from_dlpack(array)
    ticks, ended = [], threading.Event()

    def tick():
        while not ended.wait(0.001):
            ticks.append(1)

    thread = threading.Thread(target=tick)
    thread.start()
    torch.cuda._sleep(1_000_000_000)  # about half a second
    before = len(ticks)
    del array
    during = len(ticks) - before
    waited = torch.cuda.current_stream().query()
    ended.set()
    thread.join()
    torch.cuda.synchronize()
    assert during > 10 or not waited


def test_a_model_of_one_rank(mlp):
    x = mlp.inputs()
    with tandem.load(mlp.path, device="cuda") as model:
        near(model(x=tandem.DeviceArray(x))["out"].numpy(), mlp(x))
        near(model(x=x)["out"], mlp(x))


def test_arrays_outlive_what_made_them(engine, mlp):
    x = mlp.inputs()
    with tandem.Context(engine) as context:
        out = context(x=tandem.DeviceArray(x))["out"]
    del context
    near(out.numpy(), mlp(x))


# torch


def test_torch_tensors(context, mlp, torch):
    x = mlp.inputs()
    given = torch.from_numpy(x).cuda()
    for _ in range(4):
        out = context(x=given)["out"]
        assert isinstance(out, torch.Tensor) and out.is_cuda and context.last_copies == 0
        near(out.cpu().numpy(), mlp(x))
    mine = torch.empty(6, 8, device="cuda")
    before = mine.data_ptr()
    assert context.run({"x": given}, {"out": mine})["out"] is mine and mine.data_ptr() == before
    near(mine.cpu().numpy(), mlp(x))


def test_work_goes_to_the_current_stream(context, mlp, torch):
    x = mlp.inputs()
    wanted = mlp(x)
    context(x=torch.from_numpy(x).cuda())
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(20):
            given = torch.zeros(6, 8, device="cuda")
            torch.cuda._sleep(2_000_000)  # what reads before the copy finds zeros
            given.copy_(torch.from_numpy(x), non_blocking=True)
            out = context(x=given)["out"]
            doubled = out * 2
        stream.synchronize()
    near(doubled.cpu().numpy(), 2 * wanted)


def test_a_stream_that_is_named(context, mlp, torch):
    x = mlp.inputs()
    given = torch.zeros(6, 8, device="cuda")
    torch.cuda._sleep(20_000_000)
    given.copy_(torch.from_numpy(x))
    stream = torch.cuda.Stream()
    for named in (stream, stream.cuda_stream):
        mine = torch.zeros(6, 8, device="cuda")
        context.run({"x": given}, {"out": mine}, stream=named)
        stream.synchronize()
        near(mine.cpu().numpy(), mlp(x))
    with pytest.raises(tandem.Error, match="a stream is given as its number"):
        context.run({"x": given}, {"out": mine}, stream="main")


def test_within_a_graph_of_torch(context, mlp, torch):
    x = mlp.inputs()
    given = torch.zeros(6, 8, device="cuda")
    context.set_input_shape("x", (6, 8))
    context.prepare()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = context(x=given * 1)["out"]
        shifted = out + 1
    for factor in (1, 2):
        given.copy_(torch.from_numpy(factor * x))
        graph.replay()
        near(shifted.cpu().numpy(), mlp(factor * x) + 1)


def test_device_array_to_torch_and_back(context, mlp, torch):
    x = mlp.inputs()
    out = context(x=tandem.DeviceArray(x))["out"]
    taken = torch.from_dlpack(out)
    del out
    assert taken.is_cuda and taken.dtype == torch.float32
    near(taken.cpu().numpy(), mlp(x))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        near(torch.from_dlpack(context(x=tandem.DeviceArray(x))["out"]).cpu().numpy(), mlp(x))
    near(torch.as_tensor(context(x=tandem.DeviceArray(x))["out"], device="cuda").cpu().numpy(), mlp(x))  # by the array interface


@pytest.mark.parametrize(("onnx_type", "dtype"), [("BFLOAT16", "bfloat16"), ("FLOAT16", "float16"), ("INT64", "int64")])
def test_element_types(typed_add, torch, onnx_type, dtype):
    a = torch.arange(6, device="cuda").reshape(2, 3).to(getattr(torch, dtype))
    with tandem.Context(tandem.build(typed_add(onnx_type), device="cuda")) as context:
        out = context(a=a, b=a)["y"]
    assert out.dtype == a.dtype and torch.equal(out, a + a)


# cupy


def test_cupy_arrays(context, mlp, cupy):
    x = mlp.inputs()
    given = cupy.asarray(x)
    for _ in range(3):
        out = context(x=given)["out"]
        assert isinstance(out, cupy.ndarray)
        near(cupy.asnumpy(out), mlp(x))
    with cupy.cuda.Stream(non_blocking=True) as stream:
        out = context(x=cupy.asarray(x))["out"] + 1
        stream.synchronize()
    near(cupy.asnumpy(out), mlp(x) + 1)


# Refusals: nothing was run, and everything stays usable.


def refused(context, mlp, words, inputs, outputs=None):
    with pytest.raises(tandem.Error) as caught:
        context.run(inputs, outputs)
    assert caught.value.code == "invalid_argument"
    for word in words:
        assert word in str(caught.value), caught.value
    near(context(x=tandem.DeviceArray(mlp.inputs()))["out"].numpy(), mlp(mlp.inputs()))


def test_wrong_arrays(context, mlp, torch):
    x = torch.from_numpy(mlp.inputs()).cuda()
    refused(context, mlp, ["'x'", "f64", "expected f32"], {"x": x.double()})
    refused(context, mlp, ["'x'", "not contiguous"], {"x": torch.zeros(8, 6, device="cuda").T})
    refused(context, mlp, ["'x'"], {"x": x[:, :7].contiguous()})
    refused(context, mlp, ["'out'", "the host", "a GPU"], {"x": x}, {"out": np.zeros((6, 8), np.float32)})
    refused(context, mlp, ["'out'", "a GPU", "the host"], {"x": mlp.inputs()}, {"out": torch.zeros(6, 8, device="cuda")})
    refused(context, mlp, ["'out'", "shares memory", "'x'"], {"x": x}, {"out": x})


def test_arrays_on_both_sides(add_model, torch):
    a = torch.ones(3, 4)
    with tandem.Context(tandem.build(add_model, device="cuda")) as context:
        with pytest.raises(tandem.Error, match="'b' lies on the host and input 'a' on GPU 0"):
            context(a=a.cuda(), b=a)
        assert torch.equal(context(a=a.cuda(), b=a.cuda())["y"].cpu(), a + a)


def test_an_engine_for_the_cpu(add_model, torch):
    a = torch.ones(3, 4)
    with tandem.Context(tandem.build(add_model)) as context:
        with pytest.raises(tandem.Error, match="'a' lies on GPU 0, expected memory of the host: the engine is for the device cpu"):
            context(a=a.cuda(), b=a.cuda())
        with pytest.raises(tandem.Error, match="no streams"):
            context.run({"a": a, "b": a}, stream=torch.cuda.Stream())
        assert torch.equal(context(a=a, b=a)["y"], a + a)


def test_several_ranks_take_arrays_of_the_host(mlp, torch):
    x = mlp.inputs()
    engine = tandem.build(mlp.path, mesh={"tp": 2}, device="cuda")
    if torch.cuda.device_count() < 2:
        with tandem.load(engine) as model, pytest.raises(tandem.Error, match="ranks 0 and 1 are threads of one process and share one GPU"):
            model(x=x)
    shared = torch.cuda.device_count() < 2
    with tandem.load(engine, isolate="processes" if shared else "threads") as model:
        with pytest.raises(tandem.Error, match="several ranks takes and gives arrays of the host"):
            model(x=torch.from_numpy(x).cuda())
        near(model(x=x)["out"], mlp(x))
        told = ["collectives between the GPUs go through the host, for ranks 0 and 1 share one GPU"]
        assert model.notices == (told if shared else [])


def test_more_ranks_than_gpus_say_who_shares_one(mlp, torch, caplog):
    gpus = torch.cuda.device_count()
    if 16 % (2 * gpus) != 0:
        pytest.skip(f"the model's 16 hidden units cannot be split over {2 * gpus} ranks")
    x = mlp.inputs()
    engine = tandem.build(mlp.path, mesh={"tp": 2 * gpus}, device="cuda")
    caplog.clear()
    with tandem.load(engine, isolate="processes") as model:
        near(model(x=x)["out"], mlp(x))
        assert model.notices == [f"collectives between the GPUs go through the host, for ranks 0 and {gpus} share one GPU"]
        near(model(x=x)["out"], mlp(x))
    assert [r.message for r in caplog.records if r.name == "tandem"] == model.notices  # once, though there were two calls


def test_an_index_outside_its_extent_is_told(folder, torch):
    from conftest import save_onnx
    from onnx import TensorProto, helper

    path = save_onnx(folder / "gather.onnx", [helper.make_node("Gather", ["x", "i"], ["y"])],
                     {"x": (TensorProto.FLOAT, [4, 2]), "i": (TensorProto.INT64, [3])}, {"y": (TensorProto.FLOAT, [3, 2])})  # fmt: skip
    x = torch.arange(8, dtype=torch.float32, device="cuda").reshape(4, 2)
    with tandem.Context(tandem.build(path, device="cuda")) as context:
        for good in (False, True):
            index = torch.tensor([0, 3, 1 if good else 7], device="cuda")
            out = context(x=x, i=index)["y"]
            if good:
                context.synchronize()
                assert torch.equal(out, x[index])
            else:
                with pytest.raises(tandem.Error, match="index 7 is outside extent 4"):
                    context.synchronize()


def test_no_reference_is_kept(context, mlp, torch):
    given = torch.from_numpy(mlp.inputs()).cuda()
    before = sys.getrefcount(given)
    for _ in range(10):
        context(x=given)
    assert sys.getrefcount(given) == before


def test_memory_is_given_back(context, mlp, torch):
    given = tandem.DeviceArray(mlp.inputs())
    context(x=given)
    torch.cuda.synchronize()
    free = torch.cuda.mem_get_info()[0]
    for _ in range(200):
        taken = torch.from_dlpack(context(x=given)["out"])
        context(x=given)["out"].__dlpack__()  # a capsule that nobody takes
    del taken
    torch.cuda.synchronize()
    assert torch.cuda.mem_get_info()[0] >= free - (4 << 20)
